//! Contents: added, searched for, completed, removed.

mod content;
mod explain;
mod peers;
mod status;

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use shoal_core::{
    Address,
    content::{ContentId, Escaped, Manifest, PieceIndex},
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
            // No descriptor: the content was removed before any peer had it.
            let Some((at, metadata)) = resolve(id, peers).await else { return };
            let making_room = spawn_blocking(move || make_room(metadata));
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

    /// The descriptor was fetched, and room made for the content or not.
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

    /// Joins the swarm of a content.
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
        // Without a manifest it is not known which pieces these are.
        let Some(manifest) = stored.manifest() else { return };
        let pieces = by_priority(manifest, &self.contents[&content].options.priorities);
        for (priority, pieces) in pieces {
            self.advance(Input::Prioritise { content, pieces, priority });
        }
    }

    /// A piece was stored: if it was the last of the manifest, that is read.
    pub(super) fn piece_stored(&mut self, key: ContentKey, piece: PieceIndex) {
        let Some(content) = self.contents.get_mut(&key) else { return };
        let Some(stored) = content.stored().filter(|stored| stored.manifest().is_none()) else {
            return;
        };
        let is_whole = |stored: &Stored| stored.layout().pieces().all(|piece| stored.has(piece));
        if content.reads_manifest
            || stored.layout().piece(piece.get()).is_none()
            || !is_whole(&stored)
        {
            return;
        }
        content.reads_manifest = true;
        let events = self.senders.events.clone();
        let reading = async move {
            let read = spawn_blocking(move || stored.learn_manifest()).await;
            let outcome = read.expect("reading a manifest does not panic");
            let _ = events.send(Event::ManifestRead { content: key, outcome }).await;
        };
        self.jobs.spawn("manifest", reading.instrument(content.span.clone()));
    }

    /// The manifest of a content was read.
    pub(super) fn manifest_read(
        &mut self,
        key: ContentKey,
        outcome: Result<Vec<PieceIndex>, StoreError>,
    ) {
        let holes = match outcome {
            Ok(holes) => holes,
            Err(error) => return self.store_failed(key, error),
        };
        let stored = self.contents.get(&key).and_then(Content::stored);
        let Some(stored) = stored else { return };
        // Before they could be requested.
        for piece in holes {
            self.advance(Input::PieceStored { content: key, piece });
        }
        let layout = stored.layout().clone();
        self.advance(Input::LayoutKnown { content: key, layout });
        self.prioritise(key, &stored);
        if let Some(content) = self.contents.get(&key) {
            content.note_left(&stored);
        }
        if self.swarm.content_status(key).is_some_and(|status| status.missing == 0) {
            self.completed(key);
        }
        self.report_on(key);
    }

    /// Everything wanted is here.
    pub(super) fn completed(&mut self, key: ContentKey) {
        let Some(content) = self.contents.get(&key) else { return };
        // A content without pieces beside its manifest's is complete once that was read.
        if content.stored().is_some_and(|stored| stored.manifest().is_none()) {
            return;
        }
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

/// The pieces that do not have the normal priority. The last of the paths that a file is at or below
/// decides about it; that of a file which is not UTF-8 is escaped, as where it is shown. A piece with bytes of several files has the highest of their priorities.
fn by_priority(
    manifest: &Manifest,
    paths: &[(String, Priority)],
) -> BTreeMap<Priority, Vec<PieceIndex>> {
    let mut pieces: BTreeMap<_, Vec<_>> = BTreeMap::new();
    if paths.is_empty() {
        return pieces;
    }
    let layout = manifest.layout();
    let mut highest = vec![None; layout.piece_count() as usize];
    for (file, part) in manifest.files() {
        let Some(blob) = part.blob else { continue };
        let file = manifest.path_of(file);
        let escaped = file.utf8_chunks().any(|chunk| !chunk.invalid().is_empty());
        let escaped = escaped.then(|| Escaped(&file).to_string());
        let is_at = |path: &str| {
            is_within(&file, path)
                || escaped.as_ref().is_some_and(|file| is_within(file.as_bytes(), path))
        };
        let decides = paths.iter().rev().find(|(path, _)| is_at(path));
        let priority = decides.map_or(Priority::Normal, |(_, priority)| *priority);
        for piece in layout.pieces_within(blob, &(part.offset..part.offset + part.size)) {
            let highest = &mut highest[piece.get() as usize];
            *highest = (*highest).max(Some(priority));
        }
    }
    for (piece, priority) in layout.pieces().zip(highest) {
        if let Some(priority) = priority.filter(|priority| *priority != Priority::Normal) {
            pieces.entry(priority).or_default().push(piece);
        }
    }
    pieces
}

/// Whether a file is at a path or below it.
fn is_within(file: &[u8], path: &str) -> bool {
    let rest = file.strip_prefix(path.trim_end_matches('/').as_bytes());
    rest.is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt as _};

    use shoal_core::content::PieceLength;

    use Priority::{High, Low, Normal, Skip};

    use super::*;
    use crate::store::{HashOptions, hash};

    #[test]
    fn a_piece_of_several_files_has_the_highest_of_their_priorities() {
        const PIECE: usize = PieceLength::MIN.get() as usize;
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("sub")).unwrap();
        // A pack of three files, then a file that is there twice.
        for (name, bytes) in [("a", "a"), ("sub/b", "b"), ("sub/c", "c")] {
            fs::write(directory.path().join(name), bytes).unwrap();
        }
        for name in ["sub/long", "sub-long"] {
            fs::write(directory.path().join(name), vec![7; 2 * PIECE]).unwrap();
        }
        let manifest = hash(directory.path(), &HashOptions::default(), |_| {}).unwrap().manifest;
        let (pack, long) = (vec![1], vec![2, 3]);
        let pieces = |paths: &[(&str, Priority)]| -> Vec<(Priority, Vec<u32>)> {
            let paths = paths.iter().map(|(path, priority)| ((*path).to_owned(), *priority));
            let pieces = by_priority(&manifest, &paths.collect::<Vec<_>>()).into_iter();
            pieces
                .map(|(priority, pieces)| {
                    (priority, pieces.into_iter().map(PieceIndex::get).collect())
                })
                .collect()
        };
        assert_eq!(pieces(&[]), []);
        assert_eq!(pieces(&[("nothing", Skip)]), []);
        assert_eq!(pieces(&[("sub", Skip)]), [], "other files need the same pieces");
        assert_eq!(pieces(&[("sub-long", Skip), ("sub/", Skip)]), [(Skip, long.clone())]);
        assert_eq!(pieces(&[("a", Skip), ("sub", Skip)]), [(Skip, pack.clone())]);
        assert_eq!(pieces(&[("a", Low), ("sub/b", Skip), ("sub/c", Skip)]), [(Low, pack.clone())]);
        assert_eq!(pieces(&[("sub/c", High)]), [(High, pack)]);
        // The last path that applies to a file decides.
        assert_eq!(pieces(&[("sub", High), ("sub/b", Skip), ("sub/c", Low)]), [(High, long)]);
        assert_eq!(pieces(&[("sub", High), ("sub", Normal)]), []);
    }

    #[test]
    fn a_path_that_is_not_utf_8_is_named_as_it_is_shown() {
        const PIECE: usize = PieceLength::MIN.get() as usize;
        let directory = tempfile::tempdir().unwrap();
        let odd = directory.path().join(OsStr::from_bytes(b"odd\\\xff"));
        fs::create_dir(&odd).unwrap();
        fs::write(odd.join("file"), vec![7; PIECE]).unwrap();
        fs::write(directory.path().join("other"), vec![8; PIECE]).unwrap();
        let manifest = hash(directory.path(), &HashOptions::default(), |_| {}).unwrap().manifest;
        let first = manifest.files().next().unwrap().0;
        let shown = Escaped(&manifest.path_of(first)).to_string();
        assert_eq!(shown, r"odd\\\xff/file");
        for path in [shown.as_str(), r"odd\\\xff", r"odd\\\xff/"] {
            let pieces = by_priority(&manifest, &[(path.to_owned(), Skip)]);
            assert_eq!(pieces, [(Skip, vec![PieceIndex::new(1)])].into(), "{path}");
        }
    }
}
