//! The files of one content on disk: opened when needed, read and written at positions.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File, OpenOptions},
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use rustix::fs::OFlags;
use shoal_core::content::{FileEntry, Manifest};

use super::{StoreError, error::cannot, hash::unreadable, lock, scan::Fingerprint};

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
        let mut cache = lock(&self.cache);
        cache.clock += 1;
        let now = cache.clock;
        let (file, used) = cache.files.get_mut(&key)?;
        *used = now;
        Some(file.clone())
    }

    fn insert(&self, key: (u64, usize), file: Arc<File>) {
        let mut cache = lock(&self.cache);
        if cache.files.len() >= MAX_OPEN_FILES {
            let oldest = cache.files.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                cache.files.remove(&oldest);
            }
        }
        let now = cache.clock;
        cache.files.insert(key, (file, now));
    }

    fn close_all_of(&self, content: u64) {
        lock(&self.cache).files.retain(|(owner, _), _| *owner != content);
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
    /// Files written since the last [`Files::sync`].
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
        lock(&self.place).clone()
    }

    /// The files were renamed; those that are open stay so.
    pub(super) fn moved_to(&self, place: PathBuf) {
        *lock(&self.place) = place;
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
        let place = lock(&self.place);
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
        let path = self.path_of(file);
        let flags = match self.access {
            Access::Write | Access::Read => OFlags::NOFOLLOW,
            // What was a file may be a pipe by now: opening it must not wait for a writer.
            Access::InPlace => OFlags::NONBLOCK,
        };
        let mut options = OpenOptions::new();
        options.read(true).write(self.access == Access::Write);
        options.custom_flags(flags.bits().cast_signed());
        let opened = Arc::new(options.open(&path).map_err(cannot("open", &path))?);
        self.open.insert((self.key, file), opened.clone());
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
        for (file, expected) in guard.iter().enumerate() {
            let path = self.path_of(file);
            if Fingerprint::at(&path)? != *expected {
                return Err(StoreError::SourceChanged(path));
            }
        }
        Ok(())
    }

    /// Writes all of `parts`, one after the other, from a position of a file on.
    pub(super) fn write(
        &self,
        file: usize,
        at: u64,
        parts: &mut [IoSlice<'_>],
    ) -> Result<(), StoreError> {
        let open = self.file(file)?;
        lock(&self.dirty).insert(file);
        write_vectored_at(&open, at, parts)
            .map_err(|error| StoreError::io("write", &self.path_of(file), error))
    }

    /// Has everything written so far survive a power cut.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        if !self.has_synced_names.load(Ordering::Relaxed) {
            self.sync_names()?;
            self.has_synced_names.store(true, Ordering::Relaxed);
        }
        let dirty = std::mem::take(&mut *lock(&self.dirty));
        for file in &dirty {
            let synced = self
                .file(*file)
                .and_then(|open| open.sync_data().map_err(cannot("sync", &self.path_of(*file))));
            if synced.is_err() {
                lock(&self.dirty).extend(&dirty);
                return synced;
            }
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
    let file = File::create(&fresh).map_err(cannot("create", &fresh))?;
    file.write_all_at(bytes, 0).map_err(cannot("write", &fresh))?;
    file.sync_all().map_err(cannot("sync", &fresh))?;
    fs::rename(&fresh, path).map_err(cannot("rename", &fresh))?;
    Ok(file)
}

/// Has the names in a directory survive a power cut.
pub(super) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(cannot("sync", path))
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
    file.set_len(entry.size).map_err(cannot("resize", path))?;
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
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
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
