//! One content of this process.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use shoal_core::{Address, content::ContentId, peer_list::Candidate, swarm::ContentKey};
use shoal_proto::types::v1::PeerInfo;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{Span, info_span};

use crate::{
    discovery::{AnnounceTarget, Announcer, Event, News, Subject, UNKNOWN_BYTES},
    options::Options,
    status::{Failure, Status},
    store::Stored,
};

/// Peers that may wait to be asked for a manifest; further ones are not asked.
pub(super) const MANIFEST_PEERS: usize = 256;

/// A content that is searched for, fetched or shared.
pub(in crate::engine) struct Content {
    pub(super) id: ContentId,
    pub(super) options: Options,
    pub(super) search: Search,
    /// Its stored part, for the directory.
    stored: watch::Sender<Option<Arc<Stored>>>,
    /// Bytes wanted and missing, for announces.
    left_bytes: Arc<AtomicU64>,
    /// For its announcers.
    news: watch::Sender<News>,
    pub(super) status: watch::Sender<Arc<Status>>,
    pub(super) targets: BTreeMap<AnnounceTarget, TargetState>,
    /// All pieces of its manifest are held, and being read.
    pub(super) reads_manifest: bool,
    /// When a neighbour last requested blocks.
    pub(in crate::engine) last_asked: Option<Instant>,
    /// The span of the request for it, which its work belongs to.
    pub(in crate::engine) span: Span,
    /// Ends its announces.
    stop: CancellationToken,
    _stop_with_it: DropGuard,
}

/// How far a content is from being served.
pub(super) enum Search {
    /// Peers are asked for the manifest; those found in the meantime become candidates later.
    Manifest { ask: mpsc::Sender<Address>, candidates: Vec<Candidate> },
    /// In the swarm.
    Found,
    /// Stopped by a disk error.
    Failed(Failure),
}

/// The last answer of a tracker or a ring node.
#[derive(Default)]
pub(super) struct TargetState {
    /// Given by settings or options, or behind such a name. The others, which the ring named, are
    /// forgotten when they fail.
    named: bool,
    pub(super) error: Option<String>,
    pub(super) success: Option<Instant>,
    pub(super) peers_given: u32,
}

impl TargetState {
    fn named() -> Self {
        Self { named: true, ..Self::default() }
    }
}

impl Content {
    /// A content that is searched for, or in the swarm.
    pub(super) fn new(
        id: ContentId,
        options: Options,
        search: Search,
        stop: CancellationToken,
        asked: &Span,
    ) -> Self {
        Self {
            id,
            options,
            search,
            stored: watch::Sender::new(None),
            left_bytes: Arc::new(AtomicU64::new(UNKNOWN_BYTES)),
            news: watch::Sender::new(News::default()),
            status: watch::Sender::new(Arc::new(Status::unresolved(id))),
            targets: BTreeMap::new(),
            reads_manifest: false,
            last_asked: None,
            span: info_span!(parent: asked, "content", content_id = %id),
            _stop_with_it: stop.clone().drop_guard(),
            stop,
        }
    }

    pub(in crate::engine) fn stored(&self) -> Option<Arc<Stored>> {
        self.stored.borrow().clone()
    }

    /// What the directory shows of the stored part.
    pub(super) fn watch_stored(&self) -> watch::Receiver<Option<Arc<Stored>>> {
        self.stored.subscribe()
    }

    /// Changes the stored part; none if the content has failed.
    pub(super) fn set_stored(&self, stored: Option<Arc<Stored>>) {
        self.stored.send_replace(stored);
    }

    /// Announces contain the number of missing bytes.
    pub(super) fn note_left(&self, stored: &Stored) {
        let left = stored.descriptor().blob_bytes() - stored.held_bytes();
        self.left_bytes.store(left, Ordering::Relaxed);
    }

    /// Trackers and the ring are told that everything wanted is here.
    pub(super) fn announce_completed(&self) {
        self.left_bytes.store(0, Ordering::Relaxed);
        self.news.send_modify(|news| news.completed = true);
    }

    /// Trackers and the ring are asked for more peers.
    pub(super) fn seek_peers(&self) {
        self.news.send_modify(|news| news.starved += 1);
    }

    /// Trackers and the ring are told that this peer leaves the swarm.
    pub(in crate::engine) fn stop_announcing(&self) {
        self.stop.cancel();
    }

    /// What announces the content, at services that are `named`.
    pub(super) fn announcer(
        &mut self,
        key: ContentKey,
        me: PeerInfo,
        events: mpsc::Sender<Event>,
        named: impl Iterator<Item = AnnounceTarget>,
    ) -> Announcer {
        self.targets.extend(named.map(|target| (target, TargetState::named())));
        Announcer {
            key,
            news: self.news.subscribe(),
            events,
            stop: self.stop.clone(),
            subject: Subject { content: self.id, me, left_bytes: self.left_bytes.clone() },
        }
    }

    /// Keeps the state of the trackers that are announced to, and of no others.
    pub(super) fn trackers_changed(
        &mut self,
        current: Vec<AnnounceTarget>,
        former: &[AnnounceTarget],
    ) {
        for target in current {
            self.targets.entry(target).or_insert_with(TargetState::named);
        }
        for target in former {
            self.targets.remove(target);
        }
    }

    /// Notes the answer of a tracker or a ring node: this many peers, or an error.
    pub(super) fn note_answer(&mut self, target: &AnnounceTarget, answer: Result<usize, String>) {
        let state = self.targets.entry(target.clone()).or_default();
        match answer {
            Ok(peers) => {
                state.error = None;
                state.success = Some(Instant::now());
                state.peers_given = peers as u32;
            }
            Err(error) if state.named => state.error = Some(error),
            Err(_) => drop(self.targets.remove(target)),
        }
    }
}
