//! The events of a simulated swarm.

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
    /// A host announces itself, and links to other hosts.
    Announce {
        to: Life,
    },
    Leave {
        host: usize,
        away: Option<Duration>,
    },
    /// An input for a host's state machine.
    Input {
        to: Life,
        input: Input,
    },
    Tick {
        to: Life,
    },
    /// A call for blocks reaches its server.
    Request {
        connection: usize,
        call: Call,
    },
    /// The cancellation of a call reaches its server.
    Cancel {
        connection: usize,
        fetch: FetchKey,
    },
    /// A transport accepted a parcel.
    Taken {
        connection: usize,
        parcel: Parcel,
    },
    /// An uplink has sent a parcel.
    Sent {
        connection: usize,
        parcel: Parcel,
    },
    /// A parcel reaches a downlink.
    Arrived {
        connection: usize,
        parcel: Parcel,
    },
    /// A downlink has received a parcel.
    Drained {
        connection: usize,
        parcel: Parcel,
    },
    /// A piece was hashed, and is written if its bytes are correct.
    Stored {
        to: Life,
        piece: PieceIndex,
        assembled: Assembled,
    },
}

/// One run of a host, from a start to its end. Events for an earlier run are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) host: usize,
    pub(super) number: u32,
}

/// A call for blocks in transit.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) fetch: FetchKey,
    pub(super) ranges: Vec<FetchRange>,
    pub(super) block_length: u32,
}
