//! Links: neighbours come, send messages, and go.

use std::time::{Duration, Instant};

use super::{
    Swarm,
    content::Content,
    interface::{BanReason, Capabilities, ContentKey, LinkKey, Output, PeerMessage},
    neighbour::Neighbour,
};
use crate::{
    PeerId,
    content::{Bitfield, PieceIndex},
};

/// Suggestions kept of one neighbour: as many as a call has ranges.
pub(super) const MAX_SUGGESTED: usize = 64;

impl Swarm {
    pub(super) fn on_link_up(
        &mut self,
        now: Instant,
        link: LinkKey,
        content: ContentKey,
        peer: PeerId,
        capabilities: Capabilities,
        round_trip: Duration,
    ) {
        let Some(state) = self.contents.get_mut(&content) else { return };
        if !state.links.insert(link) {
            return;
        }
        // A newcomer starts level with those served least, or it would have the uplink to itself.
        let others = state.links.iter().filter_map(|link| self.neighbours.get(link));
        let turn = others.filter(|n| n.interested).map(|n| n.up.turn).min();
        let piece_count = state.layout.piece_count();
        let mut neighbour = Neighbour::new(
            content,
            peer,
            capabilities,
            round_trip,
            piece_count,
            &self.settings,
            now,
        );
        if state.is_seeding() {
            neighbour.up.turn = turn.unwrap_or(0);
        }
        self.neighbours.insert(link, neighbour);
        self.choker.rechoke_at.get_or_insert(now + self.settings.rechoke_interval);
        self.sweep_at.get_or_insert(now + self.settings.sweep_interval);
        self.introduce(link);
        if self.uplink.is_idle() {
            // It need not ask for a slot first; once the uplink is busy, slots count.
            self.unchoke(link);
        }
    }

    /// Removes a link; what was requested from its neighbour is requested elsewhere.
    pub(super) fn drop_link(&mut self, now: Instant, link: LinkKey) {
        self.release_all(link);
        self.forget_serves(|_, of| of == Some(link));
        let Some(neighbour) = self.neighbours.remove(&link) else { return };
        if let Some(content) = self.contents.get_mut(&neighbour.content) {
            content.links.remove(&link);
            if neighbour.counted_complete {
                content.picker.lose_complete();
            } else {
                neighbour.has.iter().for_each(|piece| content.lose(piece));
            }
            neighbour.promised.iter().for_each(|piece| content.lose(piece));
        }
        self.fill_slots();
        self.refill_all(now, neighbour.content);
        self.grant(now);
        self.lend_slot(now);
    }

    /// Closes the link of a neighbour that lied or violated the protocol.
    pub(super) fn ban(&mut self, now: Instant, link: LinkKey, reason: BanReason) {
        if self.neighbours.contains_key(&link) {
            self.outputs.push(Output::Ban { link, reason });
            self.drop_link(now, link);
        }
    }

    /// Closes a link that is of no use.
    pub(super) fn close(&mut self, now: Instant, link: LinkKey) {
        if self.neighbours.contains_key(&link) {
            self.outputs.push(Output::Close { link });
            self.drop_link(now, link);
        }
    }

    pub(super) fn on_message(&mut self, now: Instant, link: LinkKey, message: PeerMessage) {
        let Some(neighbour) = self.neighbours.get_mut(&link) else { return };
        match message {
            PeerMessage::Bitfield(field) => self.on_bitfield(now, link, field),
            PeerMessage::Have(pieces) => self.on_have(now, link, &pieces),
            PeerMessage::Choke => neighbour.chokes_us = true,
            PeerMessage::Unchoke => {
                neighbour.chokes_us = false;
                neighbour.down.retry_at = None;
                self.refill(now, link);
            }
            PeerMessage::Interested => self.on_interested(now, link),
            PeerMessage::NotInterested => self.on_not_interested(link),
            PeerMessage::Suggest(pieces) => self.on_suggest(now, link, &pieces),
        }
    }

    fn on_bitfield(&mut self, now: Instant, link: LinkKey, field: Bitfield) {
        let Some(neighbour) = self.neighbours.get_mut(&link) else { return };
        let Some(content) = self.contents.get_mut(&neighbour.content) else { return };
        if neighbour.introduced || field.piece_count() != content.layout.piece_count() {
            self.ban(now, link, BanReason::Protocol);
            return;
        }
        neighbour.introduced = true;
        neighbour.counted_complete = field.is_full();
        if neighbour.counted_complete {
            content.picker.gain_complete();
        } else {
            field.iter().for_each(|piece| content.gain(piece));
        }
        neighbour.has = field;
        self.review_link(now, link);
    }

    fn on_have(&mut self, now: Instant, link: LinkKey, pieces: &[PieceIndex]) {
        let Some(neighbour) = self.neighbours.get_mut(&link) else { return };
        let Some(content) = self.contents.get_mut(&neighbour.content) else { return };
        let is_known = |piece: &PieceIndex| piece.get() < content.layout.piece_count();
        if !neighbour.introduced || !pieces.iter().all(is_known) {
            self.ban(now, link, BanReason::Protocol);
            return;
        }
        for piece in pieces {
            if !neighbour.has.insert(*piece) {
                continue;
            }
            if !neighbour.promised.remove(*piece) {
                content.gain(*piece);
            }
            neighbour.wanted += u32::from(content.wants(*piece));
        }
        neighbour.down.dry_since = None;
        let (key, is_full) = (neighbour.content, neighbour.has.is_full());
        let is_super_seeding = content.super_seeding && content.is_seeding();
        self.update_interest(link);
        if is_super_seeding {
            self.on_passed_on(key, link, pieces);
        }
        if is_full {
            self.close_if_both_complete(now, link);
        }
        self.refill(now, link);
    }

    fn on_suggest(&mut self, now: Instant, link: LinkKey, pieces: &[PieceIndex]) {
        let Some(neighbour) = self.neighbours.get_mut(&link) else { return };
        let Some(content) = self.contents.get(&neighbour.content) else { return };
        if pieces.iter().any(|piece| piece.get() >= content.layout.piece_count()) {
            self.ban(now, link, BanReason::Protocol);
            return;
        }
        neighbour.down.suggested.extend(pieces.iter().take(MAX_SUGGESTED));
        let surplus = neighbour.down.suggested.len().saturating_sub(MAX_SUGGESTED);
        neighbour.down.suggested.drain(..surplus);
        self.refill(now, link);
    }

    /// Counts again which wanted pieces a neighbour has, after either side's pieces changed in
    /// bulk.
    pub(super) fn review_link(&mut self, now: Instant, link: LinkKey) {
        let Some(neighbour) = self.neighbours.get_mut(&link) else { return };
        let Some(content) = self.contents.get(&neighbour.content) else { return };
        let lacked = neighbour.has.minus(&content.held);
        neighbour.wanted = lacked.filter(|piece| content.wants(*piece)).count() as u32;
        neighbour.down.dry_since = None;
        self.update_interest(link);
        self.close_if_both_complete(now, link);
        self.refill(now, link);
    }

    /// Tells a neighbour whether it holds a wanted piece, when that changes.
    pub(super) fn update_interest(&mut self, link: LinkKey) {
        let Some(neighbour) = self.neighbours.get_mut(&link) else { return };
        let interesting = neighbour.wanted > 0;
        if neighbour.interesting != interesting {
            neighbour.interesting = interesting;
            let message =
                if interesting { PeerMessage::Interested } else { PeerMessage::NotInterested };
            self.outputs.push(Output::Send { link, message });
        }
    }

    /// Two peers that want nothing of each other disconnect.
    fn close_if_both_complete(&mut self, now: Instant, link: LinkKey) {
        let Some(neighbour) = self.neighbours.get(&link) else { return };
        let we_seed = self.contents.get(&neighbour.content).is_some_and(Content::is_seeding);
        if we_seed && neighbour.introduced && neighbour.has.is_full() {
            self.close(now, link);
        }
    }

    /// Reports that neighbours are missing, but not too often.
    pub(super) fn cry_if_starving(&mut self, now: Instant, content: ContentKey) {
        let Some(state) = self.contents.get_mut(&content) else { return };
        let useful = state.links.iter().filter_map(|link| self.neighbours.get(link));
        let nobody_useful = !useful.into_iter().any(|n| n.wanted > 0 && n.capabilities.serves);
        let interval = if nobody_useful {
            self.settings.starving_interval
        } else if state.links.len() < self.settings.min_neighbours {
            self.settings.few_neighbours_interval
        } else {
            return;
        };
        if state.starving_since_said(now, interval) {
            self.outputs.push(Output::Starving { content });
        }
    }
}
