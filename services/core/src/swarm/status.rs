//! The observable state: why a content is slow, per content, neighbour and piece.

use std::time::{Duration, Instant};

use super::{Attempt, ContentKey, IdleReason, LinkKey, Swarm};
use crate::{
    PeerId,
    content::{Bitfield, PieceIndex},
};

/// Bytes of a content since it was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Received from neighbours that held everything.
    pub from_seeders: u64,
    /// Received from others.
    pub from_leechers: u64,
    /// Received although another neighbour had sent them, or after the call was cancelled.
    pub duplicate: u64,
    /// Discarded because their piece failed its hash.
    pub wasted: u64,
    /// Accepted by the transport.
    pub sent: u64,
}

/// The state of a piece, exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceState {
    /// Not wanted, and not begun.
    Skipped,
    /// Wanted, and not begun.
    Open,
    /// Begun: fetches in progress are to bring the rest.
    Asked(Attempt),
    /// Begun: the rest is requested from no neighbour.
    Orphaned(Attempt),
    /// Completely received: it is being verified and written.
    Whole(Attempt),
    /// Verified and written.
    Held,
}

/// The state of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentStatus {
    /// Pieces of the content.
    pub pieces: u32,
    /// Pieces held.
    pub held: u32,
    /// Pieces wanted and not held.
    pub missing: u32,
    /// Pieces being received or verified.
    pub pending: u32,
    /// Copies, at neighbours, of the rarest missing piece; none if nothing is missing.
    pub rarest: Option<u32>,
    /// Missing pieces that no neighbour holds.
    pub unavailable: u32,
    /// Neighbours.
    pub links: usize,
    /// Every wanted piece is requested.
    pub endgame: bool,
}

/// The state of a neighbour.
#[derive(Clone, Debug)]
pub struct LinkStatus {
    /// The content.
    pub content: ContentKey,
    /// The peer.
    pub peer: PeerId,
    /// Pieces it holds.
    pub held: u32,
    /// Wanted pieces that it holds.
    pub wanted: u32,
    /// We are interested.
    pub interesting: bool,
    /// It is interested.
    pub interested: bool,
    /// It chokes us.
    pub chokes_us: bool,
    /// We choke it.
    pub choked: bool,
    /// It has owed us data for too long.
    pub snubbed: bool,
    /// Received over the last 20 s.
    pub down_bytes_per_s: f64,
    /// Sent over the last 20 s.
    pub up_bytes_per_s: f64,
    /// Received in all.
    pub received: u64,
    /// Sent in all.
    pub sent: u64,
    /// Requested and not yet received.
    pub outstanding: u64,
    /// The most that would be requested now.
    pub window: u64,
    /// Measured.
    pub round_trip: Duration,
    /// Why nothing more is requested from it now.
    pub idle: Option<IdleReason>,
}

/// Why the uplink has nothing to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UplinkIdle {
    /// No neighbour is interested.
    NobodyInterested,
    /// The interested neighbours are choked.
    Choked,
    /// The unchoked neighbours have requested nothing.
    NothingAsked,
}

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
