//! What is simulated.

use std::time::Duration;

use shoal_core::{
    content::{Layout, LayoutError, PieceLength},
    swarm::Settings,
};

/// Bytes a second of one Mbit/s.
pub const MBIT: u64 = 125_000;

/// A swarm: the publisher is host 0, the others fetch.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Decides everything that is random.
    pub seed: u64,
    /// Bytes of the content.
    pub size: u64,
    /// Bytes of a piece; none: as the layout picks.
    pub piece_length: Option<PieceLength>,
    /// One way.
    pub latency: Duration,
    /// Links of a host, as far as there are others.
    pub neighbours: usize,
    /// The publisher first.
    pub hosts: Vec<HostSetup>,
    /// The brains'.
    pub settings: Settings,
    /// Publish so that each piece goes out once.
    pub super_seeding: bool,
    /// Fetch the pieces in their order.
    pub sequential: bool,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// When to give up.
    pub time_limit: Duration,
}

/// One host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostSetup {
    /// Bytes a second.
    pub up: u64,
    /// Bytes a second.
    pub down: u64,
    /// When it joins.
    pub joins: Duration,
    /// Sends rubbish instead of its blocks.
    pub poisons: bool,
    /// Claims to hold everything, unchokes everyone, and never sends.
    pub silent: bool,
    /// Unchokes nobody.
    pub free_rides: bool,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A host vanishes, and comes back after a while with what it held.
    Leaves {
        /// Which.
        host: usize,
        /// When.
        at: Duration,
        /// For how long; none: for good.
        away: Option<Duration>,
    },
    /// The publisher vanishes for good once the others hold each piece among them.
    PublisherDiesAfterOneCopy,
}

impl HostSetup {
    /// A host with these rates that is there from the start and does as it should.
    pub const fn new(up: u64, down: u64) -> Self {
        let joins = Duration::ZERO;
        Self { up, down, joins, poisons: false, silent: false, free_rides: false }
    }
}

impl Setup {
    /// `n` peers that fetch `size` bytes from a publisher, at the rates of the design's table.
    pub fn new(n: usize, size: u64) -> Self {
        let peer = HostSetup::new(20 * MBIT, 400 * MBIT);
        let publisher = HostSetup::new(200 * MBIT, 400 * MBIT);
        Self::with_hosts(size, std::iter::once(publisher).chain(vec![peer; n]).collect())
    }

    /// These hosts, the publisher first.
    pub fn with_hosts(size: u64, hosts: Vec<HostSetup>) -> Self {
        Self {
            seed: 1,
            size,
            piece_length: None,
            latency: Duration::from_millis(1),
            neighbours: 50,
            hosts,
            settings: Settings::default(),
            super_seeding: false,
            sequential: false,
            faults: Vec::new(),
            time_limit: Duration::from_secs(3600),
        }
    }

    /// How the content is cut.
    pub fn layout(&self) -> Result<Layout, LayoutError> {
        let piece_length = self.piece_length.unwrap_or_else(|| PieceLength::for_size(self.size));
        Layout::new(piece_length, vec![self.size])
    }

    /// The textbook's lower bound: `max{F/us, F/dmin, N*F/(us+sum ui)}`.
    pub fn bound(&self) -> Duration {
        let size = self.size as f64;
        let Some((publisher, peers)) = self.hosts.split_first() else { return Duration::ZERO };
        let slowest = peers.iter().map(|peer| peer.down).min().unwrap_or(1);
        let up: u64 = self.hosts.iter().map(|host| host.up).sum();
        let seconds = [
            size / publisher.up as f64,
            size / slowest as f64,
            peers.len() as f64 * size / up as f64,
        ];
        Duration::from_secs_f64(seconds.into_iter().fold(0.0, f64::max))
    }
}
