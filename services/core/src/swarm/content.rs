//! One content: held, wanted and pending pieces.
//!
//! A piece is in exactly one [`PieceState`], which only this state machine changes:
//!
//! | from | when | to |
//! |---|---|---|
//! | skipped, open | it becomes wanted, or unwanted | open, skipped |
//! | open | the picker picks it for a neighbour | asked, in a new attempt |
//! | asked | its last byte arrives | whole |
//! | asked | its last fetch ends, and some bytes have arrived | orphaned |
//! | asked | the same, but no byte has arrived, or it is distrusted or skipped | open, skipped |
//! | orphaned | a neighbour that holds it can be asked | asked, in the same attempt |
//! | orphaned | it becomes unwanted | skipped |
//! | asked, orphaned, whole | its attempt fails the hash | open, skipped; maybe distrusted |
//! | any | the store has verified and written it | held |
//!
//! The store follows instructions: each fetch names an attempt, and a block of any but the newest
//! one is dropped. So bytes of two attempts are never mixed, and only the store knows whose bytes
//! were hashed. It may be ahead of the state machine by the events in flight: it can store or
//! refuse an attempt that has just been given up.
//!
//! A *distrusted* piece failed with bytes of several neighbours. Each further attempt uses one
//! neighbour alone, and ends with its fetch.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use rand::Rng;

use super::{
    interface::{Attempt, FetchKey, FetchRange, LinkKey, PieceState, Priority, Totals},
    neighbour::Neighbour,
    pending::{Attempts, Pending},
    picker::{Order, Picker},
};
use crate::content::{Bitfield, Layout, PieceIndex};

/// A content and its pieces.
///
/// Invariant: a piece is held, or pending, or open to the picker, or skipped. Of the pending ones,
/// the orphans have no source and lack bytes.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) layout: Layout,
    pub(super) held: Bitfield,
    order: Order,
    pub(super) super_seeding: bool,
    pub(super) totals: Totals,
    pub(super) picker: Picker,
    pub(super) pending: BTreeMap<PieceIndex, Pending>,
    /// Pending pieces that lost their last source.
    pub(super) orphans: BTreeSet<PieceIndex>,
    /// Pieces not held that failed with bytes of several neighbours.
    pub(super) distrusted: BTreeSet<PieceIndex>,
    /// Pieces wanted and not held.
    missing: u32,
    /// The number of these by their number of copies at neighbours that do not hold everything.
    missing_by_copies: Vec<u32>,
    /// How many times pieces became open again.
    pub(super) reopened: u64,
    pub(super) links: BTreeSet<LinkKey>,
    /// Pieces stored since HAVEs were last sent, and when the next are due.
    pub(super) fresh: Vec<PieceIndex>,
    pub(super) haves_at: Option<Instant>,
    pub(super) haves_sent_at: Option<Instant>,
    pub(super) idle_haves_at: Option<Instant>,
    pub(super) starved_at: Option<Instant>,
    /// Bytes granted, by which the uplink is shared among contents.
    pub(super) turn: u64,
}

impl Content {
    pub(super) fn new(layout: Layout, held: Bitfield, order: Order, super_seeding: bool) -> Self {
        let picker = Picker::new(layout.piece_count(), order);
        let missing = layout.piece_count() - held.held();
        let mut content = Self {
            layout,
            held,
            order,
            super_seeding,
            totals: Totals::default(),
            picker,
            pending: BTreeMap::new(),
            orphans: BTreeSet::new(),
            distrusted: BTreeSet::new(),
            missing,
            missing_by_copies: vec![missing],
            reopened: 0,
            links: BTreeSet::new(),
            fresh: Vec::new(),
            haves_at: None,
            haves_sent_at: None,
            idle_haves_at: None,
            starved_at: None,
            turn: 0,
        };
        content.retarget();
        content
    }

    /// Nothing is left to fetch, so neighbours cannot reciprocate.
    pub(super) fn is_seeding(&self) -> bool {
        self.missing == 0
    }

    /// Pieces wanted and not held.
    pub(super) fn missing(&self) -> u32 {
        self.missing
    }

    pub(super) fn wants(&self, piece: PieceIndex) -> bool {
        !self.held.has(piece) && self.picker.priority(piece) != Priority::Skip
    }

    /// The pieces are fetched in order.
    pub(super) fn is_sequential(&self) -> bool {
        self.order == Order::Sequential
    }

    /// Every wanted piece is being fetched.
    pub(super) fn is_in_endgame(&self) -> bool {
        !self.is_seeding() && self.orphans.is_empty() && self.picker.open_count() == 0
    }

    /// Changes the priority of a piece. Returns the attempt at it if it is given up by that.
    pub(super) fn prioritise(&mut self, piece: PieceIndex, priority: Priority) -> Option<Pending> {
        self.recount(piece, |content| content.picker.set_priority(piece, priority));
        self.reopened += 1;
        if self.orphans.contains(&piece) && !self.wants(piece) { self.reopen(piece) } else { None }
    }

    /// One more neighbour holds this piece.
    pub(super) fn gain(&mut self, piece: PieceIndex) {
        self.recount(piece, |content| content.picker.gain(piece));
    }

    /// One neighbour fewer holds this piece.
    pub(super) fn lose(&mut self, piece: PieceIndex) {
        self.recount(piece, |content| content.picker.lose(piece));
    }

    /// Changes what a missing piece is counted by, and counts it again: the status of a content
    /// costs the same for any number of pieces.
    fn recount(&mut self, piece: PieceIndex, change: impl FnOnce(&mut Self)) {
        if self.wants(piece) {
            self.missing -= 1;
            self.missing_by_copies[self.picker.partial_copies(piece) as usize] -= 1;
        }
        change(self);
        if self.wants(piece) {
            self.missing += 1;
            let copies = self.picker.partial_copies(piece) as usize;
            if self.missing_by_copies.len() <= copies {
                self.missing_by_copies.resize(copies + 1, 0);
            }
            self.missing_by_copies[copies] += 1;
        }
    }

    /// What to request from this neighbour next: the rest of a pending piece, a suggested piece, or
    /// the picker's first. An attempt at it begins.
    pub(super) fn next_ranges(
        &mut self,
        neighbour: &mut Neighbour,
        random_first: u32,
        attempts: &mut Attempts,
        rng: &mut impl Rng,
    ) -> Option<Vec<FetchRange>> {
        if let Some(piece) = self.orphans.iter().copied().find(|piece| neighbour.has.has(*piece)) {
            self.orphans.remove(&piece);
            return self.pending.get(&piece).map(Pending::missing);
        }
        if neighbour.down.dry_since == Some(self.reopened) {
            return None;
        }
        let Some(piece) = self.next_piece(neighbour, random_first, rng) else {
            neighbour.down.dry_since = Some(self.reopened);
            return None;
        };
        let (attempt, range) = (attempts.next(), self.layout.whole(piece));
        self.pending.insert(piece, Pending::new(attempt, range));
        self.update_picker(piece);
        Some(vec![FetchRange { attempt, range }])
    }

    fn next_piece(
        &self,
        neighbour: &mut Neighbour,
        random_first: u32,
        rng: &mut impl Rng,
    ) -> Option<PieceIndex> {
        if !self.is_sequential() {
            while let Some(piece) = neighbour.down.suggested.pop_front() {
                if self.picker.is_open(piece)
                    && neighbour.has.has(piece)
                    && self.picker.is_of_top_priority(piece)
                {
                    return Some(piece);
                }
            }
            if self.held.held() < random_first {
                return self.picker.pick_at_random(&neighbour.has, rng);
            }
        }
        self.picker.pick(&neighbour.has, rng)
    }

    /// A fetch will bring no more of an attempt. Returns the attempt if it is given up by that.
    pub(super) fn lose_source(
        &mut self,
        piece: PieceIndex,
        attempt: Attempt,
        fetch: FetchKey,
    ) -> Option<Pending> {
        let pending = self.pending.get_mut(&piece).filter(|of| of.attempt == attempt)?;
        pending.sources.retain(|source| *source != fetch);
        if !pending.sources.is_empty() || pending.is_complete() {
            return None;
        }
        let starts_over = pending.is_untouched() || self.distrusted.contains(&piece);
        if starts_over || !self.wants(piece) {
            return self.reopen(piece);
        }
        self.orphans.insert(piece);
        None
    }

    /// An attempt failed its hash. Returns it, unless it was given up before.
    pub(super) fn fail(&mut self, piece: PieceIndex, attempt: Attempt) -> Option<Pending> {
        self.pending.get(&piece).filter(|pending| pending.attempt == attempt)?;
        self.reopen(piece)
    }

    /// From now on each attempt at a piece uses one neighbour alone.
    pub(super) fn distrust(&mut self, piece: PieceIndex) {
        if !self.held.has(piece) {
            self.distrusted.insert(piece);
        }
    }

    /// Ends the attempt at a piece, which becomes open again.
    fn reopen(&mut self, piece: PieceIndex) -> Option<Pending> {
        let ended = self.pending.remove(&piece)?;
        self.totals.wasted += ended.arrived_bytes;
        self.orphans.remove(&piece);
        self.update_picker(piece);
        self.reopened += 1;
        Some(ended)
    }

    /// A piece was verified and stored; true if it is news.
    pub(super) fn store(&mut self, piece: PieceIndex) -> bool {
        if self.held.has(piece) {
            return false;
        }
        self.recount(piece, |content| {
            content.held.insert(piece);
        });
        self.pending.remove(&piece);
        self.orphans.remove(&piece);
        self.distrusted.remove(&piece);
        self.update_picker(piece);
        true
    }

    /// Fills the picker again after fetching has ended or resumed.
    pub(super) fn retarget(&mut self) {
        for number in 0..self.layout.piece_count() {
            self.update_picker(PieceIndex::new(number));
        }
        self.reopened += 1;
    }

    /// Updates the picker for a piece: a leecher picks what it lacks, a seeder what to suggest. A
    /// piece whose place is not known yet is not picked.
    fn update_picker(&mut self, piece: PieceIndex) {
        let is_known = piece.get() < self.layout.known_pieces();
        if is_known
            && self.held.has(piece) == self.is_seeding()
            && !self.pending.contains_key(&piece)
        {
            self.picker.open(piece);
        } else {
            self.picker.close(piece);
        }
    }

    /// The state of a piece.
    pub(super) fn state(&self, piece: PieceIndex) -> PieceState {
        if self.held.has(piece) {
            return PieceState::Held;
        }
        match self.pending.get(&piece) {
            Some(pending) if pending.is_complete() => PieceState::Whole(pending.attempt),
            Some(pending) if pending.sources.is_empty() => PieceState::Orphaned(pending.attempt),
            Some(pending) => PieceState::Asked(pending.attempt),
            None if self.picker.priority(piece) == Priority::Skip => PieceState::Skipped,
            None => PieceState::Open,
        }
    }

    /// Missing neighbours were not reported within `interval`; now they are.
    pub(super) fn starving_since_said(&mut self, now: Instant, interval: Duration) -> bool {
        let is_due = self.starved_at.is_none_or(|at| now >= at + interval);
        if is_due {
            self.starved_at = Some(now);
        }
        is_due
    }

    /// Wanted pieces of which no neighbour has a copy.
    pub(super) fn unavailable(&self) -> u32 {
        if self.picker.complete() > 0 { 0 } else { self.missing_by_copies[0] }
    }

    /// Copies of the rarest wanted piece.
    pub(super) fn rarest(&self) -> Option<u32> {
        let fewest = self.missing_by_copies.iter().position(|pieces| *pieces > 0)?;
        Some(self.picker.complete() + fewest as u32)
    }
}
