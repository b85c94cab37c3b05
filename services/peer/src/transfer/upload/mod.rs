//! Blocks that neighbours and strangers fetch from this peer.
//!
//! Each request is an [`uploads::Upload`] among the [`Uploads`], whether it is a call of
//! [`RequestPiece`] or came on a link ([`LinkUploads`]): it is served as far as the state machine
//! grants.

mod codec;
mod on_link;
mod request_piece;
mod uploads;

#[cfg(fuzzing)]
pub(super) use self::codec::encode_head;
pub(crate) use self::{on_link::LinkUploads, uploads::BlockRequest};
pub use self::{
    request_piece::{ContentIndex, RequestPiece},
    uploads::Uploads,
};
