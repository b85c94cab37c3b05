//! Options given with a content; stored in the data directory, so that they survive the process.

use shoal_core::{Address, swarm::Priority};

/// How a content is fetched and shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Trackers in addition to those of the settings.
    pub trackers: Vec<Address>,
    /// Ring nodes in addition to those of the settings.
    pub ring_nodes: Vec<Address>,
    /// First piece first.
    pub sequential: bool,
    /// While complete, show each neighbour few pieces at a time.
    pub super_seeding: bool,
    /// Paths and their priorities; a directory includes everything below it.
    pub priorities: Vec<(String, Priority)>,
}
