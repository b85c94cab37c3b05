//! The order in which peers are asked for a manifest.

use std::{collections::BTreeMap, time::Duration};

use rand::Rng;
use shoal_core::{Address, backoff::Backoff};
use tokio::time::Instant;

/// Peers remembered, at most.
const MAX_PEERS: usize = 1024;

/// Of these, of one host.
const MAX_PEERS_PER_HOST: usize = MAX_PEERS / 2;

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// Peers to ask, in turn. Failed ones come after all that were not asked yet.
#[derive(Default)]
pub(super) struct Queue {
    peers: BTreeMap<Address, Peer>,
    /// Peers added so far.
    added: u64,
}

struct Peer {
    /// Its number among them.
    number: u64,
    failures: u32,
    backoff: Backoff,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Due(Instant),
    Asked,
}

impl Queue {
    /// Adds a peer. If there are too many, one that failed makes room.
    pub(super) fn insert(&mut self, address: Address, now: Instant) {
        let of_host = self.peers.keys().filter(|other| other.host() == address.host()).count();
        if self.peers.contains_key(&address) || of_host >= MAX_PEERS_PER_HOST {
            return;
        }
        if self.peers.len() >= MAX_PEERS {
            let failed = self
                .peers
                .iter()
                .filter(|(_, peer)| peer.failures > 0 && matches!(peer.state, State::Due(_)));
            let worst = failed.max_by_key(|(_, peer)| peer.failures);
            let Some(worst) = worst.map(|(address, _)| address.clone()) else { return };
            self.peers.remove(&worst);
        }
        self.added += 1;
        let peer = Peer {
            number: self.added,
            failures: 0,
            backoff: Backoff::new(FIRST_BACKOFF, MAX_BACKOFF),
            state: State::Due(now),
        };
        self.peers.insert(address, peer);
    }

    /// When the next peer may be asked.
    pub(super) fn due(&self) -> Option<Instant> {
        let due = self.peers.values().filter_map(|peer| match peer.state {
            State::Due(at) => Some(at),
            State::Asked => None,
        });
        due.min()
    }

    /// The peer to ask now, which counts as asked from here on.
    pub(super) fn next(&mut self, now: Instant) -> Option<Address> {
        let mut asked = BTreeMap::<String, usize>::new();
        for (address, _) in self.peers.iter().filter(|(_, peer)| peer.state == State::Asked) {
            *asked.entry(address.host()).or_default() += 1;
        }
        let due = self.peers.iter().filter(|(_, peer)| match peer.state {
            State::Due(at) => at <= now,
            State::Asked => false,
        });
        let next = due.min_by_key(|(address, peer)| {
            let of_host = asked.get(&address.host()).copied().unwrap_or_default();
            (peer.failures, of_host, peer.number)
        });
        let next = next.map(|(address, _)| address.clone())?;
        self.peers.get_mut(&next)?.state = State::Asked;
        Some(next)
    }

    /// A peer had no good answer.
    pub(super) fn failed(&mut self, address: &Address, now: Instant, rng: &mut impl Rng) {
        let Some(peer) = self.peers.get_mut(address) else { return };
        peer.failures = peer.failures.saturating_add(1);
        peer.state = State::Due(now + peer.backoff.next(rng));
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    fn address(host: usize, port: u16) -> Address {
        format!("10.0.{}.{}:{port}", host / 256, host % 256).parse().expect("an address")
    }

    #[test]
    fn failed_peers_come_last() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.insert(address(1, 1), now);
        queue.insert(address(2, 1), now);
        let first = queue.next(now).expect("it is due");
        assert_eq!(first, address(1, 1));
        queue.failed(&first, now, &mut StdRng::seed_from_u64(7));
        queue.insert(address(3, 1), now);
        let later = now + Duration::from_secs(1);
        let order: Vec<_> = std::iter::from_fn(|| queue.next(later)).collect();
        assert_eq!(order, [address(2, 1), address(3, 1), address(1, 1)]);
        assert_eq!(queue.due(), None);
    }

    #[test]
    fn hosts_take_turns() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for port in 1..=100 {
            queue.insert(address(1, port), now);
        }
        queue.insert(address(2, 1), now);
        let order: Vec<_> = std::iter::from_fn(|| queue.next(now)).take(2).collect();
        assert_eq!(order, [address(1, 1), address(2, 1)]);
    }

    #[test]
    fn the_queue_is_bounded() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for port in 1..=2000 {
            queue.insert(address(1, port), now);
        }
        assert_eq!(queue.peers.len(), MAX_PEERS_PER_HOST);
        for host in 2..2002 {
            queue.insert(address(host, 1), now);
        }
        assert_eq!(queue.peers.len(), MAX_PEERS);
        let failed = queue.next(now).expect("it is due");
        queue.failed(&failed, now, &mut StdRng::seed_from_u64(7));
        queue.insert(address(9999, 1), now);
        assert!(queue.peers.contains_key(&address(9999, 1)));
        assert!(!queue.peers.contains_key(&failed));
    }
}
