//! The data directory of a peer: its contents, what they may take, and who goes first.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, File, Permissions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use redb::Durability;
use rustix::process::geteuid;
use shoal_common::{
    clock::unix_ms,
    lock::{Condvar, Mutex},
};
use shoal_core::{
    PeerId,
    content::{ContentId, Manifest, PieceHashes},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Entry, Hashed, Reservation, StoreError, Stored,
    content::{ContentDirectory, Recognised},
    database::{Database, Described},
    error::cannot,
    files::{OpenFiles, delete_directory, sync_directory, write_whole},
    held,
    scan::Fingerprint,
};
use crate::options::Options;

const FORMAT: &str = "shoal store 1";

/// The mode of what only this user may enter.
pub(super) const PRIVATE: u32 = 0o700;

/// How exact the time of the last use is after a restart: it spares a write for each use.
const USE_GRANULARITY_MS: u64 = 60_000;

/// A data directory, open for this process alone.
pub struct Store {
    directory: PathBuf,
    quota: Option<u64>,
    pub(super) database: Database,
    peer_id: PeerId,
    pub(super) open: Arc<OpenFiles>,
    /// Async tasks look here: it is never locked while the disk works.
    pub(super) index: Arc<Mutex<Index>>,
    /// Held while an entry of the index is changed in the database, so that both say the same.
    changing: Mutex<()>,
    /// Held while contents are evicted, so that two in need of room do not evict for each other.
    evicting: Mutex<()>,
    claims: Claims,
    stop: CancellationToken,
    _lock: File,
}

/// What a store knows of its contents, in memory.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: BTreeMap<ContentId, Entry>,
    opened: BTreeMap<ContentId, Weak<Stored>>,
    /// Bytes of all [`Reservation`]s.
    pub(super) reserved: u64,
}

impl Index {
    /// Bytes that the quota counts. Sizes come from strangers: their sum may be more than there are
    /// numbers.
    pub(super) fn taken(&self) -> u64 {
        let ours = self.entries.values().filter(|entry| entry.in_place.is_none());
        ours.map(|entry| entry.total_bytes).fold(self.reserved, u64::saturating_add)
    }
}

/// The contents that are being added, opened or removed, each by one thread. Another that wants the
/// same content waits; others go on.
#[derive(Default)]
struct Claims {
    busy: Mutex<BTreeSet<ContentId>>,
    freed: Condvar,
}

struct Claim<'a> {
    claims: &'a Claims,
    id: ContentId,
}

impl Claims {
    fn claim(&self, id: ContentId) -> Claim<'_> {
        let mut busy = self.busy.lock();
        while !busy.insert(id) {
            busy = self.freed.wait(busy);
        }
        Claim { claims: self, id }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.claims.busy.lock().remove(&self.id);
        self.claims.freed.notify_all();
    }
}

impl Store {
    /// Opens a data directory, or makes one. `quota` bounds the bytes of all contents that are ours,
    /// whole or not.
    pub fn open(directory: &Path, quota: Option<u64>) -> Result<Self, StoreError> {
        let directory = &std::path::absolute(directory).map_err(cannot("find", directory))?;
        make_private(directory)?;
        let lock = lock_file(&directory.join("lock"), directory)?;
        check_format(&directory.join("VERSION"))?;
        let database = Database::open(&directory.join("store.redb"))?;
        let entries: BTreeMap<_, _> = database.entries()?.into_iter().collect();
        let store = Self {
            directory: directory.to_owned(),
            quota,
            peer_id: database.peer_id()?,
            database,
            open: Arc::default(),
            index: Arc::new(Mutex::new(Index { entries, ..Index::default() })),
            changing: Mutex::default(),
            evicting: Mutex::default(),
            claims: Claims::default(),
            stop: CancellationToken::new(),
            _lock: lock,
        };
        store.clean()?;
        sync_directory(directory)?;
        Ok(store)
    }

    /// The identity of this peer, whatever its address.
    pub const fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// Cancelled by who wants long work, as an export, to be given up: the process ends.
    pub const fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// All contents, whole or not.
    pub fn contents(&self) -> Vec<(ContentId, Entry)> {
        self.index.lock().entries.iter().map(|(id, entry)| (*id, entry.clone())).collect()
    }

    /// Whether the content is here, whole or not.
    pub fn contains(&self, id: ContentId) -> bool {
        self.entry(id).is_some()
    }

    /// Adds a content that is to be downloaded, or opens it if it is here.
    pub fn add(&self, manifest: Manifest, hashes: PieceHashes) -> Result<Arc<Stored>, StoreError> {
        self.add_within(None, manifest, hashes)
    }

    /// The same, in room that [`Store::make_room`] has promised to it.
    pub fn add_within(
        &self,
        room: Option<Reservation>,
        manifest: Manifest,
        hashes: PieceHashes,
    ) -> Result<Arc<Stored>, StoreError> {
        let id = manifest.id();
        let _claim = self.claims.claim(id);
        if self.contains(id) {
            return self.open_known(id);
        }
        let room = match room {
            Some(room) => room,
            None => self.reserve(manifest.layout().total_bytes())?,
        };
        let directory = self.directory_of(id);
        directory.create()?;
        // A removal that failed may have left one, and no longer the pieces that it lists.
        held::delete(&directory.log())?;
        self.enter_new(room, manifest, hashes, &directory)
    }

    /// Has a content in its directory be one of this store; deletes the directory if that fails.
    fn enter_new(
        &self,
        room: Reservation,
        manifest: Manifest,
        hashes: PieceHashes,
        directory: &ContentDirectory,
    ) -> Result<Arc<Stored>, StoreError> {
        let id = manifest.id();
        let described = describe(&manifest, &hashes, None);
        let entry = entry_of(&manifest, None);
        let stored = Stored::resume(manifest, hashes, directory, self.open.clone())
            .and_then(|stored| self.database.add(id, &entry, &described).map(|()| stored))
            .inspect_err(|_| drop(self.throw_away(directory)))?;
        Ok(self.enter(id, entry, stored, Some(room)))
    }

    /// Adds a content that is served where it was hashed. If the store has a copy of it, that is
    /// served; if it lies in place elsewhere, it is served from here on.
    pub fn add_in_place(&self, hashed: Hashed) -> Result<Arc<Stored>, StoreError> {
        let Hashed { path, manifest, hashes, fingerprints } = hashed;
        if path.to_str().is_none() {
            return Err(StoreError::NotUtf8(path));
        }
        let id = manifest.id();
        let _claim = self.claims.claim(id);
        match self.entry(id) {
            Some(Entry { in_place: None, .. }) => return self.open_complete(id),
            Some(_) => self.forget(id)?,
            None => {}
        }
        let entry = entry_of(&manifest, Some(path.clone()));
        let described = describe(&manifest, &hashes, Some(&fingerprints));
        self.database.add(id, &entry, &described)?;
        let stored = Stored::guarded(manifest, hashes, path, fingerprints, self.open.clone());
        Ok(self.enter(id, entry, stored, None))
    }

    /// Adds a whole content, which lies in a directory of its own on the same file system.
    pub(super) fn add_complete(
        &self,
        room: Reservation,
        manifest: Manifest,
        hashes: PieceHashes,
        staged: &Path,
    ) -> Result<Arc<Stored>, StoreError> {
        let id = manifest.id();
        let _claim = self.claims.claim(id);
        if self.contains(id) {
            return self.open_complete(id);
        }
        let directory = self.directory_of(id);
        self.throw_away(&directory)?;
        fs::rename(staged, &directory.0).map_err(cannot("rename", staged))?;
        sync_directory(&self.directory.join("contents"))?;
        self.enter_new(room, manifest, hashes, &directory)
    }

    /// Opens a content; all callers share one. What a reboot leaves in doubt is hashed again.
    pub fn load(&self, id: ContentId) -> Result<Arc<Stored>, StoreError> {
        let _claim = self.claims.claim(id);
        self.open_known(id)
    }

    fn open_known(&self, id: ContentId) -> Result<Arc<Stored>, StoreError> {
        if let Some(stored) = self.opened(id) {
            return Ok(stored);
        }
        let entry = self.entry(id).ok_or(StoreError::Unknown(id))?;
        let described = self.database.described(id)?;
        let (manifest, hashes, fingerprints) = described.checked(id)?;
        let open = self.open.clone();
        let stored = match entry.in_place.clone() {
            Some(_) if fingerprints.is_none() => {
                return Err(StoreError::Damaged { what: "the record of the files", id });
            }
            Some(path) => Stored::unguarded(manifest, hashes, path, open),
            None => {
                let directory = self.directory_of(id);
                if let Some(expected) = &fingerprints {
                    // Others have these files too: one that they changed is not ours to mend.
                    Fingerprint::check_all(expected, &manifest, &directory.data())?;
                }
                Stored::resume(manifest, hashes, &directory, open)?
            }
        };
        if let Some(fingerprints) = fingerprints
            && stored.recognise(&fingerprints)? == Recognised::Anew
        {
            self.guard(&stored)?;
        }
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

    /// Forgets a content and deletes its files, unless they are someone else's. Who still has it
    /// open gets [`StoreError::Removed`].
    pub fn remove(&self, id: ContentId) -> Result<(), StoreError> {
        let _claim = self.claims.claim(id);
        self.forget(id)
    }

    fn forget(&self, id: ContentId) -> Result<(), StoreError> {
        let (is_ours, _until_deleted) = {
            let _changing = self.changing.lock();
            let entry = self.entry(id).ok_or(StoreError::Unknown(id))?;
            self.database.remove(id)?;
            let mut index = self.index.lock();
            index.entries.remove(&id);
            if let Some(stored) = index.opened.remove(&id).and_then(|opened| opened.upgrade()) {
                stored.retire();
            }
            let is_ours = entry.in_place.is_none();
            let room = is_ours.then(|| Reservation::of(&self.index, &mut index, entry.total_bytes));
            (is_ours, room)
        };
        if is_ours { self.throw_away(&self.directory_of(id)) } else { Ok(()) }
    }

    /// Deletes a content's directory, if it is there. It has another name before a file of it is
    /// gone, so that nothing half deleted is ever taken for a content.
    fn throw_away(&self, directory: &ContentDirectory) -> Result<(), StoreError> {
        let thrown_away = self.staging();
        match fs::rename(&directory.0, &thrown_away) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed.map_err(cannot("rename", &directory.0))?,
        }
        delete_directory(&thrown_away)
    }

    /// Protects a content from eviction, or no longer.
    pub fn pin(&self, id: ContentId, pinned: bool) -> Result<(), StoreError> {
        self.change(id, Durability::Immediate, |entry| {
            let is_new = entry.pinned != pinned;
            entry.pinned = pinned;
            is_new
        })
    }

    /// What was asked for along with a content.
    pub fn options(&self, id: ContentId) -> Result<Options, StoreError> {
        self.database.options(id)
    }

    /// Keeps what is asked for along with a content, until it is removed.
    pub fn note_options(&self, id: ContentId, options: &Options) -> Result<(), StoreError> {
        if self.database.options(id)? == *options {
            return Ok(());
        }
        self.database.set_options(id, options)
    }

    /// Where copies of a content are wanted once it is complete.
    pub fn exports(&self, id: ContentId) -> Result<Vec<PathBuf>, StoreError> {
        self.database.exports(id)
    }

    /// Keeps that a copy is wanted at a path, which is UTF-8, until that is forgotten or the content
    /// removed.
    pub fn note_export(&self, id: ContentId, path: &Path) -> Result<(), StoreError> {
        let _changing = self.changing.lock();
        let mut known = self.database.exports(id)?;
        if known.iter().any(|known| known == path) || !self.contains(id) {
            return Ok(());
        }
        known.push(path.to_owned());
        self.database.set_exports(id, &known)
    }

    /// No copy is wanted there any more.
    pub fn forget_export(&self, id: ContentId, path: &Path) -> Result<(), StoreError> {
        let _changing = self.changing.lock();
        let mut known = self.database.exports(id)?;
        if !known.iter().any(|known| known == path) {
            return Ok(());
        }
        known.retain(|known| known != path);
        self.database.set_exports(id, &known)
    }

    /// Notes that a content is in use, for eviction. Cheap enough for each use.
    pub fn touch(&self, id: ContentId) -> Result<(), StoreError> {
        let now = unix_ms();
        self.change(id, Durability::None, |entry| {
            let before = std::mem::replace(&mut entry.last_used_unix_ms, now);
            before / USE_GRANULARITY_MS != now / USE_GRANULARITY_MS
        })
    }

    /// Changes what is known of a content; `change` tells whether that is worth a write.
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

    /// Evicts what was not used for longest until `bytes` more fit the quota, and promises them.
    /// Returns what it evicted: whole contents, neither pinned nor in place. If that does not suffice,
    /// none.
    ///
    /// To be called before a content is added or imported, which fails without room: so the caller
    /// knows which swarms to leave.
    pub fn make_room(&self, bytes: u64) -> Result<(Vec<ContentId>, Reservation), StoreError> {
        self.make_room_beside(&BTreeSet::new(), bytes)
    }

    /// The same, without evicting some of them.
    pub fn make_room_beside(
        &self,
        spared: &BTreeSet<ContentId>,
        bytes: u64,
    ) -> Result<(Vec<ContentId>, Reservation), StoreError> {
        let _evicting = self.evicting.lock();
        let mut evicted = Vec::new();
        loop {
            match self.reserve(bytes) {
                Ok(room) => return Ok((evicted, room)),
                // Once more: what was evicted for us, one who needs no eviction may have taken.
                Err(StoreError::QuotaExceeded { needed, missing, quota }) => {
                    for id in self.evictable(spared, needed, missing, quota)? {
                        match self.remove(id) {
                            // Somebody else removed it, so there is as much more room.
                            Err(StoreError::Unknown(_)) => {}
                            removed => removed?,
                        }
                        evicted.push(id);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Enough contents to make `missing` bytes of room, those first that were not used for longest.
    fn evictable(
        &self,
        spared: &BTreeSet<ContentId>,
        needed: u64,
        mut missing: u64,
        quota: u64,
    ) -> Result<Vec<ContentId>, StoreError> {
        let mut evictable: Vec<_> = self
            .contents()
            .into_iter()
            .filter(|(id, entry)| !entry.pinned && !spared.contains(id))
            .filter(|(id, entry)| self.is_whole_and_ours(*id, entry))
            .collect();
        evictable.sort_by_key(|(_, entry)| entry.last_used_unix_ms);
        let mut evicted = Vec::new();
        for (id, entry) in evictable {
            if missing == 0 {
                break;
            }
            missing = missing.saturating_sub(entry.total_bytes);
            evicted.push(id);
        }
        if missing > 0 {
            return Err(StoreError::QuotaExceeded { needed, missing, quota });
        }
        Ok(evicted)
    }

    fn is_whole_and_ours(&self, id: ContentId, entry: &Entry) -> bool {
        entry.in_place.is_none()
            && match self.opened(id) {
                Some(stored) => stored.is_complete(),
                None => held::read(&self.directory_of(id).log(), entry.piece_count)
                    .is_ok_and(|log| log.held.is_full()),
            }
    }

    /// Promises bytes to a content that is going to be added or imported.
    pub(super) fn reserve(&self, bytes: u64) -> Result<Reservation, StoreError> {
        Reservation::within(self.quota, &self.index, bytes)
    }

    /// Has a content refused once others change its files.
    pub(super) fn guard(&self, stored: &Stored) -> Result<(), StoreError> {
        self.database.guard(stored.id(), &Fingerprint::encode_all(stored.files.guard_as_is()?))
    }

    /// A name for what is no content yet, or none any more.
    pub(super) fn staging(&self) -> PathBuf {
        self.import_directory().join(Uuid::new_v4().simple().to_string())
    }

    fn import_directory(&self) -> PathBuf {
        self.directory.join("import")
    }

    fn directory_of(&self, id: ContentId) -> ContentDirectory {
        ContentDirectory(self.directory.join("contents").join(id.to_string()))
    }

    fn entry(&self, id: ContentId) -> Option<Entry> {
        self.index.lock().entries.get(&id).cloned()
    }

    fn opened(&self, id: ContentId) -> Option<Arc<Stored>> {
        let opened = self.index.lock().opened.get(&id).and_then(Weak::upgrade);
        opened.filter(|stored| !stored.has_failed())
    }

    fn enter(
        &self,
        id: ContentId,
        entry: Entry,
        stored: Arc<Stored>,
        room: Option<Reservation>,
    ) -> Arc<Stored> {
        let mut index = self.index.lock();
        index.entries.insert(id, entry);
        index.opened.insert(id, Arc::downgrade(&stored));
        if let Some(room) = room {
            room.redeem(&mut index);
        }
        stored
    }

    /// Deletes what a crash left behind.
    fn clean(&self) -> Result<(), StoreError> {
        let import = self.import_directory();
        match fs::remove_dir_all(&import) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(cannot("delete", &import))?,
        }
        let contents = self.directory.join("contents");
        for directory in [&import, &contents] {
            fs::create_dir_all(directory).map_err(cannot("create", directory))?;
        }
        let known = &self.index.lock().entries;
        for directory in fs::read_dir(&contents).map_err(cannot("list", &contents))? {
            let path = directory.map_err(cannot("list", &contents))?.path();
            let id = path.file_name().and_then(|name| name.to_str()?.parse().ok());
            if !id.is_some_and(|id| known.contains_key(&id)) {
                fs::remove_dir_all(&path).map_err(cannot("delete", &path))?;
            }
        }
        Ok(())
    }
}

/// Creates the directory, which nobody else may enter. One that is there is made so too if it is a
/// data directory or empty: any other has more uses than ours.
fn make_private(directory: &Path) -> Result<(), StoreError> {
    if let Some(parent) = directory.parent() {
        fs::create_dir_all(parent).map_err(cannot("create", parent))?;
    }
    match DirBuilder::new().mode(PRIVATE).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        created => return created.map_err(cannot("create", directory)),
    }
    let list = || fs::read_dir(directory).map_err(cannot("list", directory));
    let metadata = fs::metadata(directory).map_err(cannot("look at", directory))?;
    let is_private = metadata.mode() & 0o777 & !PRIVATE == 0;
    // Of another's directory, such as a volume's, nobody but its owner decides.
    let is_ours = metadata.uid() == geteuid().as_raw();
    if !is_private && is_ours && (directory.join("VERSION").is_file() || list()?.next().is_none()) {
        fs::set_permissions(directory, Permissions::from_mode(PRIVATE))
            .map_err(cannot("change", directory))?;
    }
    Ok(())
}

/// Takes a lock file, for as long as the answer lives.
pub(super) fn lock_file(path: &Path, directory: &Path) -> Result<File, StoreError> {
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(cannot("open", path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(directory.to_owned())),
        Err(TryLockError::Error(error)) => Err(StoreError::io("lock", path, error)),
    }
}

fn check_format(path: &Path) -> Result<(), StoreError> {
    match fs::read_to_string(path) {
        Ok(found) if found.trim_end() == FORMAT => Ok(()),
        Ok(found) => Err(StoreError::Format {
            path: path.to_owned(),
            found: found.trim_end().chars().take(80).collect(),
            expected: FORMAT,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            write_whole(path, format!("{FORMAT}\n").as_bytes()).map(drop)
        }
        Err(error) => Err(StoreError::io("read", path, error)),
    }
}

fn describe(
    manifest: &Manifest,
    hashes: &PieceHashes,
    fingerprints: Option<&[Fingerprint]>,
) -> Described {
    let hashes = hashes.as_bytes().to_vec();
    let fingerprints = fingerprints.map(Fingerprint::encode_all);
    Described { manifest: manifest.encode(), hashes, fingerprints }
}

fn entry_of(manifest: &Manifest, in_place: Option<PathBuf>) -> Entry {
    let now = unix_ms();
    Entry {
        name: manifest.name().to_owned(),
        total_bytes: manifest.layout().total_bytes(),
        piece_count: manifest.layout().piece_count(),
        pinned: false,
        added_unix_ms: now,
        last_used_unix_ms: now,
        in_place,
    }
}
