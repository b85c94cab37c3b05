//! The catalogue of a peer's contents: adds, opens and removes them, and knows what they use of
//! the quota.

mod content_locks;
pub(super) mod database;
mod directory;
mod eviction;
mod index;
mod reservation;
mod room;
pub(super) mod rows;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::Durability;
use shoal_common::{clock::unix_ms, lock::Mutex};
use shoal_core::{
    PeerId,
    content::{ContentId, Manifest, Metadata},
};
use tokio_util::sync::CancellationToken;

pub(super) use self::directory::PRIVATE;
use self::{
    content_locks::ContentLocks,
    database::{ContentRecord, Database},
    directory::DataDirectory,
    index::Index,
};
pub use self::{index::Entry, reservation::Reservation, room::Need};
use super::{
    StoreError,
    arrangement::Arrangement,
    content::{ContentDirectory, OpenFiles, Revalidated, Stored, held_log},
    hash::{Fingerprints, Hashed},
};
use crate::options::Options;

/// Precision of the time of last use after a restart: it saves a write per use.
const USE_GRANULARITY_MS: u64 = 60_000;

/// A data directory that this process alone has open.
pub struct Store {
    quota: Option<u64>,
    /// Bytes of the file system that are left free.
    min_free: u64,
    pub(super) database: Database,
    peer_id: PeerId,
    open_files: Arc<OpenFiles>,
    /// Async tasks lock it, so that it is never locked during disk work.
    pub(super) index: Arc<Mutex<Index>>,
    /// Locked while an entry changes in the database and in the index, so that both agree.
    changing: Mutex<()>,
    /// Locked during an eviction, so that two callers that need room do not evict for each other.
    evicting: Mutex<()>,
    /// Locked while room is looked for and reserved, so that two callers do not both get it.
    reserving: Mutex<()>,
    content_locks: ContentLocks,
    stop: CancellationToken,
    /// Last, so that the lock is held until the database is closed.
    directory: DataDirectory,
}

impl Store {
    /// Opens a data directory, or creates one. `quota` limits the bytes of all contents that are
    /// not in place, whole or not.
    pub fn open(directory: &Path, quota: Option<u64>) -> Result<Self, StoreError> {
        let directory = DataDirectory::open(directory)?;
        let database = Database::open(&directory.database())?;
        let index = Index::new(database.entries()?.into_iter().collect());
        let peer_id = database.peer_id()?;
        directory.clean(|id| index.entries.contains_key(&id))?;
        Ok(Self {
            quota,
            min_free: 0,
            database,
            peer_id,
            open_files: Arc::default(),
            index: Arc::new(Mutex::new(index)),
            changing: Mutex::default(),
            evicting: Mutex::default(),
            reserving: Mutex::default(),
            content_locks: ContentLocks::default(),
            stop: CancellationToken::new(),
            directory,
        })
    }

    /// Leaves so many bytes of the file system free: no content is added that would take them.
    #[must_use]
    pub const fn leaving_free(mut self, min_free: u64) -> Self {
        self.min_free = min_free;
        self
    }

    /// The identity of this peer, whatever its address.
    pub const fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// Cancelled to end long work, such as an export, because the process is stopping.
    pub const fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// All contents, whole or not.
    pub fn contents(&self) -> Vec<(ContentId, Entry)> {
        self.index.lock().entries.iter().map(|(id, entry)| (*id, entry.clone())).collect()
    }

    /// Whether the store has the content, whole or not.
    pub fn contains(&self, id: ContentId) -> bool {
        self.entry(id).is_some()
    }

    /// Adds a content to be downloaded, or opens it if the store has it.
    pub fn add(&self, metadata: Metadata) -> Result<Arc<Stored>, StoreError> {
        self.add_within(None, metadata)
    }

    /// Like [`Store::add`], in room that [`Store::make_room`] has reserved.
    pub fn add_within(
        &self,
        room: Option<Reservation>,
        metadata: Metadata,
    ) -> Result<Arc<Stored>, StoreError> {
        let id = metadata.id();
        let _locked = self.content_locks.lock(id);
        if self.contains(id) {
            return self.open_known(id);
        }
        let room = match room {
            Some(room) => room,
            None => self.reserve(Need::all(metadata.descriptor().disk_bytes()))?,
        };
        let directory = self.directory.content(id);
        directory.create()?;
        // A failed removal may have left a log without the pieces that it lists.
        held_log::delete(&directory.log())?;
        self.register_in(&directory, room, metadata)
    }

    /// Adds a content that is served where it was hashed. If the store has a copy of its own, that
    /// is served; if it has the content in place elsewhere, it is served from here from now on.
    pub fn add_in_place(&self, hashed: Hashed) -> Result<Arc<Stored>, StoreError> {
        let Hashed { path, manifest, fingerprints } = hashed;
        let id = manifest.id();
        let _locked = self.content_locks.lock(id);
        match self.entry(id) {
            Some(Entry { in_place: None, .. }) => return self.open_complete(id),
            Some(_) => self.remove_locked(id)?,
            None => {}
        }
        let entry = Entry::new(manifest.descriptor(), Some(path.clone()));
        let directory = self.directory.content(id);
        directory.write_manifest(&manifest)?;
        let open_files = self.open_files.clone();
        let stored = Stored::guarded(manifest, path, fingerprints.clone(), open_files);
        let record = ContentRecord::new(&stored, Some(&fingerprints));
        self.database.add(id, &entry, &record)?;
        Ok(self.register(id, entry, stored, None))
    }

    /// Adds a complete content, which lies in a staged directory.
    pub(super) fn add_complete(
        &self,
        room: Reservation,
        metadata: Metadata,
        staged: &Path,
    ) -> Result<Arc<Stored>, StoreError> {
        let id = metadata.id();
        let _locked = self.content_locks.lock(id);
        if self.contains(id) {
            return self.open_complete(id);
        }
        let directory = self.directory.adopt(staged, id)?;
        self.register_in(&directory, room, metadata)
    }

    /// Adds the content in a directory to the database and the index. Deletes the directory if that
    /// fails.
    fn register_in(
        &self,
        directory: &ContentDirectory,
        room: Reservation,
        metadata: Metadata,
    ) -> Result<Arc<Stored>, StoreError> {
        let id = metadata.id();
        let entry = Entry::new(metadata.descriptor(), None);
        let add = |stored: Arc<Stored>| {
            let record = ContentRecord::new(&stored, None);
            self.database.add(id, &entry, &record).map(|()| stored)
        };
        let stored = Stored::resume(metadata, directory, self.open_files.clone())
            .and_then(add)
            .inspect_err(|_| drop(self.directory.delete(directory)))?;
        Ok(self.register(id, entry, stored, Some(room)))
    }

    fn register(
        &self,
        id: ContentId,
        entry: Entry,
        stored: Arc<Stored>,
        room: Option<Reservation>,
    ) -> Arc<Stored> {
        let mut index = self.index.lock();
        index.insert(id, entry, &stored);
        if let Some(room) = room {
            room.redeem(&mut index);
        }
        stored
    }

    /// Opens a content, which all callers share. Pieces that a reboot put in doubt are hashed
    /// again.
    pub fn load(&self, id: ContentId) -> Result<Arc<Stored>, StoreError> {
        let _locked = self.content_locks.lock(id);
        self.open_known(id)
    }

    fn open_known(&self, id: ContentId) -> Result<Arc<Stored>, StoreError> {
        if let Some(stored) = self.opened(id) {
            return Ok(stored);
        }
        let entry = self.entry(id).ok_or(StoreError::Unknown(id))?;
        let (metadata, guarded) = self.database.record(id)?.decode(id)?;
        let directory = self.directory.content(id);
        let open_files = self.open_files.clone();
        let stored = match (entry.in_place, guarded) {
            (None, None) => Stored::resume(metadata, &directory, open_files)?,
            (in_place, guarded) => {
                let damaged = |what| StoreError::Damaged { what, id };
                let manifest = directory.manifest()?;
                let manifest = Manifest::decode(metadata.descriptor().clone(), manifest)
                    .map_err(|_| damaged("the manifest"))?;
                let arrangement = Arrangement::of(in_place.as_deref());
                let guarded = guarded
                    .and_then(|bytes| Fingerprints::decode(&manifest, arrangement, &bytes))
                    .ok_or_else(|| damaged("the record of the files"))?;
                let stored = if let Some(path) = in_place {
                    Stored::unguarded(manifest, path, open_files)
                } else {
                    // Exports share these files by hard links: one that was changed through an
                    // export must not be repaired.
                    guarded.check(|file| directory.blob(file.blob()))?;
                    Stored::resume(Metadata::Manifest(manifest), &directory, open_files)?
                };
                if stored.revalidate(&guarded)? == Revalidated::SameBytes {
                    self.guard(&stored)?;
                }
                stored
            }
        };
        self.index.lock().opened.insert(id, Arc::downgrade(&stored));
        Ok(stored)
    }

    fn open_complete(&self, id: ContentId) -> Result<Arc<Stored>, StoreError> {
        let stored = self.open_known(id)?;
        if !stored.is_complete() {
            return Err(StoreError::Downloading(id));
        }
        Ok(stored)
    }

    /// Removes a content, and deletes its files unless they are in place. Callers that still have
    /// it open get [`StoreError::Removed`].
    pub fn remove(&self, id: ContentId) -> Result<(), StoreError> {
        let _locked = self.content_locks.lock(id);
        self.remove_locked(id)
    }

    fn remove_locked(&self, id: ContentId) -> Result<(), StoreError> {
        let _reserved_until_deleted = {
            let _changing = self.changing.lock();
            let entry = self.entry(id).ok_or(StoreError::Unknown(id))?;
            self.database.remove(id)?;
            let mut index = self.index.lock();
            if let Some(stored) = index.remove(id) {
                stored.mark_removed();
                stored.files.close();
            }
            let is_ours = entry.in_place.is_none();
            let reserve = || Reservation::unchecked(&self.index, &mut index, entry.stored_bytes);
            is_ours.then(reserve)
        };
        self.directory.delete(&self.directory.content(id))
    }

    /// Protects a content from eviction, or ends the protection.
    pub fn pin(&self, id: ContentId, pinned: bool) -> Result<(), StoreError> {
        self.change(id, Durability::Immediate, |entry| {
            let is_new = entry.pinned != pinned;
            entry.pinned = pinned;
            is_new
        })
    }

    /// Records that a content is in use, for eviction. Cheap enough for each use.
    pub fn touch(&self, id: ContentId) -> Result<(), StoreError> {
        let now = unix_ms();
        self.change(id, Durability::None, |entry| {
            let before = std::mem::replace(&mut entry.last_used_unix_ms, now);
            before / USE_GRANULARITY_MS != now / USE_GRANULARITY_MS
        })
    }

    /// Changes the entry of a content; `change` returns whether the database is to be written.
    fn change(
        &self,
        id: ContentId,
        durability: Durability,
        change: impl FnOnce(&mut Entry) -> bool,
    ) -> Result<(), StoreError> {
        let _changing = self.changing.lock();
        let mut entry = self.entry(id).ok_or(StoreError::Unknown(id))?;
        if change(&mut entry) {
            self.database.update(id, &entry, durability)?;
        }
        self.index.lock().entries.insert(id, entry);
        Ok(())
    }

    /// The options given with a content.
    pub fn options(&self, id: ContentId) -> Result<Options, StoreError> {
        self.database.options(id)
    }

    /// Stores the options given with a content, until it is removed.
    pub fn note_options(&self, id: ContentId, options: &Options) -> Result<(), StoreError> {
        if self.database.options(id)? == *options {
            return Ok(());
        }
        self.database.set_options(id, options)
    }

    /// The paths to which a content is to be exported once it is complete.
    pub fn exports(&self, id: ContentId) -> Result<Vec<PathBuf>, StoreError> {
        self.database.exports(id)
    }

    /// Records that a content is to be exported to a path, kept until it is
    /// forgotten or the content removed.
    pub fn note_export(&self, id: ContentId, path: &Path) -> Result<(), StoreError> {
        let _changing = self.changing.lock();
        let mut known = self.database.exports(id)?;
        if known.iter().any(|known| known == path) || !self.contains(id) {
            return Ok(());
        }
        known.push(path.to_owned());
        self.database.set_exports(id, &known)
    }

    /// Cancels an export of a content to a path.
    pub fn forget_export(&self, id: ContentId, path: &Path) -> Result<(), StoreError> {
        let _changing = self.changing.lock();
        let mut known = self.database.exports(id)?;
        if !known.iter().any(|known| known == path) {
            return Ok(());
        }
        known.retain(|known| known != path);
        self.database.set_exports(id, &known)
    }

    /// From now on others can change the files of a content: it is refused once they do.
    pub(super) fn guard(&self, stored: &Stored) -> Result<(), StoreError> {
        let fingerprints = stored.files.guard_as_is(stored.complete_manifest()?)?;
        self.database.guard(stored.id(), &fingerprints.encode())
    }

    /// A new path for the directory of an import.
    pub(super) fn staging(&self) -> PathBuf {
        self.directory.staging()
    }

    fn entry(&self, id: ContentId) -> Option<Entry> {
        self.index.lock().entry(id)
    }

    /// The content if it is open, unless a checkpoint of it has failed.
    fn opened(&self, id: ContentId) -> Option<Arc<Stored>> {
        let opened = self.index.lock().opened(id);
        opened.filter(|stored| !stored.has_failed())
    }
}
