//! A set of peers from which any number can be drawn at random at the cost of that number.

use std::collections::HashMap;

use rand::{Rng, seq::index::sample};

use crate::PeerId;

/// Invariant: `indexes` holds the index of each peer in `peers`, and nothing else.
#[derive(Debug, Default)]
pub(super) struct Pool {
    peers: Vec<PeerId>,
    indexes: HashMap<PeerId, usize>,
}

impl Pool {
    pub(super) fn insert(&mut self, peer: PeerId) {
        self.indexes.entry(peer).or_insert_with(|| {
            self.peers.push(peer);
            self.peers.len() - 1
        });
    }

    pub(super) fn remove(&mut self, peer: PeerId) {
        let Some(index) = self.indexes.remove(&peer) else { return };
        self.peers.swap_remove(index);
        if let Some(moved) = self.peers.get(index) {
            self.indexes.insert(*moved, index);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Up to `max` peers, uniformly at random without replacement, in random order.
    pub(super) fn sample(&self, max: usize, rng: &mut impl Rng) -> impl Iterator<Item = PeerId> {
        let amount = max.min(self.peers.len());
        sample(rng, self.peers.len(), amount).into_iter().map(|index| self.peers[index])
    }
}
