//! Limits how often this node dials an address at which no node has answered yet.
//!
//! A node that is known from hearsay alone may not exist, and its address may be that of a victim:
//! anybody can name thousands of them. So each call to such an address costs a token of its host
//! and one of all hosts. The first answer returns them, and later calls to that address are free.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use shoal_common::lock::Mutex;
use shoal_core::Address;

/// Dials to one host: a burst, and then one each second. More than the nodes that share a host, and
/// far fewer than a flood.
const PER_HOST: Rate = Rate { burst: 32, every: Duration::from_secs(1) };
/// Dials to all hosts: a burst, and then 32 each second. A node that returns to a ring of 10,000
/// asks a few hundred nodes at most before they answer.
const IN_ALL: Rate = Rate { burst: 512, every: Duration::from_millis(32) };
/// Addresses that have answered, addresses that have not, and hosts: at most this many of each.
const MAX_KNOWN: usize = 65_536;

/// The purpose of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DialPurpose {
    /// Ring maintenance. Half of the tokens are reserved for it, so that lookups of clients do not
    /// delay it.
    Maintenance,
    /// Lookups, and calls between the members of a replica set.
    Other,
}

/// A token bucket: a burst, and then one at a time.
#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: u32,
    every: Duration,
}

/// Tokens, counted in the time that it took to earn them.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    rate: Rate,
    /// The time at which it is full again.
    full_at: Instant,
}

impl Bucket {
    const fn full(rate: Rate, now: Instant) -> Self {
        Self { rate, full_at: now }
    }

    fn has_one(&self, purpose: DialPurpose, now: Instant) -> bool {
        let reserved = match purpose {
            DialPurpose::Maintenance => 0,
            DialPurpose::Other => self.rate.burst / 2,
        };
        let lacking = self.full_at.saturating_duration_since(now);
        lacking <= self.rate.every * (self.rate.burst - reserved - 1)
    }

    fn take(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + self.rate.every;
    }

    fn give_back(&mut self, tokens: u32) {
        let earned_in = self.rate.every.saturating_mul(tokens);
        self.full_at = self.full_at.checked_sub(earned_in).unwrap_or(self.full_at);
    }
}

/// Counts dials to addresses at which no node has answered yet.
#[derive(Debug)]
pub(crate) struct DialLimiter(Mutex<State>);

#[derive(Debug)]
struct State {
    met: HashSet<Address>,
    /// Tokens that each unanswered address has cost.
    unmet: HashMap<Address, u32>,
    hosts: HashMap<String, Bucket>,
    all: Bucket,
}

impl DialLimiter {
    pub(crate) fn new(now: Instant) -> Self {
        Self(Mutex::new(State {
            met: HashSet::new(),
            unmet: HashMap::new(),
            hosts: HashMap::new(),
            all: Bucket::full(IN_ALL, now),
        }))
    }

    /// Whether an address may be dialled now. If so, the dial is counted.
    pub(crate) fn may_dial(&self, address: &Address, purpose: DialPurpose, now: Instant) -> bool {
        let mut state = self.0.lock();
        if state.met.contains(address) {
            return true;
        }
        let host = address.host();
        if state.hosts.len() >= MAX_KNOWN {
            state.hosts.retain(|_, bucket| bucket.full_at > now);
        }
        if state.hosts.len() >= MAX_KNOWN && !state.hosts.contains_key(&host) {
            return false;
        }
        let State { unmet, hosts, all, .. } = &mut *state;
        let of_host = hosts.entry(host).or_insert(Bucket::full(PER_HOST, now));
        if !of_host.has_one(purpose, now) || !all.has_one(purpose, now) {
            return false;
        }
        of_host.take(now);
        all.take(now);
        if unmet.len() >= MAX_KNOWN && !unmet.contains_key(address) {
            forget_any(unmet);
        }
        let tokens = unmet.entry(address.clone()).or_default();
        *tokens = tokens.saturating_add(1);
        true
    }

    /// A node answered at an address.
    pub(crate) fn met(&self, address: &Address) {
        let mut state = self.0.lock();
        if state.met.contains(address) {
            return;
        }
        if state.met.len() >= MAX_KNOWN
            && let Some(other) = state.met.iter().next().cloned()
        {
            state.met.remove(&other);
        }
        state.met.insert(address.clone());
        let Some(tokens) = state.unmet.remove(address) else { return };
        state.all.give_back(tokens);
        if let Some(bucket) = state.hosts.get_mut(&address.host()) {
            bucket.give_back(tokens);
        }
    }
}

/// An address that is forgotten before it has answered gets no tokens back.
fn forget_any(unmet: &mut HashMap<Address, u32>) {
    if let Some(other) = unmet.keys().next().cloned() {
        unmet.remove(&other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialled(
        dials: &DialLimiter,
        purpose: DialPurpose,
        addresses: impl Iterator<Item = String>,
        now: Instant,
    ) -> usize {
        addresses.filter(|text| dials.may_dial(&address(text), purpose, now)).count()
    }

    fn address(text: &str) -> Address {
        text.parse().expect(text)
    }

    fn at(host: &str) -> impl Iterator<Item = String> {
        (1..=4096).map(move |port| format!("{host}:{port}"))
    }

    fn hosts() -> impl Iterator<Item = String> {
        (0..4096).map(|n| format!("10.1.{}.{}:7071", n / 256, n % 256))
    }

    #[test]
    fn thousands_of_members_on_one_host_are_dialled_a_few_times() {
        let now = Instant::now();
        let dials = DialLimiter::new(now);
        assert_eq!(dialled(&dials, DialPurpose::Maintenance, at("10.0.0.1"), now), 32);
        let mut later = 0;
        for second in 1..=8 {
            let now = now + Duration::from_secs(second);
            later += dialled(&dials, DialPurpose::Maintenance, at("10.0.0.1"), now);
        }
        assert_eq!(later, 8);
        let others = dialled(&dials, DialPurpose::Maintenance, at("10.0.0.2"), now);
        assert_eq!(others, 32, "another host has its own");
    }

    #[test]
    fn dials_to_many_hosts_are_bounded_in_all() {
        let now = Instant::now();
        let dials = DialLimiter::new(now);
        assert_eq!(dialled(&dials, DialPurpose::Maintenance, hosts(), now), 512);
        let later = now + Duration::from_secs(1);
        assert_eq!(dialled(&dials, DialPurpose::Maintenance, hosts(), later), 31);
    }

    #[test]
    fn lookups_leave_half_of_the_dials_to_maintenance() {
        let now = Instant::now();
        let dials = DialLimiter::new(now);
        assert_eq!(dialled(&dials, DialPurpose::Other, at("10.0.0.1"), now), 16);
        assert_eq!(dialled(&dials, DialPurpose::Maintenance, at("10.0.0.1"), now), 16);
        let later = now + Duration::from_secs(10);
        assert_eq!(dialled(&dials, DialPurpose::Other, at("10.0.0.1"), later), 0);
        assert_eq!(dialled(&dials, DialPurpose::Maintenance, at("10.0.0.1"), later), 10);
        let dials = DialLimiter::new(now);
        assert_eq!(dialled(&dials, DialPurpose::Other, hosts(), now), 256);
        assert_eq!(dialled(&dials, DialPurpose::Maintenance, hosts(), now), 256);
    }

    #[test]
    fn an_address_that_answers_costs_nothing() {
        let now = Instant::now();
        let dials = DialLimiter::new(now);
        for text in at("10.0.0.1") {
            let address = address(&text);
            assert!(dials.may_dial(&address, DialPurpose::Other, now), "{address}");
            dials.met(&address);
            assert!(dials.may_dial(&address, DialPurpose::Other, now));
        }
    }

    #[test]
    fn a_name_is_a_host_of_its_own() {
        let now = Instant::now();
        let dials = DialLimiter::new(now);
        assert_eq!(dialled(&dials, DialPurpose::Maintenance, at("node-1"), now), 32);
        assert!(dials.may_dial(&address("node-2:1"), DialPurpose::Maintenance, now));
    }
}
