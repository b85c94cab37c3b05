//! The data plane: moves blocks between peers, by the call `RequestPiece`, or on the link of a
//! neighbour that cannot be dialled.
//!
//! It runs on [`IoThreads`], threads of its own. [`Downloads`] are what is fetched from neighbours,
//! [`Uploads`] what they fetch here, as far as the state machine grants. The engine is informed by
//! [`Event`]s.

mod data_plane;
mod download;
mod event;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod io_threads;
mod protocol;
mod rate_cap;
mod upload;

#[cfg(fuzzing)]
pub(crate) use self::protocol::parse_ranges;
pub(crate) use self::{
    data_plane::DataPlane,
    download::{AnswerPart, FetchHandle, NeighbourSource},
    upload::{BlockRequest, LinkUploads},
};
pub use self::{
    download::{BlockSource, Downloads, FetchSpec},
    event::Event,
    io_threads::{IoThreads, SocketTuning, default_io_threads},
    protocol::{MAX_BLOCK_LENGTH, MAX_RANGES},
    rate_cap::RateCap,
    upload::{ContentIndex, RequestPiece, Uploads},
};
