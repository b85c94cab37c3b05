//! One swarm: its peers and their locations.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::Instant,
};

use rand::Rng;

use super::{
    peer::{Counts, Location, Peer},
    pool::Pool,
};
use crate::PeerId;

/// A peer of a swarm.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) peer: Peer,
    /// The owner of the address it announced from.
    pub(super) source: IpAddr,
    pub(super) last_seen: Instant,
    /// Its time in the expiry queue.
    pub(super) look_at: Instant,
}

/// A location that peers share. The nearest come first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum TopologyDomain {
    Node(String),
    Zone(String, String),
}

#[derive(Debug, Default)]
pub(super) struct Swarm {
    entries: HashMap<PeerId, Entry>,
    everybody: Pool,
    /// The peers of each location. None is empty.
    domains: HashMap<TopologyDomain, Pool>,
    complete: usize,
}

impl Swarm {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn counts(&self) -> Counts {
        Counts { complete: self.complete, incomplete: self.entries.len() - self.complete }
    }

    pub(super) fn entry(&self, peer: PeerId) -> Option<&Entry> {
        self.entries.get(&peer)
    }

    pub(super) fn entry_mut(&mut self, peer: PeerId) -> Option<&mut Entry> {
        self.entries.get_mut(&peer)
    }

    /// Adds a peer, or replaces its entry.
    pub(super) fn insert(&mut self, entry: Entry) {
        let id = entry.peer.id;
        self.remove(id);
        self.everybody.insert(id);
        for domain in domains_of(&entry.peer.location) {
            self.domains.entry(domain).or_default().insert(id);
        }
        self.complete += usize::from(entry.peer.complete);
        self.entries.insert(id, entry);
    }

    pub(super) fn remove(&mut self, peer: PeerId) -> Option<Entry> {
        let entry = self.entries.remove(&peer)?;
        self.everybody.remove(peer);
        for domain in domains_of(&entry.peer.location) {
            if let Some(pool) = self.domains.get_mut(&domain) {
                pool.remove(peer);
                if pool.is_empty() {
                    self.domains.remove(&domain);
                }
            }
        }
        self.complete -= usize::from(entry.peer.complete);
        Some(entry)
    }

    /// Up to `numwant` others: first, up to `near_percent` of them, peers of the asking peer's node
    /// and then zone; the rest uniformly at random. Without a location all are uniform.
    pub(super) fn hand_out(
        &self,
        asker: PeerId,
        numwant: usize,
        near_percent: usize,
        rng: &mut impl Rng,
    ) -> Vec<Peer> {
        let mut chosen = HashSet::from([asker]);
        let mut peers = Vec::new();
        let mut draw = |pool: &Pool, until: usize| {
            // Enough that some are left when peers that are already chosen are drawn again.
            for id in pool.sample(until.saturating_add(1), rng) {
                if peers.len() < until && chosen.insert(id) {
                    peers.push(self.entries[&id].peer.clone());
                }
            }
        };
        if let Some(entry) = self.entry(asker) {
            let near = numwant * near_percent.min(100) / 100;
            for pool in
                domains_of(&entry.peer.location).filter_map(|domain| self.domains.get(&domain))
            {
                draw(pool, near);
            }
        }
        draw(&self.everybody, numwant);
        peers
    }

    /// Up to `max` peers, uniformly at random.
    pub(super) fn sample(&self, max: usize, rng: &mut impl Rng) -> Vec<Peer> {
        self.everybody.sample(max, rng).map(|id| self.entries[&id].peer.clone()).collect()
    }
}

/// The known parts of a location, which it shares with others.
fn domains_of(Location { region, zone, node }: &Location) -> impl Iterator<Item = TopologyDomain> {
    let node = (!node.is_empty()).then(|| TopologyDomain::Node(node.clone()));
    let zone = (!zone.is_empty()).then(|| TopologyDomain::Zone(region.clone(), zone.clone()));
    node.into_iter().chain(zone)
}
