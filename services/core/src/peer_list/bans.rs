//! Bans, by what is proven about an offender.

use std::{collections::HashMap, time::Instant};

use super::{Origin, PeerListSettings};
use crate::Address;

/// Bans, each until a time. Bounded per host and in all.
#[derive(Debug, Default)]
pub(super) struct Bans(HashMap<Origin, Instant>);

impl Bans {
    pub(super) fn insert(&mut self, now: Instant, origin: Origin, settings: &PeerListSettings) {
        self.0.retain(|_, until| *until > now);
        let host = origin.host();
        let same_host = self.0.iter().filter(|(origin, _)| origin.host() == host);
        if same_host.clone().count() >= settings.max_bans_per_host {
            self.drop_first(|origin| origin.host() == host);
        } else if self.0.len() >= settings.max_bans {
            self.drop_first(|_| true);
        }
        self.0.insert(origin, now + settings.ban);
    }

    pub(super) fn contains(&self, now: Instant, origin: &Origin) -> bool {
        self.0.get(origin).is_some_and(|until| *until > now)
    }

    /// Until when an address must not be dialled.
    pub(super) fn until(&self, address: &Address) -> Option<Instant> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&Origin::Dialled(address.clone())).copied()
    }

    /// Lifts the ban that ends first among those that may be lifted.
    fn drop_first(&mut self, may_be: impl Fn(&Origin) -> bool) {
        let first = self.0.iter().filter(|(origin, _)| may_be(origin));
        if let Some(first) =
            first.min_by_key(|(_, until)| **until).map(|(origin, _)| origin.clone())
        {
            self.0.remove(&first);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
