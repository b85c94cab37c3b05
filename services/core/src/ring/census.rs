//! The nodes that live, by the roll at one moment.

use std::sync::Arc;

use super::{Contact, Position};

/// All nodes said to live, in the order of their positions. A hint: some are gone, some unknown.
///
/// It is shared and never changes, so that publishing a [`super::View`] after each heartbeat copies
/// no table of ten thousand nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    nodes: Arc<[Contact]>,
}

impl Census {
    /// The census of these nodes, one a position.
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

    /// All of them counterclockwise, beginning with the last before a position.
    pub fn preceding(&self, position: Position) -> impl Iterator<Item = &Contact> {
        let (before, after) = self.nodes.split_at(self.index_of(position));
        before.iter().rev().chain(after.iter().rev())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// How many lie before a position, counted from zero.
    fn index_of(&self, position: Position) -> usize {
        self.nodes.partition_point(|node| node.position < position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::testing::{four, node, numbers};

    #[test]
    fn it_goes_round_the_circle_both_ways_from_any_position() {
        let census = Census::new([12, 3, 5].map(node));
        assert_eq!(numbers(census.from(four(4))), [5, 12, 3]);
        assert_eq!(numbers(census.from(four(5))), [5, 12, 3]);
        assert_eq!(numbers(census.from(four(13))), [3, 5, 12]);
        assert_eq!(numbers(census.preceding(four(5))), [3, 12, 5]);
        assert_eq!(numbers(census.preceding(four(0))), [12, 5, 3]);
        assert_eq!(census.owner_of(four(13)), Some(&node(3)));
        assert_eq!(Census::default().owner_of(four(13)), None);
    }
}
