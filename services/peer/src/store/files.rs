//! The files of one content on disk: opened when needed, read and written at positions.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, IoSlice},
    mem::MaybeUninit,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use rustix::fs::OFlags;
use shoal_common::lock::Mutex;
use shoal_core::content::{FileEntry, Manifest};

use super::{
    StoreError,
    error::cannot,
    hash::unreadable,
    probe::{Step, reach},
    scan::Fingerprint,
};

/// Files kept open by a process, over all contents: well below the usual limit of 1,024.
const MAX_OPEN_FILES: usize = 256;

/// Slices of one `pwritev`, at most: Linux's IOV_MAX.
const MAX_SLICES: usize = 1024;

/// The files that are open, of all contents of a store. The one not used for longest is closed
/// when there are too many.
#[derive(Default)]
pub(super) struct OpenFiles {
    cache: Mutex<Cache>,
    contents: AtomicU64,
}

/// By content and number of the file; with the time of the last use, as `clock` counts it.
#[derive(Default)]
struct Cache {
    files: HashMap<(u64, usize), (Arc<File>, u64)>,
    clock: u64,
}

impl OpenFiles {
    fn find(&self, key: (u64, usize)) -> Option<Arc<File>> {
        let mut cache = self.cache.lock();
        cache.clock += 1;
        let now = cache.clock;
        let (file, used) = cache.files.get_mut(&key)?;
        *used = now;
        Some(file.clone())
    }

    fn insert(&self, key: (u64, usize), file: Arc<File>) {
        // Closed after the lock is given back: some file systems write then.
        let _closed = {
            let mut cache = self.cache.lock();
            let mut surplus = None;
            if cache.files.len() >= MAX_OPEN_FILES {
                let oldest = cache.files.iter().min_by_key(|(_, (_, used))| *used);
                let oldest = oldest.map(|(key, _)| *key);
                surplus = oldest.and_then(|key| cache.files.remove(&key));
            }
            let now = cache.clock;
            (surplus, cache.files.insert(key, (file, now)))
        };
    }

    fn close_all_of(&self, content: u64) {
        let is_of_it = |(owner, _): &(u64, usize), _: &mut _| *owner == content;
        let _closed: Vec<_> = self.cache.lock().files.extract_if(is_of_it).collect();
    }
}

/// Whose the files are, and what may be done with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Ours, and not complete.
    Write,
    /// Ours, complete.
    Read,
    /// Someone else's: symbolic links are followed.
    InPlace,
}

/// The files of one content.
pub(super) struct Files {
    manifest: Manifest,
    /// The file, or the directory that holds the files.
    place: Mutex<PathBuf>,
    access: Access,
    open: Arc<OpenFiles>,
    /// This content's key in `open`.
    key: u64,
    /// Files written since the last [`Files::sync`]. One is added after its bytes were written: so a
    /// sync that takes it out covers them.
    dirty: Mutex<BTreeSet<usize>>,
    /// The directories were synced: no file is created later.
    has_synced_names: AtomicBool,
    /// What the files must still look like, if others can change them.
    guard: OnceLock<Vec<Fingerprint>>,
}

impl Files {
    pub(super) fn new(
        manifest: Manifest,
        place: PathBuf,
        access: Access,
        open: Arc<OpenFiles>,
    ) -> Self {
        let key = open.contents.fetch_add(1, Ordering::Relaxed);
        Self {
            manifest,
            place: Mutex::new(place),
            access,
            open,
            key,
            dirty: Mutex::default(),
            has_synced_names: AtomicBool::new(false),
            guard: OnceLock::new(),
        }
    }

    pub(super) const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The file, or the directory that holds the files.
    pub(super) fn place(&self) -> PathBuf {
        self.place.lock().clone()
    }

    /// The files were renamed; those that are open stay so.
    pub(super) fn moved_to(&self, place: PathBuf) {
        *self.place.lock() = place;
    }

    /// From now on others can change the files: reads fail once they no longer look like this.
    pub(super) fn guard(&self, fingerprints: Vec<Fingerprint>) -> &[Fingerprint] {
        self.guard.get_or_init(|| fingerprints)
    }

    /// From now on others can change the files: reads fail once they no longer look as they do now.
    pub(super) fn guard_as_is(&self) -> Result<&[Fingerprint], StoreError> {
        if let Some(guard) = self.guard.get() {
            return self.check_all().map(|()| guard.as_slice());
        }
        let count = self.manifest.files().len();
        let fingerprints = (0..count)
            .map(|file| Fingerprint::at(&self.path_of(file)))
            .collect::<Result<Vec<_>, _>>()?;
        Fingerprint::settle(&fingerprints);
        Ok(self.guard(fingerprints))
    }

    pub(super) fn path_of(&self, file: usize) -> PathBuf {
        let place = self.place.lock();
        if self.manifest.is_directory() {
            place.join(&self.manifest.files()[file].path)
        } else {
            place.clone()
        }
    }

    pub(super) fn file(&self, file: usize) -> Result<Arc<File>, StoreError> {
        if let Some(open) = self.open.find((self.key, file)) {
            return Ok(open);
        }
        let opened = Arc::new(self.open_alone(file)?);
        self.open.insert((self.key, file), opened.clone());
        Ok(opened)
    }

    /// Opens a file for one caller, whose position in it is their own.
    pub(super) fn open_alone(&self, file: usize) -> Result<File, StoreError> {
        let path = self.path_of(file);
        let flags = match self.access {
            Access::Write | Access::Read => OFlags::NOFOLLOW,
            // What was a file may be a pipe by now: opening it must not wait for a writer.
            Access::InPlace => OFlags::NONBLOCK,
        };
        let mut options = OpenOptions::new();
        options.read(true).write(self.access == Access::Write);
        options.custom_flags(flags.bits().cast_signed());
        let opened = options.open(&path).map_err(cannot("open", &path))?;
        // Another file may lie there by now, such as one that nobody but us may read.
        self.check(file, &opened)?;
        Ok(opened)
    }

    /// Reads all of `buffer` from a position of a file.
    pub(super) fn read(&self, file: usize, at: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        let open = self.file(file)?;
        open.read_exact_at(buffer, at).map_err(|error| unreadable(&self.path_of(file), error))?;
        self.check(file, &open)
    }

    /// Reads all of `buffer`, which need not be filled before, from a position of a file.
    pub(super) fn read_uninit(
        &self,
        file: usize,
        at: u64,
        buffer: &mut [MaybeUninit<u8>],
    ) -> Result<(), StoreError> {
        let open = self.file(file)?;
        let mut filled = 0;
        while filled < buffer.len() {
            match rustix::io::pread(&open, &mut buffer[filled..], at + filled as u64) {
                Ok(([], _)) => {
                    return Err(StoreError::SourceChanged(self.path_of(file)));
                }
                Ok((read, _)) => filled += read.len(),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(unreadable(&self.path_of(file), error.into())),
            }
        }
        self.check(file, &open)
    }

    /// Whether the file still looks as it must. Looking after the read, and not before, leaves no
    /// time for a change in between.
    fn check(&self, file: usize, open: &File) -> Result<(), StoreError> {
        let Some(guard) = self.guard.get() else { return Ok(()) };
        let metadata = open.metadata().map_err(cannot("look at", &self.path_of(file)))?;
        if Fingerprint::of(&metadata) != guard[file] {
            return Err(StoreError::SourceChanged(self.path_of(file)));
        }
        Ok(())
    }

    /// Whether all files look as they must.
    pub(super) fn check_all(&self) -> Result<(), StoreError> {
        let Some(guard) = self.guard.get() else { return Ok(()) };
        Fingerprint::check_all(guard, &self.manifest, &self.place())
    }

    /// Writes all of `parts`, one after the other, from a position of a file on.
    pub(super) fn write(
        &self,
        file: usize,
        at: u64,
        parts: &mut [IoSlice<'_>],
    ) -> Result<(), StoreError> {
        let open = self.file(file)?;
        let written = reach(Step::Write).and_then(|()| write_vectored_at(&open, at, parts));
        // Even after an error, some bytes may have been written.
        self.note_written(file);
        written.map_err(|error| StoreError::io("write", &self.path_of(file), error))
    }

    /// The file has bytes that may not have reached the disk.
    pub(super) fn note_written(&self, file: usize) {
        self.dirty.lock().insert(file);
    }

    /// Has everything written so far survive a power cut. Only one thread may do so at a time: what
    /// one has taken out of `dirty`, another would take for synced. After an error nobody can tell
    /// what reached the disk: the system reports it once, and says that all is well the next time.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        if !self.has_synced_names.load(Ordering::Relaxed) {
            self.sync_names()?;
            self.has_synced_names.store(true, Ordering::Relaxed);
        }
        let dirty = std::mem::take(&mut *self.dirty.lock());
        for file in &dirty {
            let open = self.file(*file)?;
            reach(Step::SyncData)
                .and_then(|()| open.sync_data())
                .map_err(cannot("sync", &self.path_of(*file)))?;
        }
        Ok(())
    }

    fn sync_names(&self) -> Result<(), StoreError> {
        let place = self.place();
        let above = place.ancestors().skip(1).take(2).map(Path::to_owned);
        let mut directories: BTreeSet<_> = above.collect();
        if self.manifest.is_directory() {
            directories.insert(place.clone());
            let files = self.manifest.files().iter().map(|file| file.path.as_str());
            let empty = self.manifest.empty_directories().iter().map(String::as_str);
            for path in files.chain(empty) {
                let parents = path.match_indices('/').map(|(end, _)| place.join(&path[..end]));
                directories.extend(parents);
            }
        }
        directories.iter().try_for_each(|directory| sync_directory(directory))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.open.close_all_of(self.key);
    }
}

/// Writes a small file all or nothing, to survive a power cut.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<File, StoreError> {
    let fresh = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    let file = options.open(&fresh).map_err(cannot("create", &fresh))?;
    file.write_all_at(bytes, 0).map_err(cannot("write", &fresh))?;
    file.sync_all().map_err(cannot("sync", &fresh))?;
    fs::rename(&fresh, path).map_err(cannot("rename", &fresh))?;
    sync_parent(path)?;
    Ok(file)
}

/// Has the names in a directory survive a power cut.
pub(super) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    let directory = File::open(path).map_err(cannot("open", path))?;
    match reach(Step::SyncDirectory).and_then(|()| directory.sync_all()) {
        // Some network file systems have nothing to sync here.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
            Ok(())
        }
        synced => synced.map_err(cannot("sync", path)),
    }
}

/// Has the name at `path`, created or renamed, survive a power cut.
pub(super) fn sync_parent(path: &Path) -> Result<(), StoreError> {
    // A relative path of one component lies in the working directory.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    match sync_directory(parent.unwrap_or(Path::new("."))) {
        // One that may be written to but not read cannot be synced either.
        Err(StoreError::Denied { .. }) => Ok(()),
        synced => synced,
    }
}

/// Has all that was written to the file system of `path` survive a power cut: one call for files that
/// may be many.
pub(super) fn sync_file_system(path: &Path) -> Result<(), StoreError> {
    let directory = File::open(path).map_err(cannot("open", path))?;
    rustix::fs::syncfs(directory).map_err(|error| StoreError::io("sync", path, error.into()))
}

/// Deletes a directory with all that is in it.
pub(super) fn delete_directory(path: &Path) -> Result<(), StoreError> {
    reach(Step::Delete).and_then(|()| fs::remove_dir_all(path)).map_err(cannot("delete", path))
}

/// Whether the directories that hold nothing are there, of a tree.
pub(super) fn has_directories(manifest: &Manifest, place: &Path) -> bool {
    let mut empty = manifest.empty_directories().iter();
    place.exists() && empty.all(|directory| place.join(directory).is_dir())
}

/// Numbers of the files that are not there, or are shorter or longer than they should be.
pub(super) fn lacking(manifest: &Manifest, place: &Path) -> Vec<usize> {
    let is_lacking = |number: &usize| {
        let file = &manifest.files()[*number];
        let path = if manifest.is_directory() { place.join(&file.path) } else { place.to_owned() };
        !path.symlink_metadata().is_ok_and(|found| found.is_file() && found.len() == file.size)
    };
    (0..manifest.files().len()).filter(is_lacking).collect()
}

/// Creates the files of a content, sparse and of full size, and its empty directories. What is
/// there already stays.
pub(super) fn create(manifest: &Manifest, place: &Path) -> Result<(), StoreError> {
    if !manifest.is_directory() {
        return create_file(place, &manifest.files()[0]).map(drop);
    }
    fs::create_dir_all(place).map_err(cannot("create", place))?;
    let mut parent = PathBuf::new();
    for file in manifest.files() {
        let path = place.join(&file.path);
        if let Some(directory) = path.parent().filter(|directory| *directory != parent) {
            directory.clone_into(&mut parent);
            fs::create_dir_all(&parent).map_err(cannot("create", &parent))?;
        }
        create_file(&path, file)?;
    }
    for directory in manifest.empty_directories() {
        let path = place.join(directory);
        fs::create_dir_all(&path).map_err(cannot("create", &path))?;
    }
    Ok(())
}

/// Creates one file, sparse and of full size, unless it is there.
pub(super) fn create_file(path: &Path, entry: &FileEntry) -> Result<File, StoreError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .mode(if entry.executable { 0o755 } else { 0o644 })
        .open(path)
        .map_err(cannot("create", path))?;
    let found = file.metadata().map_err(cannot("look at", path))?;
    // Resized to what it is, it would look changed.
    if found.len() != entry.size {
        file.set_len(entry.size).map_err(cannot("resize", path))?;
    }
    Ok(file)
}

/// Creates the directories above a path.
pub(super) fn create_parent(path: &Path) -> Result<(), StoreError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    fs::create_dir_all(parent).map_err(cannot("create", parent))
}

fn write_vectored_at(file: &File, mut at: u64, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !parts.is_empty() {
        let count = parts.len().min(MAX_SLICES);
        match rustix::io::pwritev(file, &parts[..count], at) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => {
                at += written as u64;
                IoSlice::advance_slices(&mut parts, written);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
