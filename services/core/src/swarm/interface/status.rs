//! The observable state, per content, neighbour and piece: why a content is slow.

use std::time::Duration;

use super::event::{Attempt, ContentKey};
use crate::PeerId;

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

/// Why nothing is requested from a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdleReason {
    /// As much is requested as its rate allows.
    WindowFull,
    /// This peer seeds the content.
    Seeding,
    /// It does not serve pieces.
    ServesNone,
    /// It holds no wanted piece.
    NotInteresting,
    /// It chokes us.
    Choked,
    /// It refused or let requests time out, and is asked again later.
    RetryLater,
    /// The pieces that it holds are requested from others.
    NothingOpen,
    /// The process has as much in flight as it may.
    OutOfMemory,
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
