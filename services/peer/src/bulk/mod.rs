//! The data plane: moves blocks between peers, over the call `RequestPiece`.
//!
//! It runs on [`Lanes`], threads of their own. Who asks for our blocks has an [`Upload`] among the
//! [`Uploads`], served as far as the brain grants. Whose blocks we ask for is a [`Source`] of the
//! [`Downloads`]. What happens, the engine learns by [`Event`]s. [`Upload`] and [`Intake`] know
//! nothing of gRPC, so that they also work for requests on a link.

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

/// What the data plane tells the engine, over one bounded channel; while it is full, blocks wait.
#[derive(Debug)]
pub enum Event {
    /// For the brain. It may come late: of a fetch just cancelled or a link just down.
    Brain(Input),
    /// A neighbour sent what was not asked for. Its fetch has ended.
    ProtocolBroken {
        /// On which link.
        link: LinkKey,
    },
    /// A block could not be kept, as on a full disk: this download cannot go on.
    StoreFailed {
        /// Which download.
        content: ContentKey,
        /// Why.
        error: StoreError,
    },
}
