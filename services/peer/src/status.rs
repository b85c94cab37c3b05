//! How a content is doing, for people and programs.

use std::{
    fmt,
    ops::Deref,
    sync::Arc,
    time::{Duration, Instant},
};

use shoal_common::Address;
use shoal_core::{PeerId, content::ContentId};

use crate::store::StoreError;

/// What a content is at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Asks peers for the manifest.
    Resolving,
    /// Lacks pieces that are wanted.
    Downloading,
    /// Holds every piece that is wanted.
    Seeding,
    /// Stopped, for the reason given.
    Failed(Failure),
}

/// Why the disk failed a content. Equal only to itself.
#[derive(Clone, Debug)]
pub struct Failure(Arc<StoreError>);

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self(Arc::new(error))
    }
}

impl Deref for Failure {
    type Target = StoreError;

    fn deref(&self) -> &StoreError {
        &self.0
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PartialEq for Failure {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Failure {}

/// A snapshot of one content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Which content.
    pub id: ContentId,
    /// Of the file or directory; empty until the manifest is here.
    pub name: String,
    /// What it is at.
    pub phase: Phase,
    /// Bytes of all files.
    pub total_bytes: u64,
    /// Of them, those held.
    pub held_bytes: u64,
    /// Pieces of all files.
    pub piece_count: u32,
    /// Of them, those held.
    pub held_pieces: u32,
    /// Links.
    pub neighbours: u32,
    /// Received over the last 20 s.
    pub down_bytes_per_s: u64,
    /// Sent over the last 20 s.
    pub up_bytes_per_s: u64,
    /// Received since the start, whatever became of it.
    pub downloaded_bytes: u64,
    /// Of them, those that complete peers sent.
    pub from_seeders_bytes: u64,
    /// Of them, those fetched twice or thrown away.
    pub wasted_bytes: u64,
    /// Sent since the start.
    pub uploaded_bytes: u64,
    /// When a neighbour last asked for blocks.
    pub last_asked: Option<Instant>,
}

impl Status {
    /// Of a content of which only the id is known.
    pub(crate) const fn unresolved(id: ContentId) -> Self {
        Self {
            id,
            name: String::new(),
            phase: Phase::Resolving,
            total_bytes: 0,
            held_bytes: 0,
            piece_count: 0,
            held_pieces: 0,
            neighbours: 0,
            down_bytes_per_s: 0,
            up_bytes_per_s: 0,
            downloaded_bytes: 0,
            from_seeders_bytes: 0,
            wasted_bytes: 0,
            uploaded_bytes: 0,
            last_asked: None,
        }
    }
}

/// Why a download is as slow as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Complete, or as fast as the link.
    None,
    /// Nobody else is in the swarm, as far as is known.
    NoPeers,
    /// The manifest was not found yet.
    NoManifest,
    /// No neighbour holds what is missing.
    PiecesMissing,
    /// Every neighbour that holds something wanted chokes us.
    Choked,
    /// The settings cap the rate.
    DownCap,
    /// Neighbours send as they can, and no more comes.
    NeighboursSlow,
    /// Neighbours unchoked us and send nothing.
    Snubbed,
    /// The disk failed.
    Disk,
    /// No tracker and no ring node answers, and no neighbour is there.
    TrackerDown,
}

/// Why a content is as slow as it is, and what each neighbour does for it.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The one that matters most.
    pub cause: Cause,
    /// One sentence for people.
    pub summary: String,
    /// Each link.
    pub neighbours: Vec<Neighbour>,
    /// Pieces wanted that no neighbour holds.
    pub unavailable_pieces: u32,
    /// Copies of the rarest wanted piece among the neighbours.
    pub rarest_copies: u32,
    /// Each tracker asked.
    pub trackers: Vec<Source>,
    /// Each node of the ring that is asked, or would be if others failed.
    pub ring_nodes: Vec<Source>,
}

/// One link, seen from here.
#[derive(Clone, Debug)]
pub struct Neighbour {
    /// Who.
    pub peer: PeerId,
    /// Where it is dialled.
    pub address: Address,
    /// Pieces it holds.
    pub held_pieces: u32,
    /// It holds something we want.
    pub interesting: bool,
    /// We hold something it wants.
    pub interested: bool,
    /// It does not serve us.
    pub choking_us: bool,
    /// We do not serve it.
    pub choked_by_us: bool,
    /// It unchoked us and sends nothing.
    pub snubbed: bool,
    /// Received from it over the last 20 s.
    pub down_bytes_per_s: u64,
    /// Sent to it over the last 20 s.
    pub up_bytes_per_s: u64,
    /// Measured when the link was made.
    pub round_trip: Duration,
    /// Asked for and not yet here.
    pub outstanding_bytes: u64,
    /// Why nothing is asked of it now; empty if something is.
    pub idle_reason: String,
}

/// A tracker or a ring node that is asked for peers of a content.
#[derive(Clone, Debug)]
pub struct Source {
    /// Where it is.
    pub address: Address,
    /// What went wrong the last time.
    pub error: Option<String>,
    /// Since the last good answer.
    pub since_success: Option<Duration>,
    /// Peers in the last good answer.
    pub peers_given: u32,
}
