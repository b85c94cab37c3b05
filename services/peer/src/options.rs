//! What was asked for along with a content; kept in its data directory, so that it outlives the process.

use shoal_common::Address;
use shoal_core::swarm::Priority;

/// How a content is fetched and shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Trackers beside those of the settings.
    pub trackers: Vec<Address>,
    /// Nodes of the ring beside those of the settings.
    pub ring_nodes: Vec<Address>,
    /// First piece first.
    pub sequential: bool,
    /// While complete, tell each neighbour of few pieces at a time.
    pub super_seeding: bool,
    /// Paths and how much they are wanted; a directory means all below it.
    pub priorities: Vec<(String, Priority)>,
}
