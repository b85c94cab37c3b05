//! Everybody in the ring, spread by gossip: a hint for lookups in one hop, never an authority.
//!
//! Nodes tell each other what changed (rumours), each change a few times; what that misses is found
//! by comparing hashes of parts of the circle and exchanged whole. Reports of a node are ordered
//! ([`Entry::supersedes`]) and the highest is kept, so that all rolls come to say the same, in
//! whatever order they hear it. Only a node itself refutes a report of its end.
//!
//! An end is told for a while, or an old report would bring the node back, and then remembered in
//! silence for as long again: two nodes that forget at different moments would else remind each other
//! for ever.
//!
//! Anybody may tell of nodes that do not exist. So what one source introduces is bounded
//! ([`Roll::MAX_OF_SOURCE`]). A node that answers where it is said to be counts for its own host instead,
//! and apart from what that host tells.
//!
//! Invariants: `order` and `pool` hold the living, `ends` the others, `news` what is to be passed on,
//! `introduced` counts the records of each origin, and `digest` hashes all that is not remembered in
//! silence.

mod entry;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use rand::{Rng, RngExt as _};

use super::{Census, Contact, Position, Source};

pub use entry::{Digest, Entry, Life};

/// Told to so many others for each doubling of the ring's size, a rumour reaches all: SWIM and
/// memberlist pass it on 3 to 4 times log(n).
const TELLINGS: u32 = 3;

/// Everybody that a node heard of, and whether they live.
#[derive(Clone, Debug)]
pub struct Roll {
    me: Position,
    keep_ends: Duration,
    records: BTreeMap<Position, Record>,
    /// The living, and where they stand in `pool`.
    order: BTreeMap<Position, usize>,
    /// The living in no order, to draw from.
    pool: Vec<Position>,
    /// What to pass on: what was told least first, and of that the newest.
    news: BTreeSet<(u32, Reverse<u64>, Position)>,
    /// When each end is withdrawn or forgotten.
    ends: BTreeSet<(Instant, Position)>,
    introduced: HashMap<Origin, usize>,
    digest: Digest,
    /// Counts changes, to tell newer from older.
    changes: u64,
    /// The living as last asked for, if nothing changed since.
    census: Option<Census>,
}

/// Whom a record counts for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Origin {
    /// The one who told of it first.
    Told(Source),
    /// Its own host, where it has answered.
    Met(Source),
}

#[derive(Clone, Debug)]
struct Record {
    entry: Entry,
    origin: Origin,
    /// Its place in `news`: how often it was told, and the change that made it news.
    news: Option<(u32, u64)>,
    end: Option<End>,
}

#[derive(Clone, Copy, Debug)]
struct End {
    due: Instant,
    /// Nobody is told any more.
    silent: bool,
}

impl Record {
    fn is_told(&self) -> bool {
        self.end.is_none_or(|end| !end.silent)
    }
}

impl Roll {
    /// Nodes that a roll holds, the living and the others.
    pub const MAX_ENTRIES: usize = 65_536;
    /// Of them, those that one source introduced: a node that joins a ring of 10,000 hears of all from
    /// ten others within seconds, and a stranger fills a 64th.
    pub const MAX_OF_SOURCE: usize = 1_024;
    /// Rumours in a message.
    pub const MAX_RUMOURS: usize = 64;
    /// Entries of a message that are looked at.
    pub const MAX_HEARD: usize = 1_024;

    /// A roll that holds this node alone. Its incarnation is to be higher than any that it used
    /// before: the time at which it started. An end is told for `keep_ends`: far longer than gossip
    /// needs to reach everybody.
    pub fn new(me: Contact, incarnation: u64, keep_ends: Duration, now: Instant) -> Self {
        let mut roll = Self {
            me: me.position,
            keep_ends,
            records: BTreeMap::new(),
            order: BTreeMap::new(),
            pool: Vec::new(),
            news: BTreeSet::new(),
            ends: BTreeSet::new(),
            introduced: HashMap::new(),
            digest: Digest::empty(),
            changes: 0,
            census: None,
        };
        let here = Origin::Met(Source::of_address(&me.address));
        roll.hear(now, &here, &Entry { contact: me, incarnation, life: Life::Alive });
        roll
    }

    /// Notes what this node found out by itself of another. Returns whether that is news.
    ///
    /// That a node answers does not bring it back: its end is told anew, so that it hears of it and
    /// refutes it.
    pub fn observe(&mut self, now: Instant, contact: &Contact, life: Life) -> bool {
        let origin = Origin::Met(Source::of_address(&contact.address));
        let is_news = self.note(now, &origin, contact, life);
        if life == Life::Alive {
            self.attribute(contact, origin);
        }
        is_news
    }

    /// Notes what a node says of itself, as in [`Roll::observe`], without proof that it is where it says.
    pub fn claimed(
        &mut self,
        now: Instant,
        source: &Source,
        contact: &Contact,
        life: Life,
    ) -> bool {
        self.note(now, &Origin::Told(source.clone()), contact, life)
    }

    fn note(&mut self, now: Instant, origin: &Origin, contact: &Contact, life: Life) -> bool {
        if contact.position == self.me {
            return false;
        }
        let Some(record) = self.records.get(&contact.position) else {
            let entry = Entry { contact: contact.clone(), incarnation: 0, life };
            // Of a node that nobody spoke of, nobody needs to hear that it is gone.
            return life == Life::Alive && self.hear(now, origin, &entry);
        };
        if life == Life::Alive {
            if record.end.is_some_and(|end| !end.silent) && record.news.is_none() {
                self.make_news(contact.position);
            }
            return false;
        }
        let entry = Entry { life, ..record.entry.clone() };
        self.hear(now, origin, &entry)
    }

    /// Takes in what another node tells, [`Roll::MAX_HEARD`] entries at most. Returns what changed,
    /// the refutation of this node's own end included.
    pub fn heard(&mut self, now: Instant, source: &Source, entries: &[Entry]) -> Vec<Entry> {
        let origin = Origin::Told(source.clone());
        let mut changed = Vec::new();
        for entry in entries.iter().take(Self::MAX_HEARD) {
            let position = entry.contact.position;
            let news = if position == self.me {
                self.refute(now, entry)
            } else {
                self.hear(now, &origin, entry)
            };
            if news {
                changed.extend(self.records.get(&position).map(|record| record.entry.clone()));
            }
        }
        changed
    }

    /// This node goes: it says so, and refutes nothing any more.
    pub fn leave(&mut self, now: Instant) {
        let Some(own) = self.own().cloned() else { return };
        let incarnation = own.incarnation.saturating_add(1);
        let here = Origin::Met(Source::of_address(&own.contact.address));
        self.hear(now, &here, &Entry { incarnation, life: Life::Left, ..own });
    }

    /// What to tell the next node: up to `max` changes, and at most [`Roll::MAX_RUMOURS`], those told
    /// least first. Each is told about 3 log2 n times.
    pub fn rumours(&mut self, max: usize) -> Vec<Entry> {
        let doublings = (self.order.len() + 1).next_power_of_two().ilog2();
        let mut told = Vec::new();
        let chosen: Vec<_> = self.news.iter().take(max.min(Self::MAX_RUMOURS)).copied().collect();
        for place in chosen {
            self.news.remove(&place);
            let (times, Reverse(change), position) = place;
            let Some(record) = self.records.get_mut(&position) else { continue };
            told.push(record.entry.clone());
            record.news = (times + 1 < TELLINGS * doublings).then_some((times + 1, change));
            if record.news.is_some() {
                self.news.insert((times + 1, Reverse(change), position));
            }
        }
        told
    }

    /// Hashes of all it says, to find out whether another roll says the same.
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Up to `max` entries of those parts of the circle in which another roll differs. They begin at
    /// a random place, so that what does not fit is told some other time.
    pub fn entries_differing(&self, other: &Digest, max: usize, rng: &mut impl Rng) -> Vec<Entry> {
        let mut parts = self.digest.differing(other);
        if parts.is_empty() {
            return Vec::new();
        }
        let turn = rng.random_range(0..parts.len());
        parts.rotate_left(turn);
        let (first, last) = parts[0];
        let from = first.advanced(rng.random_range(0..=first.distance_to(last)));
        // The part that it begins within comes again at the end; its first half is left for there.
        let ranges =
            [(from, last)].into_iter().chain(parts.into_iter().skip(1)).chain([(first, from)]);
        let records = ranges.flat_map(|(first, last)| self.records.range(first..=last));
        let told = records.map(|(_, record)| record).filter(|record| record.is_told());
        told.map(|record| record.entry.clone()).take(max).collect()
    }

    /// Withdraws and forgets the ends whose time has come.
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

    /// The closest successor of a position among the living.
    pub fn owner_of(&self, position: Position) -> Option<&Contact> {
        let mut around = self.order.range(position..).chain(&self.order);
        around.next().and_then(|(position, _)| self.contact(*position))
    }

    /// The living counterclockwise, beginning with the last before a position.
    pub fn preceding(&self, position: Position) -> impl Iterator<Item = &Contact> {
        let around = self.order.range(..position).rev().chain(self.order.range(position..).rev());
        around.filter_map(|(position, _)| self.contact(*position))
    }

    /// One of the living at random, but not this node.
    pub fn random(&self, rng: &mut impl Rng) -> Option<&Contact> {
        let (last, others) = self.pool.split_last()?;
        if !self.order.contains_key(&self.me) {
            return self.contact(self.pool[rng.random_range(0..self.pool.len())]);
        }
        // Each place but the last is drawn; where this node stands the last takes its place.
        let drawn = *others.get(rng.random_range(0..others.len().max(1)))?;
        self.contact(if drawn == self.me { *last } else { drawn })
    }

    /// All the living at this moment, this node among them.
    pub fn census(&mut self) -> Census {
        let census = self.census.take().unwrap_or_else(|| {
            Census::new(self.order.keys().filter_map(|position| self.contact(*position)).cloned())
        });
        self.census.insert(census).clone()
    }

    /// What it says of a position, if anything, remembered ends included.
    pub fn entry(&self, position: Position) -> Option<&Entry> {
        self.records.get(&position).map(|record| &record.entry)
    }

    /// Those that died or left, for as long as that is remembered.
    pub fn ends(&self) -> impl Iterator<Item = &Entry> {
        self.ends.iter().filter_map(|(_, position)| self.entry(*position))
    }

    /// What this node says of itself.
    pub fn own(&self) -> Option<&Entry> {
        self.entry(self.me)
    }

    /// How many live, this node included.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Nobody lives: this node left, and knows no other.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Others speak of this node. What is wrong, or newer than what it says itself, gives way to what
    /// it says from now on.
    fn refute(&mut self, now: Instant, entry: &Entry) -> bool {
        let Some(own) = self.own().cloned() else { return false };
        if own.life != Life::Alive || !entry.supersedes(&own) {
            return false;
        }
        let incarnation = entry.incarnation.saturating_add(1);
        let here = Origin::Met(Source::of_address(&own.contact.address));
        self.hear(now, &here, &Entry { incarnation, ..own })
    }

    /// Keeps an entry if it supersedes what there is, and passes it on.
    fn hear(&mut self, now: Instant, origin: &Origin, entry: &Entry) -> bool {
        let position = entry.contact.position;
        let known = self.records.get(&position);
        if known.is_some_and(|known| !entry.supersedes(&known.entry)) {
            return false;
        }
        // Whoever tells of it now, it is one record still.
        let known = known.map(|known| known.origin.clone());
        if known.is_none() && !(self.has_room_of(origin) && self.make_room(entry.life)) {
            return false;
        }
        let origin = known.unwrap_or_else(|| origin.clone());
        self.remove(position);
        *self.introduced.entry(origin.clone()).or_default() += 1;
        self.digest.toggle(entry);
        let mut end = None;
        if entry.life == Life::Alive {
            self.order.insert(position, self.pool.len());
            self.pool.push(position);
            self.census = None;
        } else {
            let due = now + self.keep_ends;
            self.ends.insert((due, position));
            end = Some(End { due, silent: false });
        }
        self.records.insert(position, Record { entry: entry.clone(), origin, news: None, end });
        self.make_news(position);
        true
    }

    /// Whether one more may count for an origin.
    fn has_room_of(&self, origin: &Origin) -> bool {
        self.introduced.get(origin).is_none_or(|count| *count < Self::MAX_OF_SOURCE)
    }

    /// A node answered where it is said to be: it counts no longer for the one who told of it.
    fn attribute(&mut self, contact: &Contact, origin: Origin) {
        let has_room = self.has_room_of(&origin);
        let Some(record) = self.records.get_mut(&contact.position) else { return };
        if record.entry.contact != *contact || record.origin == origin || !has_room {
            return;
        }
        *self.introduced.entry(origin.clone()).or_default() += 1;
        let before = std::mem::replace(&mut record.origin, origin);
        self.discount(&before);
    }

    fn discount(&mut self, origin: &Origin) {
        let Some(count) = self.introduced.get_mut(origin) else { return };
        *count -= 1;
        if *count == 0 {
            self.introduced.remove(origin);
        }
    }

    /// Whether one more fits; the end that was to be forgotten first gives way to a living node.
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

    /// Takes a position out of everything.
    fn remove(&mut self, position: Position) {
        self.drop_news(position);
        let Some(record) = self.records.remove(&position) else { return };
        self.discount(&record.origin);
        if record.is_told() {
            self.digest.toggle(&record.entry);
        }
        if let Some(end) = record.end {
            self.ends.remove(&(end.due, position));
        }
        if let Some(place) = self.order.remove(&position) {
            self.pool.swap_remove(place);
            if let Some(moved) = self.pool.get(place) {
                self.order.insert(*moved, place);
            }
            self.census = None;
        }
    }

    fn contact(&self, position: Position) -> Option<&Contact> {
        self.records.get(&position).map(|record| &record.entry.contact)
    }
}

#[cfg(test)]
mod tests;
