//! The peer list: which peers to dial, to accept, and to ban.
//!
//! For each content it keeps the peers that trackers and the ring have named. It has the shell dial
//! some of them until there are enough neighbours, backs off from those that cannot be reached, and
//! keeps at most one link to each. It is told about every link, so its limits always hold.

mod arrival;
mod bans;
mod content_peers;
mod destinations;
mod host;
mod origin;
mod settings;

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    time::Instant,
};

use rand::{Rng, seq::SliceRandom};

use self::{
    bans::Bans,
    content_peers::{ContentPeers, State},
    destinations::Destinations,
    host::Host,
};
use crate::{Address, PeerId, swarm::ContentKey};

pub use self::{
    arrival::{Admission, Arrival, Candidate, Refusal},
    origin::{Direction, Origin},
    settings::PeerListSettings,
};

/// The peers known for each content of a process.
pub struct PeerList {
    settings: PeerListSettings,
    me: PeerId,
    contents: BTreeMap<ContentKey, ContentPeers>,
    bans: Bans,
    destinations: Destinations,
    links: usize,
    /// Links that hosts made to us. None is zero.
    inbound: HashMap<Host, usize>,
    /// No peer is due to be dialled before; set to now by any event that may change that.
    due: Option<Instant>,
}

impl PeerList {
    /// An empty list of the peer `me`.
    pub fn new(settings: PeerListSettings, me: PeerId) -> Self {
        Self {
            settings,
            me,
            contents: BTreeMap::new(),
            bans: Bans::default(),
            destinations: Destinations::default(),
            links: 0,
            inbound: HashMap::new(),
            due: None,
        }
    }

    /// Begins to keep neighbours for a content.
    pub fn add_content(&mut self, content: ContentKey, complete: bool) {
        self.contents.entry(content).or_default().complete = complete;
    }

    /// The content is complete: complete peers are no longer dialled for it.
    pub fn completed(&mut self, content: ContentKey) {
        if let Some(content_peers) = self.contents.get_mut(&content) {
            content_peers.complete = true;
        }
    }

    /// Forgets a content; the shell closes its links.
    pub fn remove_content(&mut self, content: ContentKey) {
        let Some(content_peers) = self.contents.remove(&content) else { return };
        self.links -= content_peers.linked;
        for entry in content_peers.entries.into_values() {
            match (entry.state, entry.address) {
                (State::Linked(origin), _) => self.forget_inbound(&origin),
                (State::Dialling(_), Some(address)) => self.destinations.given_up(&address),
                _ => {}
            }
        }
    }

    /// A tracker or the ring named a peer.
    pub fn learn(&mut self, now: Instant, content: ContentKey, candidate: Candidate) {
        let origin = Origin::Dialled(candidate.address.clone());
        if candidate.peer == self.me || self.is_banned(now, &origin) {
            return;
        }
        let Some(content_peers) = self.contents.get_mut(&content) else { return };
        if content_peers.learn(now, candidate, &self.settings) {
            self.due = Some(now);
        }
    }

    /// A peer of a content gave its manifest from this address, and so is reachable.
    pub fn answered(&mut self, now: Instant, content: ContentKey, address: &Address) {
        let Some(content_peers) = self.contents.get_mut(&content) else { return };
        let mut entries = content_peers.entries.values_mut();
        if let Some(entry) = entries.find(|entry| entry.address.as_ref() == Some(address)) {
            entry.answered = true;
            self.due = Some(now);
        }
    }

    /// The peers to dial now, in random order, except that those that answered come first. Their
    /// dials count as in progress from here on.
    pub fn dials(&mut self, now: Instant, rng: &mut impl Rng) -> Vec<(ContentKey, Candidate)> {
        if self.due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        let mut dials = Vec::new();
        let mut free = self.free_links(now);
        for (content, content_peers) in &mut self.contents {
            let room = content_peers.room(now, &self.settings).min(free);
            if room == 0 {
                continue;
            }
            let is_due = |entry| {
                let known = (&self.destinations, &self.bans);
                content_peers.due(now, entry, known, &self.settings).is_some_and(|at| at <= now)
            };
            let ready = content_peers.entries.iter().filter(|(_, entry)| is_due(entry));
            let mut ready: Vec<_> = ready.map(|(peer, _)| *peer).collect();
            ready.shuffle(rng);
            ready.sort_by_key(|peer| !content_peers.entries[peer].answered);
            ready.truncate(room);
            free -= ready.len();
            for peer in ready {
                let entry = content_peers.entries.get_mut(&peer).expect("chosen from this map");
                let address = entry.address.clone().expect("without one it is never due");
                entry.state = State::Dialling(now);
                content_peers.dialling += 1;
                self.destinations.begin(&address);
                dials.push((*content, Candidate { peer, address, complete: entry.complete }));
            }
        }
        self.due = self.earliest(now);
        dials
    }

    /// When [`PeerList::dials`] may return more without a further event.
    pub const fn next_deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Links that may be added, in addition to those that dials in progress may become.
    fn free_links(&self, now: Instant) -> usize {
        let young = self
            .contents
            .values()
            .map(|content_peers| content_peers.young_dials(now, &self.settings));
        self.settings.max_links.saturating_sub(self.links + young.sum::<usize>())
    }

    fn earliest(&self, now: Instant) -> Option<Instant> {
        let due = |content_peers: &ContentPeers| {
            let all = content_peers.entries.values();
            let known = (&self.destinations, &self.bans);
            let due = all.filter_map(|entry| content_peers.due(now, entry, known, &self.settings));
            match content_peers.room(now, &self.settings) {
                0 => content_peers.next_turn(now, &self.settings),
                _ => due.min(),
            }
        };
        if self.links >= self.settings.max_links {
            return None;
        }
        let all = self.contents.values();
        if self.free_links(now) == 0 {
            return all
                .filter_map(|content_peers| content_peers.end_of_turn(now, &self.settings))
                .min();
        }
        all.filter_map(due).min()
    }

    /// A dial failed; no link was made. If another peer than the expected one `answers`, it
    /// replaces the expected one.
    pub fn dial_failed(
        &mut self,
        now: Instant,
        content: ContentKey,
        peer: PeerId,
        answers: Option<PeerId>,
        rng: &mut impl Rng,
    ) {
        let Some(content_peers) = self.contents.get_mut(&content) else { return };
        let Some(entry) = content_peers.entries.get_mut(&peer) else { return };
        let (State::Dialling(_), Some(address)) = (&entry.state, entry.address.clone()) else {
            return;
        };
        self.due = Some(now);
        content_peers.dialling -= 1;
        if let Some(answers) = answers {
            content_peers.entries.remove(&peer);
            if answers == self.me {
                self.destinations.failed(now, &address, &self.settings, rng);
            } else {
                self.destinations.reached(&address);
                self.learn(now, content, Candidate { peer: answers, address, complete: false });
            }
            return;
        }
        self.destinations.failed(now, &address, &self.settings, rng);
        entry.failures += 1;
        entry.answered = false;
        if entry.failures >= self.settings.max_failures {
            content_peers.entries.remove(&peer);
            return;
        }
        // The address knows when it may be dialled again.
        entry.state = State::Waiting(now);
    }

    /// Decides about a link that came up.
    ///
    /// Of two links between the same peers, one dialled by each, the one that the peer with the
    /// smaller id dialled is kept, so both ends keep the same. Of two dialled by the same peer the
    /// newer is kept: the older is dead, or its end would not have dialled again. Ids are public: a
    /// link from another host never replaces a present one.
    pub fn admit(&mut self, now: Instant, content: ContentKey, arrival: Arrival) -> Admission {
        let Arrival { peer, address, complete, origin } = arrival;
        self.due = Some(now);
        if let Origin::Dialled(address) = &origin {
            self.destinations.reached(address);
        }
        let claimed = address.clone().map(Origin::Dialled);
        if peer == self.me {
            return self.refuse(now, content, peer, &origin, Refusal::Myself);
        }
        if self.is_banned(now, &origin) || claimed.is_some_and(|it| self.is_banned(now, &it)) {
            return self.refuse(now, content, peer, &origin, Refusal::Banned);
        }
        let Some(content_peers) = self.contents.get_mut(&content) else {
            return Admission::Refuse(Refusal::NoContent);
        };
        let direction = origin.direction();
        if let Some(State::Linked(there)) =
            content_peers.entries.get(&peer).map(|entry| &entry.state)
        {
            let ours_stays = self.me < peer;
            let stays = there.may_be_same_host(&origin)
                && (direction == there.direction()
                    || (direction == Direction::Outbound) == ours_stays);
            if !stays {
                return Admission::Refuse(Refusal::Duplicate);
            }
            if let Some(there) = content_peers.unlink(peer, now, &self.settings) {
                self.forget_inbound(&there);
            }
            self.note_link(content, peer, address, complete, origin);
            return Admission::Replace;
        }
        if let Some(refusal) = self.reason_to_refuse(content, &origin) {
            return self.refuse(now, content, peer, &origin, refusal);
        }
        let Some(content_peers) = self.contents.get_mut(&content) else {
            return Admission::Refuse(Refusal::NoContent);
        };
        content_peers.stop_dialling(peer, now, &mut self.destinations);
        content_peers.linked += 1;
        self.links += 1;
        self.note_link(content, peer, address, complete, origin);
        Admission::Keep
    }

    fn note_link(
        &mut self,
        content: ContentKey,
        peer: PeerId,
        address: Option<Address>,
        complete: bool,
        origin: Origin,
    ) {
        if let Origin::Seen(..) = origin {
            *self.inbound.entry(origin.host()).or_default() += 1;
        }
        if let Some(content_peers) = self.contents.get_mut(&content) {
            content_peers.link(peer, address, complete, origin);
        }
    }

    fn reason_to_refuse(&self, content: ContentKey, origin: &Origin) -> Option<Refusal> {
        let content_peers = self.contents.get(&content)?;
        let settings = &self.settings;
        if content_peers.linked >= settings.max_neighbours || self.links >= settings.max_links {
            return Some(Refusal::Full);
        }
        if origin.direction() == Direction::Outbound {
            return None;
        }
        let unreserved = settings.max_neighbours.saturating_sub(settings.reserved_for_dialled);
        if content_peers.inbound >= unreserved.max(settings.max_neighbours.div_ceil(2)) {
            return Some(Refusal::Full);
        }
        let host = origin.host();
        let of_host = self.inbound.get(&host).copied().unwrap_or_default();
        let is_crowded = content_peers.inbound_of(&host) >= settings.max_neighbours_per_host
            || of_host >= settings.max_links.div_ceil(2);
        is_crowded.then_some(Refusal::Crowded)
    }

    /// Refuses a link. If we dialled, the peer is not dialled again for a while.
    fn refuse(
        &mut self,
        now: Instant,
        content: ContentKey,
        peer: PeerId,
        origin: &Origin,
        refusal: Refusal,
    ) -> Admission {
        if let Some(content_peers) = self.contents.get_mut(&content)
            && origin.direction() == Direction::Outbound
        {
            let until = now + self.settings.max_backoff;
            content_peers.stop_dialling(peer, until, &mut self.destinations);
        }
        Admission::Refuse(refusal)
    }

    fn forget_inbound(&mut self, origin: &Origin) {
        let host = origin.host();
        if let Origin::Seen(..) = origin
            && let Some(links) = self.inbound.get_mut(&host)
        {
            *links -= 1;
            if *links == 0 {
                self.inbound.remove(&host);
            }
        }
    }

    /// A link that was kept, and not replaced, has ended. The peer may be dialled again after a
    /// while.
    pub fn link_down(&mut self, now: Instant, content: ContentKey, peer: PeerId) {
        let Some(content_peers) = self.contents.get_mut(&content) else { return };
        let until = now + self.settings.first_backoff;
        if let Some(origin) = content_peers.unlink(peer, until, &self.settings) {
            content_peers.linked -= 1;
            self.links -= 1;
            self.due = Some(now);
            self.forget_inbound(&origin);
        }
    }

    /// Bans an offender by what is proven about it. The shell closes its links.
    pub fn ban(&mut self, now: Instant, origin: Origin) {
        self.bans.insert(now, origin, &self.settings);
    }

    /// Whether the other end of a link, or an address to dial, is banned.
    pub fn is_banned(&self, now: Instant, origin: &Origin) -> bool {
        self.bans.contains(now, origin)
    }

    /// Whether a port of a host may be probed that only a peer at that host has named.
    pub fn may_probe(&self, now: Instant, host: IpAddr) -> bool {
        self.destinations.host_due(now, &host.into(), &self.settings) <= now
    }

    /// No peer answered there.
    pub fn probe_failed(&mut self, now: Instant, host: IpAddr) {
        self.destinations.host_failed(now, host.into(), &self.settings);
    }

    /// Links of a content.
    pub fn neighbours(&self, content: ContentKey) -> usize {
        self.contents.get(&content).map_or(0, |content_peers| content_peers.linked)
    }
}

#[cfg(test)]
mod tests;
