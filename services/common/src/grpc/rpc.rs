//! What happens around every call. On both sides: trace context, and limits for received messages.
//! On the server: a span, a count and a duration, and limits for sent messages.

mod budget;
#[cfg(any(test, fuzzing))]
mod frames;
#[cfg(fuzzing)]
pub mod fuzzing;
mod method;
mod observe;
mod received;
mod sent;
mod shape;
mod trace_context;

pub use budget::Budget;
pub(crate) use budget::{Charge, Flow};
pub(crate) use method::{Method, called_by};
pub(crate) use observe::RpcLayer;
pub(crate) use received::ReceivedBody;
pub(crate) use sent::{Parts, SentBody, Turns};
pub(crate) use trace_context::inject_context;
