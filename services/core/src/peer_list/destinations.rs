//! The destinations of dials, over all contents and ids: an address that is named a thousand times
//! is dialled as often as if it were named once.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use rand::Rng;

use super::{PeerListSettings, host::Host};
use crate::{Address, backoff::Backoff};

/// Addresses whose last dial failed; beyond that, those due first are forgotten. The same number of
/// hosts.
const MAX_REMEMBERED: usize = 4096;

/// The outcomes of dials, by destination.
#[derive(Debug, Default)]
pub(super) struct Destinations {
    /// Addresses with a dial in progress.
    under_way: HashSet<Address>,
    /// Addresses whose last dials failed.
    failed: HashMap<Address, Failed>,
    /// Failures of all ports of a host, as a level that sinks with time.
    hosts: HashMap<Host, Level>,
}

#[derive(Clone, Debug)]
struct Failed {
    backoff: Backoff,
    until: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Level {
    failures: f64,
    at: Instant,
}

impl Level {
    fn now(self, now: Instant, settings: &PeerListSettings) -> f64 {
        let sunk = now.saturating_duration_since(self.at).as_secs_f64();
        sunk.mul_add(-settings.host_failures_per_s, self.failures).max(0.0)
    }
}

impl Destinations {
    /// When an address may be dialled, if its host may; none while it is being dialled.
    pub(super) fn due(&self, now: Instant, address: &Address) -> Option<Instant> {
        if self.under_way.contains(address) {
            return None;
        }
        Some(self.failed.get(address).map_or(now, |failed| failed.until))
    }

    /// When an unknown port of a host may be tried.
    pub(super) fn host_due(
        &self,
        now: Instant,
        host: &Host,
        settings: &PeerListSettings,
    ) -> Instant {
        let level = self.hosts.get(host).map_or(0.0, |level| level.now(now, settings));
        let above = (level - settings.host_failures).max(0.0);
        now + Duration::from_secs_f64(above / settings.host_failures_per_s)
    }

    pub(super) fn begin(&mut self, address: &Address) {
        self.under_way.insert(address.clone());
    }

    pub(super) fn reached(&mut self, address: &Address) {
        self.under_way.remove(address);
        self.failed.remove(address);
    }

    /// Ends a dial whose outcome is unknown.
    pub(super) fn given_up(&mut self, address: &Address) {
        self.under_way.remove(address);
    }

    /// A dial failed: sets the pause before the next one to this address.
    pub(super) fn failed(
        &mut self,
        now: Instant,
        address: &Address,
        settings: &PeerListSettings,
        rng: &mut impl Rng,
    ) {
        self.under_way.remove(address);
        self.host_failed(now, Host::of(address), settings);
        let mut backoff = self.failed.get(address).map_or_else(
            || Backoff::new(settings.first_backoff, settings.max_backoff),
            |failed| failed.backoff.clone(),
        );
        let until = now + backoff.next(rng);
        if self.failed.len() >= MAX_REMEMBERED
            && let Some(first) = self.failed.iter().min_by_key(|(_, failed)| failed.until)
        {
            let first = first.0.clone();
            self.failed.remove(&first);
        }
        self.failed.insert(address.clone(), Failed { backoff, until });
    }

    /// A port of a host does not answer.
    pub(super) fn host_failed(&mut self, now: Instant, host: Host, settings: &PeerListSettings) {
        if self.hosts.len() >= MAX_REMEMBERED {
            self.hosts.retain(|_, level| level.now(now, settings) > 0.0);
        }
        if self.hosts.len() < MAX_REMEMBERED || self.hosts.contains_key(&host) {
            let failures = self.hosts.get(&host).map_or(0.0, |level| level.now(now, settings));
            self.hosts.insert(host, Level { failures: failures + 1.0, at: now });
        }
    }
}
