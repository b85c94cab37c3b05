//! The tracker's swarms: the peers of each, for as long as they announce themselves.
//!
//! An announce costs O(numwant), and the logarithm of the number of peers. Invariant: each peer of
//! each swarm has exactly one entry in the expiry queue, and its swarm's pools hold it according to
//! its location. A peer that announces does not move in that queue; its last announce is checked
//! when its turn comes.

mod peer;
mod pool;
mod swarm;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{Rng, RngExt as _};

use self::swarm::{Entry, Swarm};
use crate::{PeerId, address::network, content::ContentId};

pub use self::peer::{Counts, Location, Peer};

/// An interval is stretched or shrunk by up to this part, so that peers do not announce at the same
/// time.
const JITTER: f64 = 0.1;
/// A peer expires after two missed announces; the half is for jitter and delay.
const MISSED_INTERVALS: f64 = 2.5;
/// The shortest interval: of a peer that waits for the entry of its former address to expire.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// The limits of a registry.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The time between two announces of a peer, before jitter.
    pub interval: Duration,
    /// Swarms.
    pub max_swarms: usize,
    /// Peers in all swarms of a [`Tally`] together, each counted once per swarm: this bounds
    /// memory.
    pub max_peers: usize,
    /// Peers of a swarm.
    pub max_peers_per_swarm: usize,
    /// Peers, in all swarms together, that announce from one address (of IPv6: one /64).
    pub max_peers_per_address: usize,
    /// The part of a handout, in percent, that is filled with peers of the asking peer's node and
    /// zone first.
    pub near_percent: usize,
}

/// A peer announces that it is part of a swarm.
#[derive(Clone, Debug)]
pub struct Announce {
    /// The swarm's content.
    pub content: ContentId,
    /// The peer.
    pub peer: Peer,
    /// The source address of the announce.
    pub source: IpAddr,
    /// Peers wanted.
    pub numwant: usize,
}

/// The answer to an [`Announce`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handout {
    /// Other peers of the swarm, chosen at random.
    pub peers: Vec<Peer>,
    /// Peers of the swarm, including the announcing one.
    pub counts: Counts,
    /// When to announce again, jittered.
    pub interval: Duration,
}

/// Why an announce is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// [`Settings::max_swarms`].
    #[error("the tracker keeps at most {0} swarms here; ask another tracker or raise its limit")]
    Swarms(usize),
    /// [`Settings::max_peers`].
    #[error("at most {0} peers are kept here; ask another tracker or raise its limit")]
    Peers(usize),
    /// [`Settings::max_peers_per_swarm`].
    #[error("a swarm has at most {0} peers here; ask another tracker or raise its limit")]
    PeersOfSwarm(usize),
    /// [`Settings::max_peers_per_address`].
    #[error("at most {0} peers may announce from one address; raise the tracker's limit")]
    PeersOfAddress(usize),
}

/// The number of peers of all registries that share it.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<AtomicUsize>);

impl Tally {
    fn peers(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// All swarms of a tracker, or a shard of them.
#[derive(Debug)]
pub struct Registry {
    settings: Settings,
    started: Instant,
    swarms: BTreeMap<ContentId, Swarm>,
    /// When to check each peer again.
    expiries: BTreeSet<(Instant, ContentId, PeerId)>,
    /// Peers by the address they announce from. None is zero.
    sources: HashMap<IpAddr, usize>,
    tally: Tally,
}

impl Registry {
    /// A registry without swarms, started at `now`, that shares the tally.
    pub fn new(settings: Settings, tally: Tally, now: Instant) -> Self {
        Self {
            settings,
            started: now,
            swarms: BTreeMap::new(),
            expiries: BTreeSet::new(),
            sources: HashMap::new(),
            tally,
        }
    }

    /// Stores the peer until it misses two announces, and returns others.
    ///
    /// An entry belongs to the address that it was announced from. Because ids are public, an
    /// announce of the same id from another address changes nothing before the entry expires; it is
    /// answered, and asked to announce again when that will have happened.
    pub fn announce(
        &mut self,
        now: Instant,
        announce: Announce,
        rng: &mut impl Rng,
    ) -> Result<Handout, Refusal> {
        self.expire(now);
        let Announce { content, peer, source, numwant } = announce;
        let source = network(source);
        let known = self.swarms.get(&content).and_then(|swarm| swarm.entry(peer.id));
        let known = known.map(|entry| (entry.source, entry.look_at, entry.last_seen));
        let id = peer.id;
        let usual = self.settings.interval.mul_f64(rng.random_range(1.0 - JITTER..=1.0 + JITTER));
        let interval = match known {
            Some((owner, _, last_seen)) if owner != source => {
                let expires = last_seen + self.time_to_live();
                usual.min(expires.saturating_duration_since(now)).max(SHORTEST_INTERVAL)
            }
            Some((_, look_at, _)) => {
                self.keep(content, Entry { peer, source, last_seen: now, look_at });
                usual
            }
            None => {
                self.admit(content, source)?;
                let look_at = now + self.time_to_live();
                *self.sources.entry(source).or_default() += 1;
                self.tally.0.fetch_add(1, Ordering::Relaxed);
                self.expiries.insert((look_at, content, id));
                self.keep(content, Entry { peer, source, last_seen: now, look_at });
                usual
            }
        };
        let swarm = self.swarms.get(&content).expect("the peer is in it");
        Ok(Handout {
            peers: swarm.hand_out(id, numwant, self.settings.near_percent, rng),
            counts: swarm.counts(),
            interval,
        })
    }

    fn keep(&mut self, content: ContentId, entry: Entry) {
        self.swarms.entry(content).or_default().insert(entry);
    }

    /// Removes a peer that leaves a swarm, if it says so from the address that it announced from:
    /// ids are public. Returns the remaining counts of the swarm.
    pub fn stop(
        &mut self,
        now: Instant,
        content: ContentId,
        peer: PeerId,
        source: IpAddr,
    ) -> Counts {
        self.expire(now);
        let entry = self.swarms.get(&content).and_then(|swarm| swarm.entry(peer));
        if let Some(entry) = entry.filter(|entry| entry.source == network(source)) {
            let look_at = entry.look_at;
            self.expiries.remove(&(look_at, content, peer));
            self.remove(content, peer);
        }
        self.swarms.get(&content).map(Swarm::counts).unwrap_or_default()
    }

    /// A swarm's counts and a random sample of its peers, if it has any.
    pub fn swarm(
        &mut self,
        now: Instant,
        content: ContentId,
        max_peers: usize,
        rng: &mut impl Rng,
    ) -> Option<(Counts, Vec<Peer>)> {
        self.expire(now);
        let swarm = self.swarms.get(&content)?;
        Some((swarm.counts(), swarm.sample(max_peers, rng)))
    }

    /// Up to `max` swarms in the order of their ids: those after `after`, or from the first.
    pub fn swarms_after(
        &mut self,
        now: Instant,
        after: Option<ContentId>,
        max: usize,
    ) -> Vec<(ContentId, Counts)> {
        self.expire(now);
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let following = self.swarms.range((start, Bound::Unbounded));
        following.take(max).map(|(content, swarm)| (*content, swarm.counts())).collect()
    }

    /// Removes the peers that missed their announces.
    pub fn expire(&mut self, now: Instant) {
        while let Some(&(look_at, content, peer)) = self.expiries.first()
            && look_at <= now
        {
            self.expiries.pop_first();
            let time_to_live = self.time_to_live();
            let entry = self.swarms.get_mut(&content).and_then(|swarm| swarm.entry_mut(peer));
            let entry = entry.expect("each expiry has its peer");
            let expires = entry.last_seen + time_to_live;
            if expires <= now {
                self.remove(content, peer);
            } else {
                entry.look_at = expires;
                self.expiries.insert((expires, content, peer));
            }
        }
    }

    /// It started less than an interval ago, and may not know all peers yet.
    pub fn is_warming(&self, now: Instant) -> bool {
        now < self.started + self.settings.interval
    }

    /// The number of swarms.
    pub fn swarm_count(&self) -> usize {
        self.swarms.len()
    }

    /// The number of peers, each counted once per swarm.
    pub fn peer_count(&self) -> usize {
        self.expiries.len()
    }

    /// Checks the limits that a new peer could exceed.
    fn admit(&self, content: ContentId, source: IpAddr) -> Result<(), Refusal> {
        let Settings { max_swarms, max_peers, .. } = self.settings;
        let Settings { max_peers_per_swarm, max_peers_per_address, .. } = self.settings;
        let of_source = self.sources.get(&source).copied().unwrap_or_default();
        if of_source >= max_peers_per_address {
            return Err(Refusal::PeersOfAddress(max_peers_per_address));
        }
        if self.tally.peers() >= max_peers {
            return Err(Refusal::Peers(max_peers));
        }
        match self.swarms.get(&content) {
            None if self.swarms.len() >= max_swarms => Err(Refusal::Swarms(max_swarms)),
            Some(swarm) if swarm.len() >= max_peers_per_swarm => {
                Err(Refusal::PeersOfSwarm(max_peers_per_swarm))
            }
            _ => Ok(()),
        }
    }

    fn time_to_live(&self) -> Duration {
        self.settings.interval.mul_f64(MISSED_INTERVALS)
    }

    fn remove(&mut self, content: ContentId, peer: PeerId) {
        let Some(swarm) = self.swarms.get_mut(&content) else { return };
        let removed = swarm.remove(peer);
        if swarm.is_empty() {
            self.swarms.remove(&content);
        }
        if let Some(entry) = removed {
            self.tally.0.fetch_sub(1, Ordering::Relaxed);
            self.forget_source(entry.source);
        }
    }

    fn forget_source(&mut self, source: IpAddr) {
        if let Some(count) = self.sources.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests;
