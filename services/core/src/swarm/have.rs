//! Announcing pieces to neighbours: HAVEs in batches, suggestions, super-seeding.

use std::time::Instant;

use super::{
    Swarm,
    content::Content,
    interface::{ContentKey, LinkKey, Output, PeerMessage},
    links::MAX_SUGGESTED,
    neighbour::Neighbour,
};
use crate::content::{Bitfield, PieceIndex};

impl Swarm {
    /// The first message on a link: the pieces that this peer holds. A super-seeder hides them.
    pub(super) fn introduce(&mut self, link: LinkKey) {
        let Some(neighbour) = self.neighbours.get(&link) else { return };
        let Some(content) = self.contents.get(&neighbour.content) else { return };
        let hides = content.super_seeding && content.is_seeding();
        let shown = if hides {
            Bitfield::empty(content.layout.piece_count())
        } else {
            content.held.clone()
        };
        self.outputs.push(Output::Send { link, message: PeerMessage::Bitfield(shown) });
        if hides {
            for _ in 0..self.settings.super_seed_pieces {
                self.show_next(link);
            }
        }
    }

    /// A piece was stored; neighbours are told at once, unless they were just told of others.
    pub(super) fn gather_have(&mut self, now: Instant, content: ContentKey, piece: PieceIndex) {
        let Some(content) = self.contents.get_mut(&content) else { return };
        content.fresh.push(piece);
        let pause = self.settings.have_pause * content.links.len() as u32;
        let pause = pause.max(self.settings.have_delay);
        let earliest = content.haves_sent_at.map_or(now, |sent| sent + pause);
        let due = *content.haves_at.get_or_insert(earliest.max(now));
        self.haves_at = Some(self.haves_at.map_or(due, |at| at.min(due)));
    }

    /// Sends the HAVEs that are due.
    pub(super) fn send_haves(&mut self, now: Instant) {
        if self.haves_at.is_none_or(|at| now < at) {
            return;
        }
        let is_due = |at: Option<Instant>| at.is_some_and(|at| now >= at);
        let contents: Vec<_> = self.contents.keys().copied().collect();
        for content in contents {
            let state = &self.contents[&content];
            let (fresh_due, idle_due) = (is_due(state.haves_at), is_due(state.idle_haves_at));
            if fresh_due {
                self.send_haves_of(now, content);
            }
            if idle_due {
                self.send_idle_haves(content);
            }
        }
        let deadlines = self.contents.values().flat_map(|c| [c.haves_at, c.idle_haves_at]);
        self.haves_at = deadlines.flatten().min();
    }

    /// Sends the gathered pieces to the neighbours that wait for some of them; the others are told
    /// later.
    pub(super) fn send_haves_of(&mut self, now: Instant, content: ContentKey) {
        let Some(content) = self.contents.get_mut(&content) else { return };
        let fresh = std::mem::take(&mut content.fresh);
        content.haves_at = None;
        content.haves_sent_at = Some(now);
        for link in &content.links {
            let Some(neighbour) = self.neighbours.get_mut(link) else { continue };
            let untold = fresh.len() + neighbour.idle_haves.len();
            neighbour.idle_haves.extend(&fresh);
            let lacks_some = fresh.iter().any(|piece| !neighbour.has.has(*piece));
            let enough = untold + self.settings.plenty;
            let has_enough = || content.held.minus(&neighbour.has).take(enough).count() == enough;
            if !lacks_some || has_enough() {
                continue;
            }
            let message = PeerMessage::Have(std::mem::take(&mut neighbour.idle_haves));
            self.outputs.push(Output::Send { link: *link, message });
        }
        let due = *content.idle_haves_at.get_or_insert(now + self.settings.idle_have_delay);
        self.haves_at = Some(self.haves_at.map_or(due, |at| at.min(due)));
    }

    fn send_idle_haves(&mut self, content: ContentKey) {
        let Some(content) = self.contents.get_mut(&content) else { return };
        content.idle_haves_at = None;
        for link in &content.links {
            let Some(neighbour) = self.neighbours.get_mut(link) else { continue };
            let pieces = std::mem::take(&mut neighbour.idle_haves);
            if !pieces.is_empty() {
                let message = PeerMessage::Have(pieces);
                self.outputs.push(Output::Send { link: *link, message });
            }
        }
    }

    /// While this peer seeds, a piece on its way to a neighbour already counts as a copy.
    pub(super) fn promise(&mut self, link: LinkKey, piece: PieceIndex) {
        let Some(neighbour) = self.neighbours.get_mut(&link) else { return };
        let Some(content) = self.contents.get_mut(&neighbour.content) else { return };
        if content.is_seeding() && !neighbour.has.has(piece) && neighbour.promised.insert(piece) {
            content.gain(piece);
        }
    }

    /// A seeder suggests the rarest pieces, counting promised copies, so that each neighbour brings
    /// another one into the swarm. It suggests as many as the neighbour last asked for, once those
    /// are asked for.
    pub(super) fn suggest(&mut self, link: LinkKey) {
        let Some(neighbour) = self.neighbours.get_mut(&link) else { return };
        let Some(content) = self.contents.get(&neighbour.content) else { return };
        let is_alone = content.links.len() < 2;
        if !content.is_seeding() || content.super_seeding || is_alone {
            return;
        }
        if neighbour.choked || neighbour.up.suggestions > 0 {
            return;
        }
        let mut pieces = Vec::new();
        for _ in 0..neighbour.up.pieces_per_call {
            let Some(piece) = self.rarest_for(link) else { break };
            self.promise(link, piece);
            pieces.push(piece);
        }
        if let Some(neighbour) = self.neighbours.get_mut(&link)
            && !pieces.is_empty()
        {
            neighbour.up.suggestions = pieces.len() as u32;
            self.outputs.push(Output::Send { link, message: PeerMessage::Suggest(pieces) });
        }
    }

    /// Before leaving: suggests the pieces that no neighbour holds, each to a different neighbour
    /// that wants something.
    pub fn offer_last_copies(&mut self, outputs: &mut Vec<Output>) {
        for content in self.contents.values() {
            let takers: Vec<_> = self.takers(content).collect();
            let pieces: Vec<_> = self.last_copies(content).collect();
            for (number, link) in takers.iter().enumerate() {
                let share = pieces.iter().skip(number).step_by(takers.len());
                let share: Vec<_> = share.copied().take(MAX_SUGGESTED).collect();
                if !share.is_empty() {
                    let message = PeerMessage::Suggest(share);
                    outputs.push(Output::Send { link: *link, message });
                }
            }
        }
    }

    /// Whether some neighbour wants a content of which a piece is held by this peer alone.
    pub fn holds_last_copies(&self) -> bool {
        self.contents.values().any(|content| {
            self.takers(content).next().is_some() && self.last_copies(content).next().is_some()
        })
    }

    fn takers<'a>(&'a self, content: &'a Content) -> impl Iterator<Item = LinkKey> + 'a {
        let wants = |link: &&LinkKey| self.neighbours.get(link).is_some_and(Neighbour::holds_slot);
        content.links.iter().filter(wants).copied()
    }

    fn last_copies(&self, content: &Content) -> impl Iterator<Item = PieceIndex> + use<> {
        let mut elsewhere = Bitfield::empty(content.layout.piece_count());
        for link in &content.links {
            if let Some(neighbour) = self.neighbours.get(link) {
                elsewhere.unite(&neighbour.has);
            }
        }
        let last: Vec<_> = content.held.minus(&elsewhere).collect();
        last.into_iter()
    }

    /// The piece with the fewest copies, including promised ones, that a neighbour lacks.
    fn rarest_for(&mut self, link: LinkKey) -> Option<PieceIndex> {
        let neighbour = self.neighbours.get(&link)?;
        let content = self.contents.get(&neighbour.content)?;
        content.picker.pick_outside(&neighbour.has, &neighbour.promised, &mut self.rng)
    }

    /// Super-seeding: shows one more piece to a neighbour.
    fn show_next(&mut self, link: LinkKey) {
        let Some(piece) = self.rarest_for(link) else { return };
        self.promise(link, piece);
        if let Some(neighbour) = self.neighbours.get_mut(&link) {
            neighbour.shown.push(piece);
            let message = PeerMessage::Have(vec![piece]);
            self.outputs.push(Output::Send { link, message });
        }
    }

    /// Super-seeding: pieces have appeared at a neighbour, so the other neighbours that were shown
    /// them have earned more.
    pub(super) fn on_passed_on(&mut self, content: ContentKey, by: LinkKey, pieces: &[PieceIndex]) {
        let Some(content) = self.contents.get(&content) else { return };
        for link in content.links.clone().into_iter().filter(|link| *link != by) {
            let Some(neighbour) = self.neighbours.get_mut(&link) else { continue };
            let before = neighbour.shown.len();
            neighbour.shown.retain(|piece| !pieces.contains(piece));
            for _ in neighbour.shown.len()..before {
                self.show_next(link);
            }
        }
    }

    /// Super-seeding: a single neighbour has no other to pass pieces on to; it is shown more as it
    /// fetches.
    pub(super) fn show_to_lone(&mut self, link: LinkKey) {
        let Some(neighbour) = self.neighbours.get(&link) else { return };
        let Some(content) = self.contents.get(&neighbour.content) else { return };
        if content.super_seeding && content.is_seeding() && content.links.len() == 1 {
            self.show_next(link);
        }
    }

    /// Super-seeding: neighbours that fetched all pieces shown to them and cannot pass them on are
    /// shown more.
    pub(super) fn show_more(&mut self) {
        let stuck = self.neighbours.iter().filter(|(_, neighbour)| {
            let content = self.contents.get(&neighbour.content);
            content.is_some_and(|content| content.super_seeding && content.is_seeding())
                && neighbour.shown.iter().all(|piece| neighbour.has.has(*piece))
        });
        let stuck: Vec<_> = stuck.map(|(link, _)| *link).collect();
        for link in stuck {
            self.show_next(link);
        }
    }
}
