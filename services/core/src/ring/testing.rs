//! What the tests of the ring share.

use std::time::Instant;

use uuid::Uuid;

use super::{Bits, Contact, NodeId, Position};
use crate::address::address;

/// Some instant; tests only add to it.
#[expect(clippy::disallowed_methods, reason = "an Instant can be made in no other way")]
pub(super) fn epoch() -> Instant {
    Instant::now()
}

/// The textbook's ring.
pub(super) const FOUR: Bits = Bits::new(4).expect("four bits are a ring");

/// A position of the ring of 4 bits.
pub(super) fn four(value: u128) -> Position {
    FOUR.position(value)
}

/// The node at this position, whose id is the position's number.
pub(super) fn node_at(position: Position) -> Contact {
    let id = NodeId::new(Uuid::from_u128(position.to_u128()));
    Contact { position, id, address: address("node:7073") }
}

/// The node at a position of the ring of 4 bits.
pub(super) fn node(value: u128) -> Contact {
    node_at(four(value))
}

/// The numbers of nodes of the ring of 4 bits.
pub(super) fn numbers<'a>(nodes: impl IntoIterator<Item = &'a Contact>) -> Vec<u128> {
    nodes.into_iter().map(|node| FOUR.value(node.position)).collect()
}
