//! Blocks that this peer fetches from its neighbours.
//!
//! [`NeighbourSource`] hides how they come: by our calls, or on the neighbour's link. Either way a
//! [`receiver::BlockReceiver`] checks and stores them, and reports.

mod calls;
mod downloads;
mod fetch_spec;
mod on_link;
mod receiver;
mod response;
mod source;

pub(super) use self::on_link::LinkSource;
pub use self::{calls::BlockSource, downloads::Downloads, fetch_spec::FetchSpec};
pub(crate) use self::{
    on_link::AnswerPart,
    source::{FetchHandle, NeighbourSource},
};
#[cfg(fuzzing)]
pub(super) use self::{
    receiver::take_next,
    response::{Blocks, MAX_MESSAGE_BYTES},
};
