//! One content: what is held, what is wanted, what is under way.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use rand::Rng;

use super::{
    event::{FetchKey, LinkKey, Priority},
    neighbour::Neighbour,
    pending::Pending,
    picker::{Order, Picker},
    status::Totals,
};
use crate::content::{Bitfield, BlockRange, Layout, PieceIndex};

/// A content and its pieces. A piece is held, skipped, open (in the picker), or pending.
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
    orphans: BTreeSet<PieceIndex>,
    /// Pieces that failed their hash: fetched from one source, so that it can be told who lies.
    pub(super) distrusted: BTreeSet<PieceIndex>,
    /// Pieces wanted and not held.
    missing: u32,
    /// How many times pieces became askable again.
    pub(super) reopened: u64,
    pub(super) links: BTreeSet<LinkKey>,
    /// Pieces stored since HAVEs were last sent, and when they will be.
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

    /// Nothing is left to fetch, so neighbours have nothing to reciprocate with.
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

    /// The pieces are fetched in their order.
    pub(super) fn is_sequential(&self) -> bool {
        self.order == Order::Sequential
    }

    /// Every piece wanted is under way.
    pub(super) fn is_in_endgame(&self) -> bool {
        !self.is_seeding() && self.orphans.is_empty() && self.picker.open_count() == 0
    }

    /// Changes how much a piece is wanted; true if it is now wanted or no longer is.
    pub(super) fn prioritise(&mut self, piece: PieceIndex, priority: Priority) -> bool {
        let before = self.wants(piece);
        self.picker.set_priority(piece, priority);
        let after = self.wants(piece);
        match (before, after) {
            (false, true) => self.missing += 1,
            (true, false) => self.missing -= 1,
            _ => {}
        }
        self.reopened += 1;
        before != after
    }

    /// What to ask this neighbour for next: the rest of a piece begun, a piece it suggested, or the
    /// first by the picker. The piece is begun by that.
    pub(super) fn next_ranges(
        &mut self,
        neighbour: &mut Neighbour,
        random_first: u32,
        rng: &mut impl Rng,
    ) -> Option<Vec<BlockRange>> {
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
        let whole = self.layout.whole(piece);
        self.picker.close(piece);
        self.pending.insert(piece, Pending::new(whole));
        Some(vec![whole])
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

    /// A fetch will bring no more of a piece; true if the piece may be asked for again.
    pub(super) fn lose_source(&mut self, piece: PieceIndex, fetch: FetchKey) -> bool {
        let Some(pending) = self.pending.get_mut(&piece) else { return false };
        pending.sources.retain(|source| *source != fetch);
        if !pending.sources.is_empty() || pending.is_complete() {
            return false;
        }
        let starts_over = pending.is_untouched() || self.distrusted.contains(&piece);
        if starts_over || !self.wants(piece) {
            self.reopen(piece);
        } else {
            self.orphans.insert(piece);
        }
        true
    }

    /// A piece goes back among those to be picked.
    pub(super) fn reopen(&mut self, piece: PieceIndex) {
        self.pending.remove(&piece);
        self.orphans.remove(&piece);
        self.picker.open(piece);
        self.reopened += 1;
    }

    /// A piece is verified and kept; true if it is news.
    pub(super) fn store(&mut self, piece: PieceIndex) -> bool {
        let wanted = self.wants(piece);
        if !self.held.insert(piece) {
            return false;
        }
        self.pending.remove(&piece);
        self.orphans.remove(&piece);
        self.distrusted.remove(&piece);
        self.picker.close(piece);
        self.missing -= u32::from(wanted);
        true
    }

    /// Fills the picker anew after fetching ended or began again: a leecher picks what it lacks, a
    /// seeder what to suggest.
    pub(super) fn retarget(&mut self) {
        for piece in self.layout.pieces() {
            let picks_held = self.missing == 0;
            if self.held.has(piece) == picks_held && !self.pending.contains_key(&piece) {
                self.picker.open(piece);
            } else {
                self.picker.close(piece);
            }
        }
        self.reopened += 1;
    }

    /// It was not said within `interval` that neighbours are missing; now it is.
    pub(super) fn starving_since_said(&mut self, now: Instant, interval: Duration) -> bool {
        let is_due = self.starved_at.is_none_or(|at| now >= at + interval);
        if is_due {
            self.starved_at = Some(now);
        }
        is_due
    }

    /// Pieces wanted of which no neighbour has a copy.
    pub(super) fn unavailable(&self) -> u32 {
        self.wanted_pieces().filter(|piece| self.picker.copies(*piece) == 0).count() as u32
    }

    /// Copies of the rarest piece wanted.
    pub(super) fn rarest(&self) -> Option<u32> {
        self.wanted_pieces().map(|piece| self.picker.copies(piece)).min()
    }

    fn wanted_pieces(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        self.layout.pieces().filter(|piece| self.wants(*piece))
    }
}
