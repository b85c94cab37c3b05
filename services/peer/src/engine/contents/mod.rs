//! Contents: added, searched for, completed, removed.

mod content;
mod explain;
mod peers;
mod status;

use std::{sync::Arc, time::Instant};

use shoal_core::{
    Address,
    content::{ContentId, PieceIndex},
    swarm::{ContentKey, Input, Priority},
};
use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
};
use tracing::{Instrument as _, Span, info, warn};

pub(super) use self::content::Content;
use self::content::{MANIFEST_PEERS, Search};
use super::{
    Engine,
    event::{Event, MakeRoom},
};
use crate::{
    discovery::resolve,
    options::Options,
    status::Status,
    store::{StoreError, Stored},
};

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

    /// Searches for a content, and fetches it into the room that is made for it.
    pub(super) fn fetch(
        &mut self,
        id: ContentId,
        options: Options,
        make_room: MakeRoom,
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
        let (events, stop) = (self.senders.events.clone(), self.stop.clone());
        let resolving = async move {
            // No manifest: the content was removed before any peer had it.
            let Some((at, (manifest, hashes))) = resolve(id, peers).await else { return };
            let making_room = spawn_blocking(move || make_room(manifest, hashes));
            // This may take long: data that is there already is hashed.
            let Some(outcome) = stop.run_until_cancelled(making_room).await else { return };
            let outcome = outcome.expect("making room for a content does not panic");
            let _ = events.send(Event::Resolved { content: key, at, outcome }).await;
        };
        self.jobs.spawn("resolver", resolving.instrument(self.contents[&key].span.clone()));
        self.announce(key);
        self.watch(key)
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
        self.advance(Input::Prioritise { content: key, pieces, priority: Priority::Normal });
        self.prioritise(key, &stored);
    }

    /// Stops fetching and sharing a content; false if it was not here.
    pub(super) fn remove(&mut self, id: ContentId) -> bool {
        let Some(key) = self.ids.remove(&id) else { return false };
        self.close_all(key);
        self.directory.remove(id);
        self.peer_list.remove_content(key);
        self.advance(Input::RemoveContent { content: key });
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
        let content = Content::new(id, options, search, self.stop.child_token(), asked);
        self.directory.insert(id, key, content.watch_stored());
        self.ids.insert(id, key);
        self.contents.insert(key, content);
        key
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
                self.peer_list.answered(Instant::now(), key, at);
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
        content.set_stored(Some(stored.clone()));
        self.peer_list.add_content(key, held.is_full());
        if let Search::Manifest { candidates, .. } = search {
            for candidate in candidates {
                self.peer_list.learn(now, key, candidate);
            }
        }
        self.advance(Input::AddContent {
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
            self.advance(Input::Prioritise { content, pieces, priority });
        }
    }

    /// Everything wanted is here.
    pub(super) fn completed(&mut self, key: ContentKey) {
        let Some(content) = self.contents.get(&key) else { return };
        info!(content_id = %content.id, "complete");
        content.announce_completed();
        if content.stored().is_some_and(|stored| stored.is_complete()) {
            self.peer_list.completed(key);
        }
        self.report_on(key);
    }

    /// A disk error stopped a content: it leaves the swarm, the others continue.
    pub(super) fn store_failed(&mut self, key: ContentKey, error: StoreError) {
        let Some(content) = self.contents.get_mut(&key) else { return };
        if matches!(content.search, Search::Failed(_)) {
            return;
        }
        warn!(content_id = %content.id, %error, "the content is stopped");
        content.search = Search::Failed(error.into());
        content.set_stored(None);
        content.stop_announcing();
        self.close_all(key);
        self.peer_list.remove_content(key);
        self.advance(Input::RemoveContent { content: key });
        self.report_on(key);
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
