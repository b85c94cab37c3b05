//! Contents and their pieces: added, wanted, stored, corrupt.

use std::time::Instant;

use super::{
    Swarm,
    content::Content,
    interface::{Attempt, BanReason, ContentKey, LinkKey, Output, Priority},
    pending::Pending,
    picker::Order,
};
use crate::content::{Bitfield, Layout, PieceIndex};

impl Swarm {
    pub(super) fn on_add_content(
        &mut self,
        content: ContentKey,
        layout: Layout,
        held: Bitfield,
        sequential: bool,
        super_seeding: bool,
    ) {
        if self.contents.contains_key(&content) {
            return;
        }
        let order = if sequential { Order::Sequential } else { Order::RarestFirst };
        let mut state = Content::new(layout, held, order, super_seeding);
        // Level with the others, or it would have the uplink to itself.
        state.turn = self.contents.values().map(|content| content.turn).min().unwrap_or(0);
        if state.is_seeding() {
            self.outputs.push(Output::Completed { content });
        }
        self.contents.insert(content, state);
    }

    pub(super) fn on_layout_known(&mut self, now: Instant, content: ContentKey, layout: Layout) {
        let Some(state) = self.contents.get_mut(&content) else { return };
        if layout.piece_count() == state.layout.piece_count() {
            state.layout = layout;
            state.retarget();
            self.refill_all(now, content);
        }
    }

    pub(super) fn on_remove_content(&mut self, now: Instant, content: ContentKey) {
        // Removed before its links are: the last of them are asked for nothing.
        let Some(state) = self.contents.remove(&content) else { return };
        for link in state.links {
            self.drop_link(now, link);
        }
        self.forget_serves(|of, _| of == content);
        for (piece, pending) in &state.pending {
            self.abandon(content, *piece, pending);
        }
        self.grant(now);
    }

    pub(super) fn on_prioritise(
        &mut self,
        now: Instant,
        content: ContentKey,
        pieces: &[PieceIndex],
        priority: Priority,
    ) {
        let Some(state) = self.contents.get_mut(&content) else { return };
        let was_seeding = state.is_seeding();
        let known = pieces.iter().filter(|piece| piece.get() < state.layout.piece_count());
        let known: Vec<_> = known.copied().collect();
        let prioritised = known.into_iter().map(|piece| (piece, state.prioritise(piece, priority)));
        let given_up: Vec<_> =
            prioritised.filter_map(|(piece, ended)| Some((piece, ended?))).collect();
        for (piece, ended) in given_up {
            self.abandon(content, piece, &ended);
        }
        self.after_wants_changed(now, content, was_seeding);
    }

    pub(super) fn on_piece_stored(&mut self, now: Instant, content: ContentKey, piece: PieceIndex) {
        let Some(state) = self.contents.get_mut(&content) else { return };
        if piece.get() >= state.layout.piece_count() {
            return;
        }
        let (was_seeding, was_wanted) = (state.is_seeding(), state.wants(piece));
        if !state.store(piece) {
            return;
        }
        self.gather_have(now, content, piece);
        let Some(state) = self.contents.get(&content) else { return };
        let is_seeding = state.is_seeding();
        for link in state.links.clone() {
            let Some(neighbour) = self.neighbours.get_mut(&link) else { continue };
            if was_wanted && neighbour.has.has(piece) {
                neighbour.wanted -= 1;
                self.update_interest(link);
            }
        }
        if is_seeding && !was_seeding {
            self.after_wants_changed(now, content, was_seeding);
        }
    }

    /// An attempt failed. A neighbour that alone supplied all hashed bytes has lied; among several,
    /// the liar is found once the piece is verified.
    pub(super) fn on_piece_corrupt(
        &mut self,
        now: Instant,
        content: ContentKey,
        piece: PieceIndex,
        attempt: Attempt,
        contributors: &[LinkKey],
    ) {
        let Some(state) = self.contents.get_mut(&content) else { return };
        if piece.get() >= state.layout.piece_count() {
            return;
        }
        let failed = state.fail(piece, attempt);
        if let [liar] = contributors {
            self.ban(now, *liar, BanReason::Corruption);
        } else {
            state.distrust(piece);
        }
        // What these still bring belongs to an attempt that is over.
        for source in failed.into_iter().flat_map(|pending| pending.sources) {
            self.cancel(now, source);
        }
        self.refill_all(now, content);
    }

    /// Has the store discard an attempt that was given up, if anything of it arrived.
    pub(super) fn abandon(&mut self, content: ContentKey, piece: PieceIndex, pending: &Pending) {
        if !pending.is_untouched() {
            let attempt = pending.attempt;
            self.outputs.push(Output::Abandon { content, piece, attempt });
        }
    }

    /// Updates picker and interest for the pieces that are wanted now.
    fn after_wants_changed(&mut self, now: Instant, content: ContentKey, was_seeding: bool) {
        let Some(state) = self.contents.get_mut(&content) else { return };
        let is_seeding = state.is_seeding();
        if is_seeding != was_seeding {
            state.retarget();
        }
        if is_seeding && !was_seeding {
            self.outputs.push(Output::Completed { content });
        }
        if !is_seeding {
            self.sweep_at.get_or_insert(now + self.settings.sweep_interval);
        }
        // Before links are closed, neighbours learn what they can still get elsewhere.
        self.send_haves_of(now, content);
        let Some(state) = self.contents.get(&content) else { return };
        for link in state.links.clone() {
            self.review_link(now, link);
        }
    }
}
