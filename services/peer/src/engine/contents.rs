//! Contents: added, searched, completed, removed; and what trackers and the ring report about them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use shoal_common::Address;
use shoal_core::{
    content::{ContentId, PieceIndex},
    roster::Candidate,
    swarm::{ContentKey, Input, Priority},
};
use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{Instrument as _, Span, debug, info, info_span, warn};

use super::Engine;
use crate::{
    announce::{Announcer, News, Report, Source, Subject, UNKNOWN_BYTES},
    event::{Event, Place},
    options::Options,
    resolve::resolve,
    status::{Failure, Status},
    store::{StoreError, Stored},
};

/// Peers that may wait to be asked for a manifest; further ones are not asked.
const MANIFEST_PEERS: usize = 256;

/// One content of this process.
pub(super) struct Content {
    id: ContentId,
    options: Options,
    pub(super) search: Search,
    /// Its stored part, for the directory.
    stored: watch::Sender<Option<Arc<Stored>>>,
    /// Bytes wanted and missing, for announces.
    left_bytes: Arc<AtomicU64>,
    news: watch::Sender<News>,
    pub(super) status: watch::Sender<Arc<Status>>,
    pub(super) sources: BTreeMap<Source, SourceView>,
    /// When a neighbour last requested blocks.
    pub(super) last_asked: Option<Instant>,
    /// The span of the request for it, which its work belongs to.
    pub(super) span: Span,
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
pub(super) struct SourceView {
    /// Given by settings or options, or behind such a name. The others, which the ring named, are
    /// forgotten when they fail.
    named: bool,
    pub(super) error: Option<String>,
    pub(super) success: Option<Instant>,
    pub(super) peers_given: u32,
}

impl SourceView {
    fn named() -> Self {
        Self { named: true, ..Self::default() }
    }
}

impl Content {
    pub(super) fn stored(&self) -> Option<Arc<Stored>> {
        self.stored.borrow().clone()
    }

    /// Announces contain the number of missing bytes.
    fn note_left(&self, stored: &Stored) {
        let left = stored.layout().total_bytes() - stored.held_bytes();
        self.left_bytes.store(left, Ordering::Relaxed);
    }

    /// Trackers and the ring are told that this peer leaves the swarm.
    pub(super) fn stop_announcing(&self) {
        self.stop.cancel();
    }

    pub(super) const fn id(&self) -> ContentId {
        self.id
    }
}

impl Engine {
    /// Shares a stored content, and fetches its missing pieces.
    pub(super) fn add(
        &mut self,
        stored: &Arc<Stored>,
        options: Options,
        asked: &Span,
    ) -> watch::Receiver<Arc<Status>> {
        let id = stored.id();
        if let Some(key) = self.ids.get(&id) {
            return self.watch(*key);
        }
        let key = self.insert(id, options, Search::Found, asked);
        self.join(key, stored);
        self.watch(key)
    }

    /// Searches a content and fetches it to `place`.
    pub(super) fn fetch(
        &mut self,
        id: ContentId,
        options: Options,
        place: Place,
        asked: &Span,
    ) -> watch::Receiver<Arc<Status>> {
        if let Some(key) = self.ids.get(&id).copied() {
            if !matches!(self.contents[&key].search, Search::Failed(_)) {
                self.want(key, options.priorities);
                return self.watch(key);
            }
            self.remove(id);
        }
        let (ask, peers) = mpsc::channel(MANIFEST_PEERS);
        let search = Search::Manifest { ask, candidates: Vec::new() };
        let key = self.insert(id, options, search, asked);
        let (events, stop) = (self.events.clone(), self.stop.clone());
        let resolving = async move {
            // No manifest: the content was removed before any peer had it.
            let Some((at, (manifest, hashes))) = resolve(id, peers).await else { return };
            let placing = spawn_blocking(move || place(manifest, hashes));
            // This may take long: data that is there already is hashed.
            let Some(outcome) = stop.run_until_cancelled(placing).await else { return };
            let outcome = outcome.expect("making room for a content does not panic");
            let _ = events.send(Event::Resolved { content: key, at, outcome }).await;
        };
        self.jobs.spawn("resolver", resolving.instrument(self.contents[&key].span.clone()));
        self.announce(key);
        self.watch(key)
    }

    /// The status of a content, from now on.
    pub(super) fn watch(&self, key: ContentKey) -> watch::Receiver<Arc<Status>> {
        // It was not updated while there was no watcher.
        self.report_on(key);
        self.contents[&key].status.subscribe()
    }

    /// Changes the priorities of a present or expected content.
    fn want(&mut self, key: ContentKey, priorities: Vec<(String, Priority)>) {
        let Some(content) = self.contents.get_mut(&key) else { return };
        if content.options.priorities == priorities {
            return;
        }
        content.options.priorities = priorities;
        let Some(stored) = content.stored() else { return };
        content.note_left(&stored);
        let pieces = stored.layout().pieces().collect();
        self.brain(Input::Prioritise { content: key, pieces, priority: Priority::Normal });
        self.prioritise(key, &stored);
    }

    /// Stops fetching and sharing a content; false if it was not here.
    pub(super) fn remove(&mut self, id: ContentId) -> bool {
        let Some(key) = self.ids.remove(&id) else { return false };
        let links: Vec<_> =
            self.links.iter().filter(|(_, l)| l.content == key).map(|(link, _)| *link).collect();
        for link in links {
            self.close(link);
        }
        self.directory.remove(id);
        self.roster.remove_content(key);
        self.brain(Input::RemoveContent { content: key });
        self.contents.remove(&key);
        true
    }

    fn insert(
        &mut self,
        id: ContentId,
        options: Options,
        search: Search,
        asked: &Span,
    ) -> ContentKey {
        let key = ContentKey(self.next_key() as u32);
        let (stored, in_directory) = watch::channel(None);
        self.directory.insert(id, key, in_directory);
        let stop = self.stop.child_token();
        let content = Content {
            id,
            options,
            search,
            stored,
            left_bytes: Arc::new(AtomicU64::new(UNKNOWN_BYTES)),
            news: watch::Sender::new(News::default()),
            status: watch::Sender::new(Arc::new(Status::unresolved(id))),
            sources: BTreeMap::new(),
            last_asked: None,
            span: info_span!(parent: asked, "content", content_id = %id),
            _stop_with_it: stop.clone().drop_guard(),
            stop,
        };
        self.ids.insert(id, key);
        self.contents.insert(key, content);
        key
    }

    fn announce(&mut self, key: ContentKey) {
        let content = self.contents.get_mut(&key).expect("announced contents are here");
        let all = |ours: &[Address], of_content: &[Address]| -> Vec<Address> {
            let all: BTreeSet<_> = ours.iter().chain(of_content).cloned().collect();
            all.into_iter().collect()
        };
        let trackers = all(&self.trackers, &content.options.trackers);
        let ring_nodes = all(&self.ring_nodes, &content.options.ring_nodes);
        let announcer = Announcer {
            key,
            news: content.news.subscribe(),
            events: self.events.clone(),
            stop: content.stop.clone(),
            subject: Subject {
                content: content.id,
                me: self.identity.info(),
                left_bytes: content.left_bytes.clone(),
            },
        };
        let named = trackers.iter().cloned().map(Source::Tracker);
        let named = named.chain(ring_nodes.iter().cloned().map(Source::RingNode));
        content.sources.extend(named.map(|source| (source, SourceView::named())));
        let names = &self.names;
        content.span.in_scope(|| announcer.start(trackers, ring_nodes, names, &self.jobs));
    }

    /// Keeps the state of the services that are asked, and of no others.
    pub(super) fn name_sources(&mut self, key: ContentKey, come: Vec<Source>, gone: &[Source]) {
        let Some(content) = self.contents.get_mut(&key) else { return };
        for source in come {
            content.sources.entry(source).or_insert_with(SourceView::named);
        }
        for source in gone {
            content.sources.remove(source);
        }
    }

    /// The manifest was fetched, and room made for the content or not.
    pub(super) fn resolved(
        &mut self,
        key: ContentKey,
        at: &Address,
        outcome: Result<Arc<Stored>, StoreError>,
    ) {
        if !self.contents.contains_key(&key) {
            return;
        }
        match outcome {
            Ok(stored) => {
                self.join(key, &stored);
                self.roster.answered(Instant::now(), key, &at.to_string());
            }
            Err(error) => self.store_failed(key, error),
        }
    }

    /// Joins the swarm of a content with a manifest.
    fn join(&mut self, key: ContentKey, stored: &Arc<Stored>) {
        let now = Instant::now();
        let content = self.contents.get_mut(&key).expect("joined contents are here");
        let search = std::mem::replace(&mut content.search, Search::Found);
        let is_new = matches!(search, Search::Found);
        let options = content.options.clone();
        let held = stored.held();
        content.note_left(stored);
        content.stored.send_replace(Some(stored.clone()));
        self.roster.add_content(key, held.is_full());
        if let Search::Manifest { candidates, .. } = search {
            for candidate in candidates {
                self.roster.learn(now, key, candidate);
            }
        }
        self.brain(Input::AddContent {
            content: key,
            layout: stored.layout().clone(),
            held,
            sequential: options.sequential,
            super_seeding: options.super_seeding,
        });
        self.prioritise(key, stored);
        if is_new {
            self.announce(key);
        }
        self.report_on(key);
    }

    /// Changes the priority of the pieces of some paths, and of everything below them.
    fn prioritise(&mut self, content: ContentKey, stored: &Stored) {
        for (path, priority) in self.contents[&content].options.priorities.clone() {
            let pieces = pieces_within(stored, path.trim_end_matches('/'));
            self.brain(Input::Prioritise { content, pieces, priority });
        }
    }

    /// Everything wanted is here.
    pub(super) fn completed(&mut self, key: ContentKey) {
        let Some(content) = self.contents.get(&key) else { return };
        info!(content_id = %content.id, "complete");
        content.left_bytes.store(0, Ordering::Relaxed);
        content.news.send_modify(|news| news.completed = true);
        if content.stored().is_some_and(|stored| stored.is_complete()) {
            self.roster.completed(key);
        }
        self.report_on(key);
    }

    pub(super) fn starving(&mut self, key: ContentKey) {
        if let Some(content) = self.contents.get(&key) {
            content.news.send_modify(|news| news.starved += 1);
        }
    }

    /// A disk error stopped a content: it leaves the swarm, the others continue.
    pub(super) fn store_failed(&mut self, key: ContentKey, error: StoreError) {
        let Some(content) = self.contents.get_mut(&key) else { return };
        if matches!(content.search, Search::Failed(_)) {
            return;
        }
        warn!(content_id = %content.id, %error, "the content is stopped");
        content.search = Search::Failed(error.into());
        content.stored.send_replace(None);
        content.stop_announcing();
        let links: Vec<_> =
            self.links.iter().filter(|(_, l)| l.content == key).map(|(link, _)| *link).collect();
        for link in links {
            self.close(link);
        }
        self.roster.remove_content(key);
        self.brain(Input::RemoveContent { content: key });
        self.report_on(key);
    }

    /// The answer of a tracker or a ring node about a content.
    pub(super) fn announced(&mut self, report: Report) {
        let Some(content) = self.contents.get_mut(&report.content) else { return };
        let view = content.sources.entry(report.source.clone()).or_default();
        let candidates = match report.outcome {
            Ok(candidates) => candidates,
            Err(error) => {
                debug!(addr = %report.source, %error, "announce failed");
                view.error = Some(error);
                if !view.named {
                    content.sources.remove(&report.source);
                }
                return;
            }
        };
        view.error = None;
        view.success = Some(Instant::now());
        view.peers_given = candidates.len() as u32;
        self.meet(report.content, candidates);
    }

    /// Takes in named peers of a swarm.
    pub(super) fn meet(&mut self, key: ContentKey, met: Vec<Candidate>) {
        let Some(content) = self.contents.get_mut(&key) else { return };
        match &mut content.search {
            Search::Manifest { ask, candidates } => {
                for candidate in met {
                    if candidate.peer == self.identity.peer {
                        continue;
                    }
                    if let Ok(address) = candidate.address.parse() {
                        // Full: enough are being asked.
                        let _ = ask.try_send(address);
                    }
                    // Ids are public: the first information holds until a dial proves it wrong.
                    let is_known = candidates.iter().any(|known| known.peer == candidate.peer);
                    if !is_known && candidates.len() < MANIFEST_PEERS {
                        candidates.push(candidate);
                    }
                }
            }
            Search::Found => {
                let now = Instant::now();
                for candidate in met {
                    self.roster.learn(now, key, candidate);
                }
            }
            Search::Failed(_) => {}
        }
    }

    /// Updates metrics, and the status for watchers.
    pub(super) fn report(&self) {
        metrics::gauge!("shoal_peer_contents").set(self.contents.len() as f64);
        metrics::gauge!("shoal_peer_links").set(self.links.len() as f64);
        for (key, content) in &self.contents {
            if content.status.receiver_count() > 0 {
                self.report_on(*key);
            }
        }
    }

    pub(super) fn report_on(&self, key: ContentKey) {
        let status = Arc::new(self.status(key));
        self.contents[&key].status.send_if_modified(|old| {
            let changed = **old != *status;
            *old = status;
            changed
        });
    }
}

/// The pieces of the file at a path, or of all files below it.
fn pieces_within(stored: &Stored, path: &str) -> Vec<PieceIndex> {
    let is_within = |file: &str| {
        file.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let files = stored.manifest().files().iter().enumerate();
    files
        .filter(|(_, file)| is_within(&file.path))
        .flat_map(|(number, _)| stored.layout().pieces_of_file(number))
        .collect()
}
