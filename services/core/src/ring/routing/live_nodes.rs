//! The live nodes, by the membership at one moment.

use std::sync::Arc;

use crate::ring::{Contact, Position};

/// All nodes believed to be alive, in the order of their positions. A hint: some are gone, some
/// unknown.
///
/// It is shared and immutable, so that publishing a [`super::RoutingTable`] after each heartbeat
/// does not copy a table of ten thousand nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveNodes {
    nodes: Arc<[Contact]>,
}

impl LiveNodes {
    /// The snapshot of these nodes, one per position.
    pub fn new(nodes: impl IntoIterator<Item = Contact>) -> Self {
        let mut nodes: Vec<_> = nodes.into_iter().collect();
        nodes.sort();
        nodes.dedup_by_key(|node| node.position);
        Self { nodes: nodes.into() }
    }

    /// The closest successor of a position.
    pub fn owner_of(&self, position: Position) -> Option<&Contact> {
        self.from(position).next()
    }

    /// All of them clockwise, beginning with the closest successor of a position.
    pub fn from(&self, position: Position) -> impl Iterator<Item = &Contact> {
        let (before, after) = self.nodes.split_at(self.index_of(position));
        after.iter().chain(before)
    }

    /// All of them counterclockwise, beginning with the last one before a position.
    pub fn preceding(&self, position: Position) -> impl Iterator<Item = &Contact> {
        let (before, after) = self.nodes.split_at(self.index_of(position));
        before.iter().rev().chain(after.iter().rev())
    }

    /// Their number.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The number of nodes before a position, counted from zero.
    fn index_of(&self, position: Position) -> usize {
        self.nodes.partition_point(|node| node.position < position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::testing::{four, node, numbers};

    #[test]
    fn it_iterates_the_circle_in_both_directions_from_any_position() {
        let live_nodes = LiveNodes::new([12, 3, 5].map(node));
        assert_eq!(numbers(live_nodes.from(four(4))), [5, 12, 3]);
        assert_eq!(numbers(live_nodes.from(four(5))), [5, 12, 3]);
        assert_eq!(numbers(live_nodes.from(four(13))), [3, 5, 12]);
        assert_eq!(numbers(live_nodes.preceding(four(5))), [3, 12, 5]);
        assert_eq!(numbers(live_nodes.preceding(four(0))), [12, 5, 3]);
        assert_eq!(live_nodes.owner_of(four(13)), Some(&node(3)));
        assert_eq!(LiveNodes::default().owner_of(four(13)), None);
    }
}
