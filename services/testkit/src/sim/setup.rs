//! The settings of a simulation.

use std::time::Duration;

use shoal_core::{
    content::{Layout, LayoutError, PieceLength},
    swarm::Settings,
};

/// Bytes per second of one Mbit/s.
pub const MBIT: u64 = 125_000;

/// A swarm: host 0 is the publisher, the others fetch.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Seed of the random generator.
    pub seed: u64,
    /// The size of the content in bytes.
    pub size: u64,
    /// The size of a piece; `None`: chosen by the size of the content.
    pub piece_length: Option<PieceLength>,
    /// One-way latency of messages and blocks.
    pub latency: Duration,
    /// Maximum number of links of a host.
    pub neighbours: usize,
    /// The hosts, of which the first is the publisher.
    pub hosts: Vec<HostSetup>,
    /// The settings of the state machines.
    pub settings: Settings,
    /// Whether the publisher uses super-seeding.
    pub super_seeding: bool,
    /// Whether pieces are fetched in order.
    pub sequential: bool,
    /// The faults to inject.
    pub faults: Vec<Fault>,
    /// The simulation ends at this time.
    pub time_limit: Duration,
}

/// One host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostSetup {
    /// Uplink, bytes per second.
    pub up: u64,
    /// Downlink, bytes per second.
    pub down: u64,
    /// The time when it joins.
    pub joins: Duration,
    /// Whether it sends wrong bytes.
    pub poisons: bool,
    /// Whether it claims every piece, unchokes everyone, and never sends.
    pub silent: bool,
    /// Whether it unchokes nobody.
    pub free_rides: bool,
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A host leaves, and may return with the pieces that it held.
    Leaves {
        /// The host.
        host: usize,
        /// The time.
        at: Duration,
        /// How long it stays away; `None`: for ever.
        away: Option<Duration>,
    },
    /// The publisher leaves for ever once the others hold every piece among them.
    PublisherDiesAfterOneCopy,
}

impl HostSetup {
    /// A host with these rates that joins at the start and behaves correctly.
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

    /// A swarm of these hosts, of which the first is the publisher.
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

    /// The division of the content into pieces.
    pub fn layout(&self) -> Result<Layout, LayoutError> {
        let piece_length = self.piece_length.unwrap_or_else(|| PieceLength::for_size(self.size));
        Layout::new(0, piece_length, [self.size])
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
