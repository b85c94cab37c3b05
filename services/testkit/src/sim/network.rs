//! Connections and uplinks: which connection sends the next block, and when it is sent.

use std::{collections::VecDeque, time::Duration};

use shoal_core::{
    content::BlockRange,
    swarm::{FetchEnd, FetchKey, LinkKey, ServeKey},
};

/// A connection accepts more data while less than this is unsent, as with `TCP_NOTSENT_LOWAT`.
const LOW_WATER: u64 = 16 * 1024;

/// Bytes that a receiver allows in flight before its downlink has received them.
pub(super) const RECEIVE_WINDOW: u64 = 256 * 1024;

/// The window also holds what is sent in this time, since TCP's windows grow with the rate.
pub(super) const RECEIVER_DELAY: Duration = Duration::from_millis(1);

/// One unit that a connection carries.
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

/// One direction of a link: the blocks from one host to the other.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) link: LinkKey,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) alive: bool,
    /// Granted, and not yet accepted by the transport.
    granted: VecDeque<Parcel>,
    /// Accepted by the transport, and not yet sent.
    buffered: VecDeque<Parcel>,
    buffered_bytes: u64,
    /// Bytes sent, and not yet received by the downlink.
    in_flight: u64,
    window: u64,
    /// Whether it is in the uplink's queue.
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

    /// The next parcel for the transport; `None` while the transport is full.
    pub(super) fn take(&mut self) -> Option<Parcel> {
        if self.buffered_bytes >= LOW_WATER {
            return None;
        }
        let parcel = self.granted.pop_front()?;
        self.buffered_bytes += parcel.bytes();
        self.buffered.push_back(parcel);
        Some(parcel)
    }

    /// Drops the granted parcels of a call that the transport has not accepted.
    pub(super) fn forget(&mut self, serve: ServeKey) {
        self.granted.retain(|parcel| parcel.serve != serve);
    }

    /// The next parcel to send; `None` if the receiver's window is full.
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

/// A host's uplink: sends one parcel at a time, in turn for its connections.
#[derive(Debug, Default)]
pub(super) struct Wire {
    pub(super) busy: bool,
    ready: VecDeque<usize>,
}

impl Wire {
    /// Queues a connection if it has something to send.
    pub(super) fn wake(&mut self, connections: &mut [Connection], connection: usize) {
        let state = &mut connections[connection];
        if !state.is_ready && !state.buffered.is_empty() {
            state.is_ready = true;
            self.ready.push_back(connection);
        }
    }

    /// The next parcel, with its connection.
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
