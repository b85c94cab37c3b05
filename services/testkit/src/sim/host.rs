//! One host: its state machine, and the simplest I/O around it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use shoal_core::{
    content::{BLOCK_UNIT, Bitfield, BlockRange, Layout, PieceIndex},
    swarm::{Attempt, FetchKey, FetchRange, LinkKey, ServeKey, Swarm},
};

use super::{
    network::Wire,
    report::{Idle, IdleTimes},
    setup::HostSetup,
};

/// The state of a host.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) setup: HostSetup,
    /// `None` while the host is away.
    pub(super) state_machine: Option<Swarm>,
    /// The number of its current run; events of earlier runs are ignored.
    pub(super) life: u32,
    pub(super) held: Bitfield,
    pub(super) links: BTreeMap<LinkKey, usize>,
    pub(super) fetches: BTreeMap<FetchKey, Fetch>,
    pub(super) serves: BTreeMap<ServeKey, Serve>,
    assembly: BTreeMap<PieceIndex, Assembly>,
    /// The links that sent wrong bytes of a piece, until its correct bytes are known.
    pub(super) suspects: BTreeMap<PieceIndex, BTreeSet<LinkKey>>,
    pub(super) wire: Wire,
    /// The time by which its downlink has received all that arrived, in ns.
    pub(super) down_free_at: u64,
    /// The time of the next tick.
    pub(super) tick_at: Option<Instant>,
    pub(super) completed_at: Option<Duration>,
    pub(super) received: u64,
    pub(super) wasted: u64,
    pub(super) sent: u64,
    /// The reason for which its uplink is idle, and since when (ns).
    pub(super) idle: Option<(Idle, u64)>,
    pub(super) idle_times: IdleTimes,
}

/// A call that this host made.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) link: LinkKey,
    pub(super) ranges: Vec<FetchRange>,
}

/// A call for this host's blocks.
#[derive(Debug)]
pub(super) struct Serve {
    pub(super) fetch: FetchKey,
    pub(super) connection: usize,
    pub(super) block_length: u32,
    /// The ranges that are not granted yet.
    pub(super) ranges: VecDeque<BlockRange>,
}

/// An attempt at a piece that is partly received.
#[derive(Debug)]
struct Assembly {
    attempt: Attempt,
    units: BTreeSet<u32>,
    contributors: BTreeSet<LinkKey>,
    /// The links that sent wrong bytes.
    liars: BTreeSet<LinkKey>,
    /// It is verified, and being written.
    is_whole: bool,
}

/// An attempt of which all bytes have arrived.
#[derive(Debug)]
pub(super) struct Assembled {
    pub(super) attempt: Attempt,
    pub(super) contributors: BTreeSet<LinkKey>,
    /// The links that sent wrong bytes; empty if the piece matches its hash.
    pub(super) liars: BTreeSet<LinkKey>,
}

impl Assembly {
    fn new(attempt: Attempt) -> Self {
        Self {
            attempt,
            units: BTreeSet::new(),
            contributors: BTreeSet::new(),
            liars: BTreeSet::new(),
            is_whole: false,
        }
    }
}

impl Host {
    pub(super) fn new(setup: HostSetup, held: Bitfield) -> Self {
        Self {
            setup,
            state_machine: None,
            life: 0,
            held,
            links: BTreeMap::new(),
            fetches: BTreeMap::new(),
            serves: BTreeMap::new(),
            assembly: BTreeMap::new(),
            suspects: BTreeMap::new(),
            wire: Wire::default(),
            down_free_at: 0,
            tick_at: None,
            completed_at: None,
            received: 0,
            wasted: 0,
            sent: 0,
            idle: None,
            idle_times: IdleTimes::default(),
        }
    }

    /// Drops the state that ends with the process.
    pub(super) fn end_run(&mut self) {
        self.state_machine = None;
        self.life += 1;
        self.links.clear();
        self.fetches.clear();
        self.serves.clear();
        self.assembly.clear();
        self.tick_at = None;
    }

    /// Adds a block to its attempt. Returns whether it was needed, and the attempt once all its
    /// bytes have arrived.
    pub(super) fn assemble(
        &mut self,
        layout: &Layout,
        attempt: Attempt,
        block: BlockRange,
        from: LinkKey,
        is_rubbish: bool,
    ) -> (bool, Option<Assembled>) {
        if self.held.has(block.piece) {
            return (false, None);
        }
        let assembly = self.assembly.entry(block.piece).or_insert_with(|| Assembly::new(attempt));
        if assembly.is_whole || attempt < assembly.attempt {
            return (false, None);
        }
        if attempt > assembly.attempt {
            *assembly = Assembly::new(attempt);
        }
        let before = assembly.units.len();
        assembly.units.extend(block.offset / BLOCK_UNIT..block.end().div_ceil(BLOCK_UNIT));
        let is_new = assembly.units.len() > before;
        if is_new {
            assembly.contributors.insert(from);
            if is_rubbish {
                assembly.liars.insert(from);
            }
        }
        let units = layout.length_of(block.piece).div_ceil(BLOCK_UNIT) as usize;
        if !is_new || assembly.units.len() < units {
            return (is_new, None);
        }
        assembly.is_whole = assembly.liars.is_empty();
        let assembled = Assembled {
            attempt,
            contributors: assembly.contributors.clone(),
            liars: std::mem::take(&mut assembly.liars),
        };
        if !assembly.is_whole {
            self.assembly.remove(&block.piece);
        }
        (true, Some(assembled))
    }

    /// Discards the blocks of an attempt, unless the piece is complete.
    pub(super) fn abandon(&mut self, piece: PieceIndex, attempt: Attempt) {
        self.assembly
            .retain(|of, assembly| *of != piece || assembly.is_whole || assembly.attempt > attempt);
    }

    /// Marks a piece as written.
    pub(super) fn hold(&mut self, piece: PieceIndex) {
        self.assembly.remove(&piece);
        self.held.insert(piece);
    }
}
