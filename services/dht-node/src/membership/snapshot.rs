//! A snapshot of what this node knows about the ring, for all of its parts to read.

use std::collections::BTreeSet;

use shoal_core::ring::{Life, Node, NodeId, View};

/// What this node knows about the ring at one moment.
#[derive(Debug)]
pub(crate) struct RingSnapshot {
    pub(crate) view: View,
    /// Nodes that left in order, and have not returned.
    pub(crate) left: BTreeSet<NodeId>,
    /// Nodes that died, and have not returned.
    pub(crate) dead: BTreeSet<NodeId>,
    /// This node founded its ring.
    pub(crate) founded: bool,
}

impl RingSnapshot {
    /// The present state of the state machine.
    pub(crate) fn of(brain: &mut Node) -> Self {
        let view = brain.view();
        let ended = |as_what| {
            let ends = brain.roll().ends().filter(|entry| entry.life == as_what);
            ends.map(|entry| entry.contact.id).collect()
        };
        let (left, dead) = (ended(Life::Left), ended(Life::Dead));
        Self { view, left, dead, founded: brain.has_founded() }
    }
}
