//! The peers known for one content.

use std::{collections::BTreeMap, time::Instant};

use super::{
    Candidate, Direction, Origin, PeerListSettings, bans::Bans, destinations::Destinations,
    host::Host,
};
use crate::{Address, PeerId};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// May be dialled from then on.
    Waiting(Instant),
    /// Since then.
    Dialling(Instant),
    Linked(Origin),
}

pub(super) struct Entry {
    /// The address to dial; none if unknown.
    pub(super) address: Option<Address>,
    pub(super) complete: bool,
    pub(super) failures: u32,
    /// It gave the content's manifest: it is dialled first, whatever else fails at its host.
    pub(super) answered: bool,
    pub(super) state: State,
}

#[derive(Default)]
pub(super) struct ContentPeers {
    /// This peer holds everything: complete candidates are of no use.
    pub(super) complete: bool,
    pub(super) entries: BTreeMap<PeerId, Entry>,
    pub(super) linked: usize,
    /// Of these, those that dialled us.
    pub(super) inbound: usize,
    pub(super) dialling: usize,
}

impl ContentPeers {
    /// How many more may be dialled at once.
    pub(super) fn room(&self, now: Instant, settings: &PeerListSettings) -> usize {
        if self.dialling == 0 {
            return settings.dial_until.saturating_sub(self.linked).min(settings.max_dials);
        }
        let young = self.young_dials(now, settings);
        let wanted = settings.dial_until.saturating_sub(self.linked + young);
        let unanswered = (4 * settings.max_dials).saturating_sub(self.dialling);
        wanted.min(settings.max_dials.saturating_sub(young)).min(unanswered)
    }

    /// When a dial in progress no longer prevents others from beginning; none if only an outcome
    /// helps.
    pub(super) fn next_turn(&self, now: Instant, settings: &PeerListSettings) -> Option<Instant> {
        if self.linked >= settings.dial_until || self.dialling >= 4 * settings.max_dials {
            return None;
        }
        self.end_of_turn(now, settings)
    }

    /// The number of dials that prevent others from beginning.
    pub(super) fn young_dials(&self, now: Instant, settings: &PeerListSettings) -> usize {
        self.dials().filter(|since| *since + settings.dial_turn > now).count()
    }

    /// When the first of these becomes old.
    pub(super) fn end_of_turn(&self, now: Instant, settings: &PeerListSettings) -> Option<Instant> {
        let turns = self.dials().map(|since| since + settings.dial_turn);
        turns.filter(|end| *end > now).min()
    }

    /// The start times of dials in progress.
    fn dials(&self) -> impl Iterator<Item = Instant> {
        self.entries.values().filter_map(|entry| match entry.state {
            State::Dialling(since) => Some(since),
            _ => None,
        })
    }

    /// When a peer is due to be dialled, if it is.
    pub(super) fn due(
        &self,
        now: Instant,
        entry: &Entry,
        (destinations, bans): (&Destinations, &Bans),
        settings: &PeerListSettings,
    ) -> Option<Instant> {
        let State::Waiting(until) = entry.state else { return None };
        if self.complete && entry.complete {
            return None;
        }
        let address = entry.address.as_ref()?;
        let mut due = until.max(destinations.due(now, address)?);
        if !entry.answered {
            due = due.max(destinations.host_due(now, &Host::of(address), settings));
        }
        Some(bans.until(address).map_or(due, |ban| ban.max(due)))
    }

    /// A peer was named. For an id, and for an address, the first information holds until a dial
    /// proves it wrong: both are easily invented. False if nothing changes.
    pub(super) fn learn(
        &mut self,
        now: Instant,
        candidate: Candidate,
        settings: &PeerListSettings,
    ) -> bool {
        let Candidate { peer, address, complete } = candidate;
        let holds_address = |(other, entry): (&PeerId, &Entry)| {
            *other != peer
                && entry.address.as_ref() == Some(&address)
                && !matches!(entry.state, State::Linked(Origin::Seen(..)))
        };
        let is_taken = self.entries.iter().any(holds_address);
        if let Some(entry) = self.entries.get_mut(&peer) {
            entry.complete |= complete;
            let may_change = entry.address.is_none()
                || (entry.failures > 0 && matches!(entry.state, State::Waiting(_)));
            if is_taken || !may_change || entry.address.as_ref() == Some(&address) {
                return false;
            }
            entry.address = Some(address);
            entry.failures = 0;
            return true;
        }
        if is_taken || !self.make_room(&address, settings) {
            return false;
        }
        let (failures, answered, state) = (0, false, State::Waiting(now));
        let address = Some(address);
        self.entries.insert(peer, Entry { address, complete, failures, answered, state });
        true
    }

    /// Whether there is room for a candidate with an address. A candidate that could not be reached
    /// makes room, else one of the host that has the most.
    fn make_room(&mut self, address: &Address, settings: &PeerListSettings) -> bool {
        let newcomer = Host::of(address);
        let mut hosts = BTreeMap::<Host, usize>::new();
        for address in self.entries.values().filter_map(|entry| entry.address.as_ref()) {
            *hosts.entry(Host::of(address)).or_default() += 1;
        }
        let of_newcomer = hosts.get(&newcomer).copied().unwrap_or_default();
        if of_newcomer >= settings.max_candidates_per_host {
            return false;
        }
        if self.entries.len() < settings.max_candidates {
            return true;
        }
        let waiting =
            self.entries.iter().filter(|(_, entry)| matches!(entry.state, State::Waiting(_)));
        let ranked = waiting.map(|(peer, entry)| {
            let host = entry.address.as_ref().map(Host::of);
            let of_host = host.and_then(|host| hosts.get(&host).copied()).unwrap_or_default();
            (entry.failures, of_host, *peer)
        });
        match ranked.max() {
            Some((failures, of_host, peer)) if failures > 0 || of_host > of_newcomer + 1 => {
                self.entries.remove(&peer);
                true
            }
            _ => false,
        }
    }

    /// Notes the link of a peer. An address that was known before is kept.
    pub(super) fn link(
        &mut self,
        peer: PeerId,
        address: Option<Address>,
        complete: bool,
        by: Origin,
    ) {
        self.inbound += usize::from(by.direction() == Direction::Inbound);
        let before = self.entries.remove(&peer).and_then(|entry| entry.address);
        let address = match &by {
            Origin::Dialled(address) => Some(address.clone()),
            Origin::Seen(..) => before.or(address),
        };
        let (failures, answered, state) = (0, false, State::Linked(by));
        self.entries.insert(peer, Entry { address, complete, failures, answered, state });
    }

    /// Removes the link of a peer, and returns its origin. The peer may be dialled again after a
    /// while, if it has an address that no other has, and there is room to remember it.
    pub(super) fn unlink(
        &mut self,
        peer: PeerId,
        until: Instant,
        settings: &PeerListSettings,
    ) -> Option<Origin> {
        let entry = self.entries.get_mut(&peer)?;
        let State::Linked(origin) = &entry.state else { return None };
        let origin = origin.clone();
        entry.state = State::Waiting(until);
        let address = entry.address.clone();
        let is_known =
            |(other, entry): (&PeerId, &Entry)| *other != peer && entry.address == address;
        if address.is_none()
            || self.entries.len() > settings.max_candidates
            || self.entries.iter().any(is_known)
        {
            self.entries.remove(&peer);
        }
        self.inbound -= usize::from(origin.direction() == Direction::Inbound);
        Some(origin)
    }

    /// Ends the dial of a peer, which may be dialled from `until` on. Another dial to the same
    /// address may be in progress.
    pub(super) fn stop_dialling(
        &mut self,
        peer: PeerId,
        until: Instant,
        destinations: &mut Destinations,
    ) {
        if let Some(entry) = self.entries.get_mut(&peer)
            && let State::Dialling(_) = entry.state
        {
            if let Some(address) = &entry.address {
                destinations.given_up(address);
            }
            entry.state = State::Waiting(until);
            self.dialling -= 1;
        }
    }

    /// Links of peers of a host that dialled us.
    pub(super) fn inbound_of(&self, host: &Host) -> usize {
        let is_of_host = |entry: &&Entry| match &entry.state {
            State::Linked(origin @ Origin::Seen(..)) => origin.host() == *host,
            _ => false,
        };
        self.entries.values().filter(is_of_host).count()
    }
}
