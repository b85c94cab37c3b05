//! Membership: all nodes of the ring, spread by gossip. It is a hint for one-hop lookups, never an
//! authority.
//!
//! Nodes tell each other about changes (rumours), each change a few times; what that misses is
//! found by comparing hashes of parts of the circle, whose entries are then exchanged. Reports
//! about a node are ordered ([`Entry::supersedes`]) and the highest is kept, so that all nodes
//! converge to the same membership, in whatever order they hear. Only the node itself refutes a
//! report of its end.
//!
//! An end is told for a while, because an old report would otherwise revive the node, and then kept
//! silently for as long again: otherwise two nodes that forget at different moments would remind
//! each other forever.
//!
//! Anybody can invent nodes. So the number of nodes that one source introduces is bounded
//! ([`Membership::MAX_OF_SOURCE`]). A node that answers at its address counts for its own host
//! instead, and separately from what that host tells.
//!
//! Invariants: `live` and `pool` hold the live nodes, `ends` the others, `news` the changes to pass
//! on, `introduced` counts the records of each introduction, and `digest` hashes all that is not
//! kept silently.

mod entry;
mod introducer;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use rand::{Rng, RngExt as _};

use super::{Contact, LiveNodes, Position};

pub use entry::{Digest, Entry, Life};
pub use introducer::Introducer;

/// A rumour that is told to this many nodes for each doubling of the ring's size reaches all: SWIM
/// and memberlist use 3 to 4 times log(n).
const TELLINGS: u32 = 3;

/// All nodes that a node has heard of, and whether they are alive.
#[derive(Clone, Debug)]
pub struct Membership {
    me: Position,
    keep_ends: Duration,
    records: BTreeMap<Position, Record>,
    /// The live nodes, and their indexes in `pool`.
    live: BTreeMap<Position, usize>,
    /// The live nodes in no order, to draw from.
    pool: Vec<Position>,
    /// The changes to pass on: those told least often first, and of these the newest.
    news: BTreeSet<(u32, Reverse<u64>, Position)>,
    /// When each end is withdrawn or forgotten.
    ends: BTreeSet<(Instant, Position)>,
    introduced: HashMap<Introduction, usize>,
    digest: Digest,
    /// Counts changes, to order them.
    changes: u64,
    /// The live nodes as last requested, if nothing has changed since.
    live_nodes: Option<LiveNodes>,
}

/// How a node became known, which decides in whose count it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Introduction {
    /// The source that told of it first.
    Told(Introducer),
    /// Its own host, where it has answered.
    Met(Introducer),
}

#[derive(Clone, Debug)]
struct Record {
    entry: Entry,
    introduction: Introduction,
    /// Its key in `news`: how often it was told, and the change that made it news.
    news: Option<(u32, u64)>,
    end: Option<End>,
}

#[derive(Clone, Copy, Debug)]
struct End {
    due: Instant,
    /// It is no longer told.
    silent: bool,
}

impl Record {
    fn is_told(&self) -> bool {
        self.end.is_none_or(|end| !end.silent)
    }
}

impl Membership {
    /// Nodes in the membership, alive or not.
    pub const MAX_ENTRIES: usize = 65_536;
    /// Nodes that one source introduced: a node that joins a ring of 10,000 hears of all of them
    /// from ten others within seconds, and a stranger fills a 64th.
    pub const MAX_OF_SOURCE: usize = 1_024;
    /// Rumours in a message.
    pub const MAX_RUMOURS: usize = 64;
    /// Entries of a message that are read.
    pub const MAX_HEARD: usize = 1_024;

    /// A membership of this node alone. Its incarnation must be higher than any that it used
    /// before: the time of its start. An end is told for `keep_ends`: far longer than gossip needs
    /// to reach all nodes.
    pub fn new(me: Contact, incarnation: u64, keep_ends: Duration, now: Instant) -> Self {
        let mut membership = Self {
            me: me.position,
            keep_ends,
            records: BTreeMap::new(),
            live: BTreeMap::new(),
            pool: Vec::new(),
            news: BTreeSet::new(),
            ends: BTreeSet::new(),
            introduced: HashMap::new(),
            digest: Digest::empty(),
            changes: 0,
            live_nodes: None,
        };
        let here = Introduction::Met(Introducer::of_address(&me.address));
        membership.hear(now, &here, &Entry { contact: me, incarnation, life: Life::Alive });
        membership
    }

    /// Notes what this node has observed of another. Returns whether that is news.
    ///
    /// An answer does not revive a node: its end is told again, so that the node hears of it and
    /// refutes it.
    pub fn observe(&mut self, now: Instant, contact: &Contact, life: Life) -> bool {
        let introduction = Introduction::Met(Introducer::of_address(&contact.address));
        let is_news = self.note(now, &introduction, contact, life);
        if life == Life::Alive {
            self.attribute(contact, introduction);
        }
        is_news
    }

    /// Notes what a node says of itself, as [`Membership::observe`] does, without proof of its
    /// address.
    pub fn claimed(
        &mut self,
        now: Instant,
        source: &Introducer,
        contact: &Contact,
        life: Life,
    ) -> bool {
        self.note(now, &Introduction::Told(source.clone()), contact, life)
    }

    fn note(
        &mut self,
        now: Instant,
        introduction: &Introduction,
        contact: &Contact,
        life: Life,
    ) -> bool {
        if contact.position == self.me {
            return false;
        }
        let Some(record) = self.records.get(&contact.position) else {
            let entry = Entry { contact: contact.clone(), incarnation: 0, life };
            // The end of an unknown node is of no interest.
            return life == Life::Alive && self.hear(now, introduction, &entry);
        };
        if life == Life::Alive {
            if record.end.is_some_and(|end| !end.silent) && record.news.is_none() {
                self.make_news(contact.position);
            }
            return false;
        }
        let entry = Entry { life, ..record.entry.clone() };
        self.hear(now, introduction, &entry)
    }

    /// Takes in the gossip of another node, at most [`Membership::MAX_HEARD`] entries. Returns what
    /// changed, including the refutation of this node's own end.
    pub fn heard(&mut self, now: Instant, source: &Introducer, entries: &[Entry]) -> Vec<Entry> {
        let introduction = Introduction::Told(source.clone());
        let mut changed = Vec::new();
        for entry in entries.iter().take(Self::MAX_HEARD) {
            let position = entry.contact.position;
            let news = if position == self.me {
                self.refute(now, entry)
            } else {
                self.hear(now, &introduction, entry)
            };
            if news {
                changed.extend(self.records.get(&position).map(|record| record.entry.clone()));
            }
        }
        changed
    }

    /// This node leaves: it says so, and no longer refutes anything.
    pub fn leave(&mut self, now: Instant) {
        let Some(own) = self.own().cloned() else { return };
        let incarnation = own.incarnation.saturating_add(1);
        let here = Introduction::Met(Introducer::of_address(&own.contact.address));
        self.hear(now, &here, &Entry { incarnation, life: Life::Left, ..own });
    }

    /// Gossip for the next node: up to `max` changes, at most [`Membership::MAX_RUMOURS`], those
    /// told least often first. Each is told about 3 log2 n times.
    pub fn rumours(&mut self, max: usize) -> Vec<Entry> {
        let doublings = (self.live.len() + 1).next_power_of_two().ilog2();
        let mut told = Vec::new();
        let chosen: Vec<_> = self.news.iter().take(max.min(Self::MAX_RUMOURS)).copied().collect();
        for key in chosen {
            self.news.remove(&key);
            let (times, Reverse(change), position) = key;
            let Some(record) = self.records.get_mut(&position) else { continue };
            told.push(record.entry.clone());
            record.news = (times + 1 < TELLINGS * doublings).then_some((times + 1, change));
            if record.news.is_some() {
                self.news.insert((times + 1, Reverse(change), position));
            }
        }
        told
    }

    /// Hashes of the whole membership, to find out whether that of another node is the same.
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Up to `max` entries of the parts of the circle in which another membership differs. They
    /// begin at a random position, so that what does not fit is told another time.
    pub fn entries_differing(&self, other: &Digest, max: usize, rng: &mut impl Rng) -> Vec<Entry> {
        let mut parts = self.digest.differing(other);
        if parts.is_empty() {
            return Vec::new();
        }
        let turn = rng.random_range(0..parts.len());
        parts.rotate_left(turn);
        let (first, last) = parts[0];
        let from = first.advanced(rng.random_range(0..=first.distance_to(last)));
        // The first part is cut at the random position: its first half comes at the end.
        let ranges =
            [(from, last)].into_iter().chain(parts.into_iter().skip(1)).chain([(first, from)]);
        let records = ranges.flat_map(|(first, last)| self.records.range(first..=last));
        let told = records.map(|(_, record)| record).filter(|record| record.is_told());
        told.map(|record| record.entry.clone()).take(max).collect()
    }

    /// Withdraws and forgets the ends that are due.
    pub fn expire(&mut self, now: Instant) {
        while let Some(&(due, position)) = self.ends.first()
            && due <= now
        {
            let Some(record) = self.records.get_mut(&position) else { return };
            if record.is_told() {
                self.ends.pop_first();
                self.digest.toggle(&record.entry);
                let due = now + self.keep_ends;
                record.end = Some(End { due, silent: true });
                self.ends.insert((due, position));
                self.drop_news(position);
            } else {
                self.remove(position);
            }
        }
    }

    /// The closest live successor of a position.
    pub fn owner_of(&self, position: Position) -> Option<&Contact> {
        let mut around = self.live.range(position..).chain(&self.live);
        around.next().and_then(|(position, _)| self.contact(*position))
    }

    /// The live nodes counterclockwise, beginning with the last one before a position.
    pub fn preceding(&self, position: Position) -> impl Iterator<Item = &Contact> {
        let around = self.live.range(..position).rev().chain(self.live.range(position..).rev());
        around.filter_map(|(position, _)| self.contact(*position))
    }

    /// A random live node other than this one.
    pub fn random(&self, rng: &mut impl Rng) -> Option<&Contact> {
        let (last, others) = self.pool.split_last()?;
        if !self.live.contains_key(&self.me) {
            return self.contact(self.pool[rng.random_range(0..self.pool.len())]);
        }
        // Any node but the last is drawn; if it is this one, the last one replaces it.
        let drawn = *others.get(rng.random_range(0..others.len().max(1)))?;
        self.contact(if drawn == self.me { *last } else { drawn })
    }

    /// All live nodes at this moment, including this one.
    pub fn live_nodes(&mut self) -> LiveNodes {
        let live_nodes = self.live_nodes.take().unwrap_or_else(|| {
            LiveNodes::new(self.live.keys().filter_map(|position| self.contact(*position)).cloned())
        });
        self.live_nodes.insert(live_nodes).clone()
    }

    /// The entry of a position, if there is one, including ends.
    pub fn entry(&self, position: Position) -> Option<&Entry> {
        self.records.get(&position).map(|record| &record.entry)
    }

    /// The nodes that died or left, while that is kept.
    pub fn ends(&self) -> impl Iterator<Item = &Entry> {
        self.ends.iter().filter_map(|(_, position)| self.entry(*position))
    }

    /// The entry of this node.
    pub fn own(&self) -> Option<&Entry> {
        self.entry(self.me)
    }

    /// The number of live nodes, including this one.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// There is no live node: this node has left, and knows no other.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Others report about this node. A report that is wrong, or newer than its own entry, is
    /// replaced by a newer entry of its own.
    fn refute(&mut self, now: Instant, entry: &Entry) -> bool {
        let Some(own) = self.own().cloned() else { return false };
        if own.life != Life::Alive || !entry.supersedes(&own) {
            return false;
        }
        let incarnation = entry.incarnation.saturating_add(1);
        let here = Introduction::Met(Introducer::of_address(&own.contact.address));
        self.hear(now, &here, &Entry { incarnation, ..own })
    }

    /// Keeps an entry if it supersedes the present one, and passes it on.
    fn hear(&mut self, now: Instant, introduction: &Introduction, entry: &Entry) -> bool {
        let position = entry.contact.position;
        let known = self.records.get(&position);
        if known.is_some_and(|known| !entry.supersedes(&known.entry)) {
            return false;
        }
        // Whichever source tells it now, it stays one record.
        let known = known.map(|known| known.introduction.clone());
        if known.is_none() && !(self.has_room_of(introduction) && self.make_room(entry.life)) {
            return false;
        }
        let introduction = known.unwrap_or_else(|| introduction.clone());
        self.remove(position);
        *self.introduced.entry(introduction.clone()).or_default() += 1;
        self.digest.toggle(entry);
        let mut end = None;
        if entry.life == Life::Alive {
            self.live.insert(position, self.pool.len());
            self.pool.push(position);
            self.live_nodes = None;
        } else {
            let due = now + self.keep_ends;
            self.ends.insert((due, position));
            end = Some(End { due, silent: false });
        }
        self.records
            .insert(position, Record { entry: entry.clone(), introduction, news: None, end });
        self.make_news(position);
        true
    }

    /// Whether one more record may have this introduction.
    fn has_room_of(&self, introduction: &Introduction) -> bool {
        self.introduced.get(introduction).is_none_or(|count| *count < Self::MAX_OF_SOURCE)
    }

    /// A node answered at its address: it no longer counts for the source that told of it.
    fn attribute(&mut self, contact: &Contact, introduction: Introduction) {
        let has_room = self.has_room_of(&introduction);
        let Some(record) = self.records.get_mut(&contact.position) else { return };
        if record.entry.contact != *contact || record.introduction == introduction || !has_room {
            return;
        }
        *self.introduced.entry(introduction.clone()).or_default() += 1;
        let before = std::mem::replace(&mut record.introduction, introduction);
        self.discount(&before);
    }

    fn discount(&mut self, introduction: &Introduction) {
        let Some(count) = self.introduced.get_mut(introduction) else { return };
        *count -= 1;
        if *count == 0 {
            self.introduced.remove(introduction);
        }
    }

    /// Whether one more fits; the end that is forgotten next makes room for a live node.
    fn make_room(&mut self, life: Life) -> bool {
        if self.records.len() < Self::MAX_ENTRIES {
            return true;
        }
        match self.ends.first() {
            Some(&(_, position)) if life == Life::Alive => {
                self.remove(position);
                true
            }
            _ => false,
        }
    }

    fn make_news(&mut self, position: Position) {
        self.drop_news(position);
        self.changes += 1;
        if let Some(record) = self.records.get_mut(&position) {
            record.news = Some((0, self.changes));
            self.news.insert((0, Reverse(self.changes), position));
        }
    }

    fn drop_news(&mut self, position: Position) {
        let news = self.records.get_mut(&position).and_then(|record| record.news.take());
        if let Some((times, change)) = news {
            self.news.remove(&(times, Reverse(change), position));
        }
    }

    /// Removes a position everywhere.
    fn remove(&mut self, position: Position) {
        self.drop_news(position);
        let Some(record) = self.records.remove(&position) else { return };
        self.discount(&record.introduction);
        if record.is_told() {
            self.digest.toggle(&record.entry);
        }
        if let Some(end) = record.end {
            self.ends.remove(&(end.due, position));
        }
        if let Some(index) = self.live.remove(&position) {
            self.pool.swap_remove(index);
            if let Some(moved) = self.pool.get(index) {
                self.live.insert(*moved, index);
            }
            self.live_nodes = None;
        }
    }

    fn contact(&self, position: Position) -> Option<&Contact> {
        self.records.get(&position).map(|record| &record.entry.contact)
    }
}

#[cfg(test)]
mod tests;
