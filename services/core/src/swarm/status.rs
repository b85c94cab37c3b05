//! What can be seen of the brain: why is it slow, per content, neighbour and piece.

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
    /// Received although another neighbour had sent them, or after the call was dropped.
    pub duplicate: u64,
    /// Thrown away because their piece failed its hash.
    pub wasted: u64,
    /// Handed to the transport.
    pub sent: u64,
}

/// Where a piece is on its way here. It is in exactly one of these states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceState {
    /// Not wanted, and not begun.
    Skipped,
    /// Wanted, and not begun.
    Open,
    /// Begun: fetches under way are to bring the rest.
    Asked(Attempt),
    /// Begun: nobody is asked for the rest.
    Orphaned(Attempt),
    /// All of it has arrived: it is being verified and written.
    Whole(Attempt),
    /// Verified and written.
    Held,
}

/// How a content stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentStatus {
    /// Pieces of the content.
    pub pieces: u32,
    /// Pieces held.
    pub held: u32,
    /// Pieces wanted and not held.
    pub missing: u32,
    /// Pieces under way, or waiting for their hash.
    pub pending: u32,
    /// Copies at neighbours of the rarest piece missing; none if nothing is missing.
    pub rarest: Option<u32>,
    /// Pieces missing that no neighbour holds.
    pub unavailable: u32,
    /// Neighbours.
    pub links: usize,
    /// Every wanted piece is asked for.
    pub endgame: bool,
}

/// How a neighbour stands.
#[derive(Clone, Debug)]
pub struct LinkStatus {
    /// For which content.
    pub content: ContentKey,
    /// Who it is.
    pub peer: PeerId,
    /// Pieces it holds.
    pub held: u32,
    /// Pieces that it holds and we want.
    pub wanted: u32,
    /// We want something of it.
    pub interesting: bool,
    /// It wants something of us.
    pub interested: bool,
    /// It chokes us.
    pub chokes_us: bool,
    /// We choke it.
    pub choked: bool,
    /// It owed us data for too long.
    pub snubbed: bool,
    /// Received over the last 20 s.
    pub down_bytes_per_s: f64,
    /// Sent over the last 20 s.
    pub up_bytes_per_s: f64,
    /// Received in all.
    pub received: u64,
    /// Sent in all.
    pub sent: u64,
    /// Asked for and not yet come.
    pub outstanding: u64,
    /// The most that would be asked for now.
    pub window: u64,
    /// Measured.
    pub round_trip: Duration,
    /// Why nothing more is asked of it now.
    pub idle: Option<IdleReason>,
}

/// Why the uplink has nothing to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UplinkIdle {
    /// No neighbour wants what we hold.
    NobodyInterested,
    /// Those that want something are choked.
    Choked,
    /// Those that are served asked for nothing.
    NothingAsked,
}

impl Swarm {
    /// Bytes of blocks that came and went on a link; none if it is not known.
    pub fn moved(&self, link: LinkKey) -> Option<u64> {
        let neighbour = self.neighbours.get(&link)?;
        Some(neighbour.down.bytes + neighbour.up.bytes)
    }

    /// Why the uplink has nothing to send; none if it has.
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

    /// How a content stands. Costs the same however many pieces it has.
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

    /// Where a piece is on its way here; none if the content or the piece is not known.
    pub fn piece_state(&self, content: ContentKey, piece: PieceIndex) -> Option<PieceState> {
        let content = self.contents.get(&content)?;
        (piece.get() < content.layout.piece_count()).then(|| content.state(piece))
    }

    /// The pieces held of a content.
    pub fn held(&self, content: ContentKey) -> Option<&Bitfield> {
        self.contents.get(&content).map(|content| &content.held)
    }

    /// How a neighbour stands. Costs the same however many pieces there are.
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
