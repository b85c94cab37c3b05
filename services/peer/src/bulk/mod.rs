//! The data plane: moves blocks between peers, by the call `RequestPiece`.
//!
//! It runs on [`Lanes`], threads of its own. A call for our blocks is an [`Upload`] among the
//! [`Uploads`], served as far as the state machine grants. A neighbour whose blocks we request is a
//! [`Source`] of the [`Downloads`]. The engine is informed by [`Event`]s. [`Upload`] and [`Intake`]
//! are independent of gRPC, so that they also work for requests on a link.

mod cap;
mod codec;
mod fetch;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod intake;
mod lanes;
mod serve;
mod upload;

use shoal_core::swarm::{ContentKey, Input, LinkKey};

pub use cap::RateCap;
pub use codec::Outgoing;
pub use fetch::{Downloads, Order, Source};
pub use intake::{Intake, IntakeError};
pub use lanes::{Lanes, SocketTuning, usual_lanes};
pub use serve::{Desk, MAX_RANGES, RequestPiece, parse_ranges};
pub use upload::{Ask, Upload, UploadEnd, Uploads};

use crate::store::StoreError;

/// Bytes of data in a message, at most.
pub const MAX_BLOCK_LENGTH: u32 = 256 * 1024;

/// Events of the data plane for the engine, over one bounded channel; while it is full, blocks
/// wait.
#[derive(Debug)]
pub enum Event {
    /// For the state machine. It may be late: about a cancelled fetch, or a link that has ended.
    Brain(Input),
    /// A neighbour sent what was not requested. Its fetch has ended.
    ProtocolBroken {
        /// The link.
        link: LinkKey,
    },
    /// A block could not be stored, for example because the disk is full: the download cannot
    /// continue.
    StoreFailed {
        /// The content.
        content: ContentKey,
        /// The error.
        error: StoreError,
    },
}
