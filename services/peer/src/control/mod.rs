//! The local API, `shoal.control.v1`: publish, fetch, observe.

mod api;
mod change;
mod listen;
mod observe;
mod roots;
mod upload;
mod wire;

pub use self::listen::{ListenError, SocketError};
pub(crate) use self::{api::LocalApi, listen::Listener, roots::Roots};
