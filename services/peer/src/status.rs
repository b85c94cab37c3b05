//! The status of a content, for people and programs.

use std::{
    fmt,
    ops::Deref,
    sync::Arc,
    time::{Duration, Instant},
};

use shoal_core::{Address, PeerId, content::ContentId};

use crate::store::StoreError;

/// The phase of a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Asks peers for the manifest.
    Resolving,
    /// Lacks wanted pieces.
    Downloading,
    /// Holds every wanted piece.
    Seeding,
    /// Stopped, for the given reason.
    Failed(Failure),
}

/// The disk error that stopped a content. Equal only to itself.
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
    /// The content.
    pub id: ContentId,
    /// Name of the file or directory; empty without a manifest.
    pub name: String,
    /// Its phase.
    pub phase: Phase,
    /// Bytes of all files.
    pub total_bytes: u64,
    /// Of these, held.
    pub held_bytes: u64,
    /// Pieces of all files.
    pub piece_count: u32,
    /// Of these, held.
    pub held_pieces: u32,
    /// Links.
    pub neighbours: u32,
    /// Received over the last 20 s.
    pub down_bytes_per_s: u64,
    /// Sent over the last 20 s.
    pub up_bytes_per_s: u64,
    /// Received since the start, whether useful or not.
    pub downloaded_bytes: u64,
    /// Of these, from complete peers.
    pub from_seeders_bytes: u64,
    /// Of these, received twice or discarded.
    pub wasted_bytes: u64,
    /// Sent since the start.
    pub uploaded_bytes: u64,
    /// When a neighbour last requested blocks.
    pub last_asked: Option<Instant>,
}

impl Status {
    /// Of a content whose manifest is unknown.
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

/// Why a download is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Complete, or as fast as the link.
    None,
    /// No other peer is known in the swarm.
    NoPeers,
    /// The manifest was not found yet.
    NoManifest,
    /// No neighbour holds the missing pieces.
    PiecesMissing,
    /// Every neighbour with a wanted piece chokes us.
    Choked,
    /// The settings limit the rate.
    DownCap,
    /// Neighbours send as fast as they can.
    NeighboursSlow,
    /// Neighbours unchoked us and send nothing.
    Snubbed,
    /// The disk failed.
    Disk,
    /// No tracker and no ring node answers, and there is no neighbour.
    TrackerDown,
}

/// Why a content is slow, and what each neighbour contributes.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The main cause.
    pub cause: Cause,
    /// One sentence for people.
    pub summary: String,
    /// All links.
    pub neighbours: Vec<Neighbour>,
    /// Wanted pieces that no neighbour holds.
    pub unavailable_pieces: u32,
    /// Copies of the rarest wanted piece among the neighbours.
    pub rarest_copies: u32,
    /// The trackers that are asked.
    pub trackers: Vec<DiscoverySource>,
    /// The ring nodes that are asked, or would be if others failed.
    pub ring_nodes: Vec<DiscoverySource>,
}

/// One link, as this peer sees it.
#[derive(Clone, Debug)]
pub struct Neighbour {
    /// The peer.
    pub peer: PeerId,
    /// Its address.
    pub address: Address,
    /// Pieces it holds.
    pub held_pieces: u32,
    /// We are interested.
    pub interesting: bool,
    /// It is interested.
    pub interested: bool,
    /// It chokes us.
    pub choking_us: bool,
    /// We choke it.
    pub choked_by_us: bool,
    /// It unchoked us and sends nothing.
    pub snubbed: bool,
    /// Received from it over the last 20 s.
    pub down_bytes_per_s: u64,
    /// Sent to it over the last 20 s.
    pub up_bytes_per_s: u64,
    /// Measured when the link was made.
    pub round_trip: Duration,
    /// Requested and not received yet.
    pub outstanding_bytes: u64,
    /// Why nothing is requested from it now; empty if something is.
    pub idle_reason: String,
}

/// A tracker or a ring node that is asked for peers of a content.
#[derive(Clone, Debug)]
pub struct DiscoverySource {
    /// Its address.
    pub address: Address,
    /// The last error.
    pub error: Option<String>,
    /// Time since the last good answer.
    pub since_success: Option<Duration>,
    /// Peers in the last good answer.
    pub peers_given: u32,
}
