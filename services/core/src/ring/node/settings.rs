//! Every number of a node's schedule.

use std::time::Duration;

use crate::ring::{Bits, FingerBase};

/// Periods and sizes.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// Bits of a position.
    pub bits: Bits,
    /// The shortest successor list. It grows with the ring: 2 log2 of its size, so that half of the
    /// nodes may fail at once (Stoica 2003, theorem IV.5).
    pub min_successors: usize,
    /// The longest successor list.
    pub max_successors: usize,
    /// Time between two rounds of stabilisation.
    pub stabilise_every: Duration,
    /// Time between two rounds of gossip; without gossip, lookups use successors and fingers alone.
    pub gossip_every: Option<Duration>,
    /// Time between two probes for lost parts of the ring.
    pub probe_every: Duration,
    /// Time between two finger lookups, without gossip.
    pub fix_finger_every: Duration,
    /// How fingers are spaced.
    pub finger_base: FingerBase,
    /// Consecutive questions that a node may leave unanswered before it counts as dead.
    pub patience: u32,
    /// How long the death or departure of a node is remembered.
    pub ends_kept: Duration,
    /// A node that finds no ring founds one after this long, if it may.
    pub found_after: Duration,
    /// The same, if some of the named addresses do not answer: they may just be starting.
    pub found_late_after: Duration,
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self {
            bits: Bits::FULL,
            min_successors: 8,
            max_successors: 128,
            stabilise_every: Duration::from_millis(500),
            gossip_every: Some(Duration::from_millis(500)),
            probe_every: Duration::from_secs(2),
            fix_finger_every: Duration::from_secs(1),
            finger_base: FingerBase::Sixteen,
            patience: 3,
            ends_kept: Duration::from_secs(3600),
            found_after: Duration::from_secs(3),
            found_late_after: Duration::from_secs(15),
        }
    }
}
