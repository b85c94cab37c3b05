//! What the state machine reports of itself.

use std::time::Instant;

use super::{
    Swarm,
    interface::{
        ContentKey, ContentStatus, IdleReason, LinkKey, LinkStatus, PieceState, Totals, UplinkIdle,
    },
};
use crate::content::{Bitfield, PieceIndex};

impl Swarm {
    /// Bytes of blocks received and sent on a link; none if the link is unknown.
    pub fn moved(&self, link: LinkKey) -> Option<u64> {
        let neighbour = self.neighbours.get(&link)?;
        Some(neighbour.down.bytes + neighbour.up.bytes)
    }

    /// Why the uplink has nothing to send; none if it has something.
    pub fn uplink_idle(&self) -> Option<UplinkIdle> {
        if !self.uplink.is_idle() {
            return None;
        }
        let mut interested = self.neighbours.values().filter(|n| n.interested).peekable();
        Some(if interested.peek().is_none() {
            UplinkIdle::NobodyInterested
        } else if interested.all(|neighbour| neighbour.choked) {
            UplinkIdle::Choked
        } else {
            UplinkIdle::NothingAsked
        })
    }

    /// The contents, in the order of their keys.
    pub fn contents(&self) -> impl Iterator<Item = ContentKey> + '_ {
        self.contents.keys().copied()
    }

    /// The links of a content, in the order of their keys.
    pub fn links(&self, content: ContentKey) -> impl Iterator<Item = LinkKey> + '_ {
        self.contents.get(&content).into_iter().flat_map(|content| content.links.iter().copied())
    }

    /// The state of a content. Costs the same for any number of pieces.
    pub fn content_status(&self, content: ContentKey) -> Option<ContentStatus> {
        let content = self.contents.get(&content)?;
        Some(ContentStatus {
            pieces: content.layout.piece_count(),
            held: content.held.held(),
            missing: content.missing(),
            pending: content.pending.len() as u32,
            rarest: content.rarest(),
            unavailable: content.unavailable(),
            links: content.links.len(),
            endgame: content.is_in_endgame(),
        })
    }

    /// The state of a piece; none if the content or the piece is unknown.
    pub fn piece_state(&self, content: ContentKey, piece: PieceIndex) -> Option<PieceState> {
        let content = self.contents.get(&content)?;
        (piece.get() < content.layout.piece_count()).then(|| content.state(piece))
    }

    /// The held pieces of a content.
    pub fn held(&self, content: ContentKey) -> Option<&Bitfield> {
        self.contents.get(&content).map(|content| &content.held)
    }

    /// The state of a neighbour. Costs the same for any number of pieces.
    pub fn link_status(&self, link: LinkKey, now: Instant) -> Option<LinkStatus> {
        let neighbour = self.neighbours.get(&link)?;
        let idle = self.reason_not_to_ask(now, link);
        let is_dry = self
            .contents
            .get(&neighbour.content)
            .is_some_and(|content| neighbour.down.dry_since == Some(content.reopened));
        Some(LinkStatus {
            content: neighbour.content,
            peer: neighbour.peer,
            held: neighbour.has.held(),
            wanted: neighbour.wanted,
            interesting: neighbour.interesting,
            interested: neighbour.interested,
            chokes_us: neighbour.chokes_us,
            choked: neighbour.choked,
            snubbed: neighbour.down.snubbed,
            down_bytes_per_s: neighbour.down.rate.bytes_per_s(now),
            up_bytes_per_s: neighbour.up.rate.bytes_per_s(now),
            received: neighbour.down.bytes,
            sent: neighbour.up.bytes,
            outstanding: neighbour.down.outstanding,
            window: neighbour.down.window(neighbour.round_trip, &self.settings, now),
            round_trip: neighbour.round_trip,
            idle: idle.or(is_dry.then_some(IdleReason::NothingOpen)),
        })
    }

    /// Bytes of a content since it was added.
    pub fn totals(&self, content: ContentKey) -> Totals {
        self.contents.get(&content).map(|content| content.totals).unwrap_or_default()
    }
}
