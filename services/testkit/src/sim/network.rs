//! Connections and uplinks: who sends a block next, and when it is through.

use std::{collections::VecDeque, time::Duration};

use shoal_core::{
    content::BlockRange,
    swarm::{FetchEnd, FetchKey, LinkKey, ServeKey},
};

/// A connection takes more as long as less than this is unsent, as with `TCP_NOTSENT_LOWAT`.
const LOW_WATER: u64 = 16 * 1024;

/// Bytes that a receiver lets be under way before its downlink drained them.
pub(super) const RECEIVE_WINDOW: u64 = 256 * 1024;

/// And besides what is sent in this time, since TCP's windows grow with the rate.
pub(super) const RECEIVER_DELAY: Duration = Duration::from_millis(1);

/// What a connection carries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parcel {
    pub(super) serve: ServeKey,
    pub(super) fetch: FetchKey,
    pub(super) load: Load,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Load {
    Block(BlockRange),
    End(FetchEnd),
}

impl Parcel {
    pub(super) fn bytes(&self) -> u64 {
        match self.load {
            Load::Block(block) => u64::from(block.length),
            Load::End(_) => 0,
        }
    }
}

/// One direction of a link: the blocks from one host to another.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) link: LinkKey,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) alive: bool,
    /// Granted, and not taken by the transport.
    granted: VecDeque<Parcel>,
    /// Taken by the transport, and not sent.
    buffered: VecDeque<Parcel>,
    buffered_bytes: u64,
    /// Sent, and not drained by the receiver.
    in_flight: u64,
    window: u64,
    /// Among those whose turn comes.
    is_ready: bool,
}

impl Connection {
    pub(super) fn new(link: LinkKey, from: usize, to: usize, window: u64) -> Self {
        Self {
            link,
            from,
            to,
            alive: true,
            granted: VecDeque::new(),
            buffered: VecDeque::new(),
            buffered_bytes: 0,
            in_flight: 0,
            window,
            is_ready: false,
        }
    }

    pub(super) fn grant(&mut self, parcel: Parcel) {
        self.granted.push_back(parcel);
    }

    /// The next parcel that the transport takes; none while it has enough.
    pub(super) fn take(&mut self) -> Option<Parcel> {
        if self.buffered_bytes >= LOW_WATER {
            return None;
        }
        let parcel = self.granted.pop_front()?;
        self.buffered_bytes += parcel.bytes();
        self.buffered.push_back(parcel);
        Some(parcel)
    }

    /// Forgets what a call was granted and the transport did not take.
    pub(super) fn forget(&mut self, serve: ServeKey) {
        self.granted.retain(|parcel| parcel.serve != serve);
    }

    /// The next parcel to send; none if the receiver is full.
    fn send(&mut self) -> Option<Parcel> {
        let bytes = self.buffered.front()?.bytes();
        if self.in_flight > 0 && self.in_flight + bytes > self.window {
            return None;
        }
        self.in_flight += bytes;
        self.buffered_bytes -= bytes;
        self.buffered.pop_front()
    }

    pub(super) fn drained(&mut self, bytes: u64) {
        self.in_flight -= bytes;
    }
}

/// A host's uplink: one parcel after another, by turns among its connections.
#[derive(Debug, Default)]
pub(super) struct Wire {
    pub(super) busy: bool,
    ready: VecDeque<usize>,
}

impl Wire {
    /// A connection may have something to send.
    pub(super) fn wake(&mut self, connections: &mut [Connection], connection: usize) {
        let state = &mut connections[connection];
        if !state.is_ready && !state.buffered.is_empty() {
            state.is_ready = true;
            self.ready.push_back(connection);
        }
    }

    /// The next parcel, and whose it is.
    pub(super) fn next(&mut self, connections: &mut [Connection]) -> Option<(usize, Parcel)> {
        while let Some(connection) = self.ready.pop_front() {
            let state = &mut connections[connection];
            state.is_ready = false;
            if !state.alive {
                continue;
            }
            if let Some(parcel) = state.send() {
                self.wake(connections, connection);
                return Some((connection, parcel));
            }
        }
        None
    }
}
