//! What discovery tells the engine.

use std::fmt;

use shoal_core::{Address, peer_list::Candidate, swarm::ContentKey};

/// Events of announcers for the engine, over one bounded channel.
pub(crate) enum Event {
    /// A tracker or a ring node answered, or failed.
    Announced(Report),
    /// Trackers that a content is announced to from now on, and those that it no longer is.
    TrackersChanged {
        content: ContentKey,
        current: Vec<AnnounceTarget>,
        former: Vec<AnnounceTarget>,
    },
}

/// A service that is asked for peers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AnnounceTarget {
    Tracker(Address),
    RingNode(Address),
}

impl fmt::Display for AnnounceTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Tracker(address) | Self::RingNode(address)) = self;
        address.fmt(f)
    }
}

/// The returned peers, or the error.
pub(crate) type Outcome = Result<Vec<Candidate>, String>;

/// The outcome of an announce at one service.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) content: ContentKey,
    pub(crate) target: AnnounceTarget,
    pub(crate) outcome: Outcome,
}
