//! What happens at some time in a simulation.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeSet, BinaryHeap},
    time::Duration,
};

use shoal_core::{
    content::{BlockRange, PieceIndex},
    swarm::{FetchKey, Input, LinkKey},
};

use super::network::Parcel;

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
        liars: BTreeSet<LinkKey>,
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
    pub(super) ranges: Vec<BlockRange>,
    pub(super) block_length: u32,
}

/// Events in the order of their times; of equal times the one set first comes first.
#[derive(Debug, Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Reverse<Scheduled>>,
    count: u64,
}

impl Queue {
    /// Sets an event for a time, in ns from the start.
    pub(super) fn push(&mut self, at: u64, event: Event) {
        self.heap.push(Reverse(Scheduled { at, number: self.count, event }));
        self.count += 1;
    }

    pub(super) fn pop(&mut self) -> Option<(u64, Event)> {
        self.heap.pop().map(|Reverse(next)| (next.at, next.event))
    }

    /// Events set so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

#[derive(Debug)]
struct Scheduled {
    at: u64,
    number: u64,
    event: Event,
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scheduled {}
