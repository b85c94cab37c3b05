//! What happens in a simulated swarm.

use std::time::Duration;

use shoal_core::{
    content::PieceIndex,
    swarm::{FetchKey, FetchRange, Input},
};

use super::{host::Assembled, network::Parcel};

#[derive(Debug)]
pub(super) enum Event {
    Join {
        host: usize,
    },
    /// A host looks for neighbours.
    Announce {
        to: Life,
    },
    Leave {
        host: usize,
        away: Option<Duration>,
    },
    /// Something for a brain.
    Tell {
        to: Life,
        input: Input,
    },
    Tick {
        to: Life,
    },
    /// A call reaches the one it asks.
    Request {
        connection: usize,
        call: Call,
    },
    /// The end of a call reaches the one it asked.
    Cancel {
        connection: usize,
        fetch: FetchKey,
    },
    /// A transport took a parcel.
    Taken {
        connection: usize,
        parcel: Parcel,
    },
    /// An uplink is through with a parcel.
    Sent {
        connection: usize,
        parcel: Parcel,
    },
    /// A parcel reaches a downlink.
    Arrived {
        connection: usize,
        parcel: Parcel,
    },
    /// A downlink is through with a parcel.
    Drained {
        connection: usize,
        parcel: Parcel,
    },
    /// A piece is hashed, and written if nobody lied.
    Stored {
        to: Life,
        piece: PieceIndex,
        assembled: Assembled,
    },
}

/// A host from one start to its end; what is meant for an earlier life is void.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) host: usize,
    pub(super) number: u32,
}

/// A call for blocks, on its way.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) fetch: FetchKey,
    pub(super) ranges: Vec<FetchRange>,
    pub(super) block_length: u32,
}
