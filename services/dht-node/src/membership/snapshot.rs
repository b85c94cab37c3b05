//! A snapshot of what this node knows about the ring, for all of its parts to read.

use std::collections::BTreeSet;

use shoal_core::ring::{Life, Node, NodeId, RoutingTable};

/// What this node knows about the ring at one moment.
#[derive(Debug)]
pub(crate) struct RingSnapshot {
    pub(crate) routing: RoutingTable,
    /// Nodes that left in order, and have not returned.
    pub(crate) left: BTreeSet<NodeId>,
    /// Nodes that died, and have not returned.
    pub(crate) dead: BTreeSet<NodeId>,
    /// This node founded its ring.
    pub(crate) founded: bool,
}

impl RingSnapshot {
    /// The present state of the state machine.
    pub(crate) fn of(node: &mut Node) -> Self {
        let routing = node.routing_table();
        let ended = |as_what| {
            let ends = node.membership().ends().filter(|entry| entry.life == as_what);
            ends.map(|entry| entry.contact.id).collect()
        };
        let (left, dead) = (ended(Life::Left), ended(Life::Dead));
        Self { routing, left, dead, founded: node.has_founded() }
    }
}
