//! Whom to dial, whom to let in, and whom to ban.
//!
//! For each content the roster keeps the peers it was told of. It has the shell dial some of them
//! until there are enough neighbours, backs off from those that cannot be reached, and keeps at most
//! one link to each. It is told of every link, so it never holds more than its limits.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use rand::{Rng, RngExt, seq::SliceRandom};

use crate::{PeerId, swarm::ContentKey};

/// Limits and times of the roster.
#[derive(Clone, Debug)]
pub struct RosterSettings {
    /// Links for one content, at most (the textbook's subset of 50 peers).
    pub max_neighbours: usize,
    /// Dialling stops at so many, so that a peer that comes later still finds open doors. BitTorrent
    /// clients dial to 30 and let in up to 55 (Cohen 2003).
    pub dial_until: usize,
    /// Links of the process, at most.
    pub max_links: usize,
    /// Dials under way for one content, at most.
    pub max_dials: usize,
    /// Candidates remembered for one content, at most.
    pub max_candidates: usize,
    /// Wait after a first failed dial; doubled for each further one.
    pub first_backoff: Duration,
    /// The longest wait between two dials.
    pub max_backoff: Duration,
    /// A candidate that failed so often in a row is forgotten until it is named again.
    pub max_failures: u32,
    /// How long a ban lasts.
    pub ban: Duration,
}

impl Default for RosterSettings {
    fn default() -> Self {
        Self {
            max_neighbours: 50,
            dial_until: 30,
            max_links: 500,
            max_dials: 16,
            max_candidates: 500,
            first_backoff: Duration::from_millis(250),
            max_backoff: Duration::from_secs(30),
            max_failures: 8,
            ban: Duration::from_secs(3600),
        }
    }
}

/// A peer that may become a neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub peer: PeerId,
    /// HOST:PORT to dial.
    pub address: String,
    /// Holds every piece, as far as is known.
    pub complete: bool,
}

/// Who dialled a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// We did.
    Outbound,
    /// The neighbour did.
    Inbound,
}

/// What becomes of a new link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It stays.
    Keep,
    /// It stays, in the place of the one there was with this peer.
    Replace,
    /// It is closed.
    Refuse(Refusal),
}

/// Why a link is closed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The peer or its address is banned.
    #[error("the peer is banned")]
    Banned,
    /// It is this very peer.
    #[error("a peer does not link to itself")]
    Myself,
    /// There is a link with this peer already, and that one stays.
    #[error("there is a link between the two peers already")]
    Duplicate,
    /// No room for another neighbour.
    #[error("the peer has all the neighbours it takes")]
    Full,
    /// The content is no longer here.
    #[error("the content is not here")]
    NoContent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// May be dialled from then on.
    Waiting(Instant),
    Dialling,
    Linked(Direction),
}

struct Entry {
    address: String,
    complete: bool,
    failures: u32,
    state: State,
}

#[derive(Default)]
struct Neighbourhood {
    /// We hold everything: complete candidates are of no use.
    complete: bool,
    entries: BTreeMap<PeerId, Entry>,
    linked: usize,
    dialling: usize,
}

/// The peers known for each content of a process.
pub struct Roster {
    settings: RosterSettings,
    me: PeerId,
    contents: BTreeMap<ContentKey, Neighbourhood>,
    banned_peers: HashMap<PeerId, Instant>,
    banned_addresses: HashMap<String, Instant>,
    links: usize,
    /// Nobody is to be dialled before; now, after anything that may have changed that.
    due: Option<Instant>,
}

impl Roster {
    /// An empty roster of the peer `me`.
    pub fn new(settings: RosterSettings, me: PeerId) -> Self {
        Self {
            settings,
            me,
            contents: BTreeMap::new(),
            banned_peers: HashMap::new(),
            banned_addresses: HashMap::new(),
            links: 0,
            due: None,
        }
    }

    /// Keeps neighbours for a content from now on.
    pub fn add_content(&mut self, content: ContentKey, complete: bool) {
        self.contents.entry(content).or_default().complete = complete;
    }

    /// The content is whole: complete peers are no longer dialled for it.
    pub fn completed(&mut self, content: ContentKey) {
        if let Some(hood) = self.contents.get_mut(&content) {
            hood.complete = true;
        }
    }

    /// Forgets a content; its links are closed by the shell.
    pub fn remove_content(&mut self, content: ContentKey) {
        if let Some(hood) = self.contents.remove(&content) {
            self.links -= hood.linked;
        }
    }

    /// Hears of a peer, from a tracker or the ring.
    pub fn learn(&mut self, now: Instant, content: ContentKey, candidate: Candidate) {
        if candidate.peer == self.me || self.is_banned(now, candidate.peer, &candidate.address) {
            return;
        }
        let Some(hood) = self.contents.get_mut(&content) else { return };
        if let Some(entry) = hood.entries.get_mut(&candidate.peer) {
            entry.complete |= candidate.complete;
            if entry.address != candidate.address {
                entry.address = candidate.address;
                entry.failures = 0;
            }
            return;
        }
        if hood.entries.len() < self.settings.max_candidates {
            self.due = Some(now);
            let state = State::Waiting(now);
            let Candidate { peer, address, complete } = candidate;
            hood.entries.insert(peer, Entry { address, complete, failures: 0, state });
        }
    }

    /// The peers to dial now, in random order; they count as being dialled from here on.
    pub fn dials(&mut self, now: Instant, rng: &mut impl Rng) -> Vec<(ContentKey, Candidate)> {
        if self.due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        let mut dials = Vec::new();
        for (content, hood) in &mut self.contents {
            let room = hood
                .room(&self.settings)
                .min(self.settings.max_links.saturating_sub(self.links + dials.len()));
            if room == 0 {
                continue;
            }
            let mut ready: Vec<_> = hood
                .entries
                .iter()
                .filter(|(_, entry)| hood.is_due(entry, now))
                .map(|(p, _)| *p)
                .collect();
            ready.shuffle(rng);
            ready.truncate(room);
            for peer in ready {
                let entry = hood.entries.get_mut(&peer).expect("chosen from this map");
                entry.state = State::Dialling;
                hood.dialling += 1;
                let (address, complete) = (entry.address.clone(), entry.complete);
                dials.push((*content, Candidate { peer, address, complete }));
            }
        }
        self.due = self.earliest();
        dials
    }

    /// When [`Roster::dials`] may have more to say without being told anything.
    pub const fn next_deadline(&self) -> Option<Instant> {
        self.due
    }

    fn earliest(&self) -> Option<Instant> {
        let due = |hood: &Neighbourhood| {
            let waiting = hood.entries.values().filter_map(|entry| match entry.state {
                State::Waiting(until) if !(hood.complete && entry.complete) => Some(until),
                _ => None,
            });
            if hood.room(&self.settings) == 0 { None } else { waiting.min() }
        };
        if self.links >= self.settings.max_links {
            return None;
        }
        self.contents.values().filter_map(due).min()
    }

    /// A dial came to nothing; no link was made.
    pub fn dial_failed(
        &mut self,
        now: Instant,
        content: ContentKey,
        peer: PeerId,
        rng: &mut impl Rng,
    ) {
        let Some(hood) = self.contents.get_mut(&content) else { return };
        let Some(entry) = hood.entries.get_mut(&peer) else { return };
        if entry.state != State::Dialling {
            return;
        }
        self.due = Some(now);
        hood.dialling -= 1;
        entry.failures += 1;
        if entry.failures >= self.settings.max_failures {
            hood.entries.remove(&peer);
            return;
        }
        let doubled = self.settings.first_backoff * 2_u32.pow(entry.failures.min(16) - 1);
        let backoff = doubled.min(self.settings.max_backoff);
        entry.state = State::Waiting(now + backoff.mul_f64(rng.random_range(0.5..1.0)));
    }

    /// Whether a link that came up stays.
    ///
    /// Of two links between the same peers, dialled by either, the one that the peer with the
    /// smaller id dialled stays, so both ends keep the same. Of two dialled by the same peer the
    /// newer stays: the older is dead, or its end would not have been dialled again.
    pub fn admit(
        &mut self,
        now: Instant,
        content: ContentKey,
        candidate: Candidate,
        direction: Direction,
    ) -> Admission {
        if candidate.peer == self.me {
            return Admission::Refuse(Refusal::Myself);
        }
        if self.is_banned(now, candidate.peer, &candidate.address) {
            return Admission::Refuse(Refusal::Banned);
        }
        let me = self.me;
        self.due = Some(now);
        let Some(hood) = self.contents.get_mut(&content) else {
            return Admission::Refuse(Refusal::NoContent);
        };
        let Candidate { peer, address, complete } = candidate;
        let before = hood.entries.get(&peer).map(|entry| entry.state);
        if let Some(State::Linked(there)) = before {
            let ours_stays = me < peer;
            let stays = direction == there || (direction == Direction::Outbound) == ours_stays;
            if !stays {
                return Admission::Refuse(Refusal::Duplicate);
            }
            hood.entries.insert(
                peer,
                Entry { address, complete, failures: 0, state: State::Linked(direction) },
            );
            return Admission::Replace;
        }
        if hood.linked >= self.settings.max_neighbours || self.links >= self.settings.max_links {
            if direction == Direction::Outbound {
                hood.stop_dialling(peer, now + self.settings.max_backoff);
            }
            return Admission::Refuse(Refusal::Full);
        }
        if before == Some(State::Dialling) {
            hood.dialling -= 1;
        }
        hood.linked += 1;
        self.links += 1;
        hood.entries.insert(
            peer,
            Entry { address, complete, failures: 0, state: State::Linked(direction) },
        );
        Admission::Keep
    }

    /// A link that was kept, and not replaced, is gone. The peer may be dialled again in a while.
    pub fn link_down(&mut self, now: Instant, content: ContentKey, peer: PeerId) {
        let Some(hood) = self.contents.get_mut(&content) else { return };
        let Some(entry) = hood.entries.get_mut(&peer) else { return };
        if let State::Linked(_) = entry.state {
            entry.state = State::Waiting(now + self.settings.first_backoff);
            self.due = Some(now);
            hood.linked -= 1;
            self.links -= 1;
        }
    }

    /// Bans a peer by its id and address. The shell closes its links.
    pub fn ban(&mut self, now: Instant, peer: PeerId, address: String) {
        let until = now + self.settings.ban;
        self.banned_peers.retain(|_, until| *until > now);
        self.banned_addresses.retain(|_, until| *until > now);
        self.banned_peers.insert(peer, until);
        self.banned_addresses.insert(address, until);
    }

    /// Whether a peer is banned, or the address it can be dialled at.
    pub fn is_banned(&self, now: Instant, peer: PeerId, address: &str) -> bool {
        let lasts = |until: Option<&Instant>| until.is_some_and(|until| *until > now);
        lasts(self.banned_peers.get(&peer)) || lasts(self.banned_addresses.get(address))
    }

    /// Links of a content.
    pub fn neighbours(&self, content: ContentKey) -> usize {
        self.contents.get(&content).map_or(0, |hood| hood.linked)
    }
}

impl Neighbourhood {
    /// How many more may be dialled at once.
    fn room(&self, settings: &RosterSettings) -> usize {
        let wanted = settings.dial_until.saturating_sub(self.linked + self.dialling);
        wanted.min(settings.max_dials.saturating_sub(self.dialling))
    }

    fn is_due(&self, entry: &Entry, now: Instant) -> bool {
        let useless = self.complete && entry.complete;
        !useless && matches!(entry.state, State::Waiting(until) if until <= now)
    }

    fn stop_dialling(&mut self, peer: PeerId, until: Instant) {
        if let Some(entry) = self.entries.get_mut(&peer)
            && entry.state == State::Dialling
        {
            entry.state = State::Waiting(until);
            self.dialling -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};
    use uuid::Uuid;

    use super::*;

    const CONTENT: ContentKey = ContentKey(1);

    struct Fixture {
        roster: Roster,
        now: Instant,
        rng: StdRng,
    }

    fn peer(number: u128) -> PeerId {
        PeerId::new(Uuid::from_u128(number))
    }

    fn candidate(number: u128) -> Candidate {
        Candidate { peer: peer(number), address: format!("host{number}:7072"), complete: false }
    }

    /// The roster of peer 100 after hearing of `known`.
    fn fixture(known: impl IntoIterator<Item = u128>) -> Fixture {
        // A base for virtual time: nothing depends on its value.
        #[allow(clippy::disallowed_methods)]
        let now = Instant::now();
        let mut roster = Roster::new(RosterSettings::default(), peer(100));
        roster.add_content(CONTENT, false);
        for number in known {
            roster.learn(now, CONTENT, candidate(number));
        }
        Fixture { roster, now, rng: StdRng::seed_from_u64(7) }
    }

    impl Fixture {
        fn dialled(&mut self) -> Vec<PeerId> {
            self.roster.dials(self.now, &mut self.rng).into_iter().map(|(_, c)| c.peer).collect()
        }

        fn admit(&mut self, number: u128, direction: Direction) -> Admission {
            self.roster.admit(self.now, CONTENT, candidate(number), direction)
        }
    }

    #[test]
    fn it_dials_until_there_are_enough_neighbours_and_leaves_doors_open() {
        let mut f = fixture(0..90);
        let first = f.dialled();
        assert_eq!(first.len(), 16);
        for peer in &first {
            let c = Candidate { peer: *peer, address: String::new(), complete: false };
            assert_eq!(f.roster.admit(f.now, CONTENT, c, Direction::Outbound), Admission::Keep);
        }
        assert_eq!(f.dialled().len(), 14);
        assert!(f.dialled().is_empty());
        for number in 200..234 {
            assert_eq!(f.admit(number, Direction::Inbound), Admission::Keep);
        }
        assert_eq!(f.admit(300, Direction::Inbound), Admission::Refuse(Refusal::Full));
        assert_eq!(f.roster.neighbours(CONTENT), 50);
    }

    #[test]
    fn a_peer_that_cannot_be_reached_is_dialled_ever_more_rarely_and_then_forgotten() {
        let mut f = fixture([1]);
        let mut waits = Vec::new();
        while !f.dialled().is_empty() {
            f.roster.dial_failed(f.now, CONTENT, peer(1), &mut f.rng);
            assert!(f.dialled().is_empty(), "too early");
            let Some(at) = f.roster.next_deadline() else { break };
            waits.push(at - f.now);
            f.now = at;
        }
        assert_eq!(waits.len(), 7);
        assert_eq!(f.roster.next_deadline(), None);
        assert!(waits[6] > 8 * waits[0], "{waits:?}");
        f.roster.learn(f.now, CONTENT, candidate(1));
        assert_eq!(f.dialled(), [peer(1)]);
    }

    #[test]
    fn of_two_crossed_links_both_ends_keep_the_one_of_the_smaller_id() {
        let mut smaller_is_them = fixture([1]);
        assert_eq!(smaller_is_them.admit(1, Direction::Outbound), Admission::Keep);
        assert_eq!(smaller_is_them.admit(1, Direction::Inbound), Admission::Replace);
        assert_eq!(
            smaller_is_them.admit(1, Direction::Outbound),
            Admission::Refuse(Refusal::Duplicate)
        );
        let mut smaller_is_me = fixture([200]);
        assert_eq!(smaller_is_me.admit(200, Direction::Outbound), Admission::Keep);
        assert_eq!(
            smaller_is_me.admit(200, Direction::Inbound),
            Admission::Refuse(Refusal::Duplicate)
        );
        assert_eq!(smaller_is_me.roster.neighbours(CONTENT), 1);
    }

    #[test]
    fn a_neighbour_that_comes_back_takes_its_old_place() {
        let mut f = fixture([]);
        assert_eq!(f.admit(1, Direction::Inbound), Admission::Keep);
        assert_eq!(f.admit(1, Direction::Inbound), Admission::Replace);
        f.roster.link_down(f.now, CONTENT, peer(1));
        assert_eq!(f.roster.neighbours(CONTENT), 0);
        assert_eq!(f.admit(1, Direction::Inbound), Admission::Keep);
    }

    #[test]
    fn a_banned_peer_is_neither_dialled_nor_let_in_for_an_hour() {
        let mut f = fixture([]);
        f.roster.ban(f.now, peer(1), "host1:7072".to_owned());
        f.roster.learn(f.now, CONTENT, candidate(1));
        assert!(f.dialled().is_empty());
        assert_eq!(f.admit(1, Direction::Inbound), Admission::Refuse(Refusal::Banned));
        let same_address = Candidate { peer: peer(2), ..candidate(1) };
        assert_eq!(
            f.roster.admit(f.now, CONTENT, same_address, Direction::Inbound),
            Admission::Refuse(Refusal::Banned)
        );
        f.now += Duration::from_secs(3601);
        assert_eq!(f.admit(1, Direction::Inbound), Admission::Keep);
    }

    #[test]
    fn a_complete_peer_does_not_dial_a_complete_one() {
        let mut f = fixture([]);
        f.roster.learn(f.now, CONTENT, Candidate { complete: true, ..candidate(1) });
        f.roster.learn(f.now, CONTENT, candidate(2));
        f.roster.completed(CONTENT);
        assert_eq!(f.dialled(), [peer(2)]);
    }

    #[test]
    fn it_never_links_to_itself() {
        let mut f = fixture([100]);
        assert!(f.dialled().is_empty());
        assert_eq!(f.admit(100, Direction::Inbound), Admission::Refuse(Refusal::Myself));
    }
}
