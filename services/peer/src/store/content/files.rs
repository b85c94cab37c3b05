//! The bytes of a content's blobs on disk, read and written at offsets.
//!
//! Each blob of a content that belongs to shoal is a file. The blobs of a content that belongs to
//! others are read from the files of its tree; a pack from many.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{File, OpenOptions},
    io::{self, ErrorKind, IoSlice},
    mem::MaybeUninit,
    ops::Range,
    os::unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::fs::OFlags;
use shoal_common::{lock::Mutex, open_files::open_patiently};
use shoal_core::content::{BlobNumber, EntryNumber, Manifest};

use super::{directory::ContentDirectory, open_files::OpenFiles};
use crate::store::{
    StoreError,
    arrangement::{Arrangement, FileNumber},
    error::{cannot, unreadable},
    file_system::sync_directory,
    hash::{Fingerprint, Fingerprints},
    probe::{Step, reach},
};

/// Slices of one `pwritev`, at most: Linux's IOV_MAX.
const MAX_SLICES: usize = 1024;

/// Where the blobs of a content are.
pub(super) enum Place {
    /// In its directory, which belongs to shoal.
    Directory {
        directory: ContentDirectory,
        /// Not all of its pieces are held.
        is_written: bool,
    },
    /// The file or tree at a path, which belongs to others: symbolic links are followed.
    Tree(PathBuf),
}

impl Place {
    const fn arrangement(&self) -> Arrangement {
        match self {
            Self::Directory { .. } => Arrangement::Blobs,
            Self::Tree(_) => Arrangement::Tree,
        }
    }
}

/// The files of one content.
pub(in crate::store) struct Files {
    manifest: OnceLock<Manifest>,
    placed: Mutex<Arc<Placed>>,
    open: Arc<OpenFiles>,
    /// Blobs written since the last [`Files::sync`]. A blob is added after its bytes were written,
    /// so that the sync that removes it covers them.
    dirty: Mutex<BTreeSet<BlobNumber>>,
    /// The directories were synced. No file is created later.
    has_synced_names: AtomicBool,
}

/// The place of the blobs, until they are moved.
struct Placed {
    place: Place,
    /// The key of these files in [`OpenFiles`].
    key: u64,
    /// The fingerprints that the files must still have, if others can change them.
    expected: OnceLock<Fingerprints>,
}

impl Files {
    /// Files of a content whose manifest is not known yet.
    pub(super) fn new(place: Place, open: Arc<OpenFiles>) -> Self {
        let placed = Placed { place, key: open.new_content(), expected: OnceLock::new() };
        Self {
            manifest: OnceLock::new(),
            placed: Mutex::new(Arc::new(placed)),
            open,
            dirty: Mutex::default(),
            has_synced_names: AtomicBool::new(false),
        }
    }

    /// The manifest, once it is known.
    pub(super) fn manifest(&self) -> Option<&Manifest> {
        self.manifest.get()
    }

    /// From now on the manifest is known, and files may be created for its blobs.
    pub(super) fn set_manifest(&self, manifest: Manifest) -> &Manifest {
        let manifest = self.manifest.get_or_init(|| manifest);
        self.has_synced_names.store(false, Ordering::Relaxed);
        manifest
    }

    fn placed(&self) -> Arc<Placed> {
        self.placed.lock().clone()
    }

    /// What the files are, as of now.
    pub(super) fn arrangement(&self) -> Arrangement {
        self.placed().place.arrangement()
    }

    /// Their path, as of now: the file or tree, or the directory of the blobs.
    pub(super) fn path(&self) -> PathBuf {
        match &self.placed().place {
            Place::Directory { directory, .. } => directory.path().to_owned(),
            Place::Tree(path) => path.clone(),
        }
    }

    /// The blobs have become the file or tree at `path`, whose files have these fingerprints.
    pub(in crate::store) fn moved_to(&self, path: PathBuf, fingerprints: Fingerprints) {
        let (place, expected) = (Place::Tree(path), OnceLock::from(fingerprints));
        let placed = Placed { place, key: self.open.new_content(), expected };
        let before = std::mem::replace(&mut *self.placed.lock(), Arc::new(placed));
        self.open.close_all_of(before.key);
    }

    /// Closes the files that no call is reading, so that their space is free once they are deleted.
    pub(in crate::store) fn close(&self) {
        self.open.close_all_of(self.placed().key);
    }

    /// From now on others can change the files: reads fail unless they have these fingerprints.
    pub(super) fn guard(&self, expected: Fingerprints) {
        self.placed().expected.get_or_init(|| expected);
    }

    /// Like [`Files::guard`], with the present fingerprints of the files, which are returned.
    pub(in crate::store) fn guard_as_is(
        &self,
        manifest: &Manifest,
    ) -> Result<Fingerprints, StoreError> {
        self.check_all()?;
        let placed = self.placed();
        if let Some(expected) = placed.expected.get() {
            return Ok(expected.clone());
        }
        let look = |file| Fingerprint::at(&self.path_in(&placed.place, file));
        let present = Fingerprints::find(manifest, placed.place.arrangement(), look)?;
        present.wait_for_next_tick();
        Ok(placed.expected.get_or_init(|| present).clone())
    }

    /// The path of a file on disk.
    pub(in crate::store) fn path_of(&self, file: FileNumber) -> PathBuf {
        self.path_in(&self.placed().place, file)
    }

    fn path_in(&self, place: &Place, file: FileNumber) -> PathBuf {
        match place {
            Place::Directory { directory, .. } => directory.blob(file.blob()),
            Place::Tree(root) => {
                let manifest = self.manifest.get().expect("a tree has a manifest");
                path_below(root, manifest, file.entry())
            }
        }
    }

    fn file(&self, placed: &Placed, file: FileNumber) -> Result<Arc<File>, StoreError> {
        if let Some(open) = self.open.find((placed.key, file)) {
            return Ok(open);
        }
        let opened = Arc::new(self.open(placed, file)?);
        self.open.insert((placed.key, file), opened.clone());
        Ok(opened)
    }

    /// Opens the file of a blob for one caller, with a position of its own. It must be one file on
    /// disk: each blob in a directory is, and each whole file in a tree.
    pub(in crate::store) fn open_unshared(
        &self,
        manifest: &Manifest,
        blob: BlobNumber,
    ) -> Result<File, StoreError> {
        let placed = self.placed();
        let file = match (&placed.place, manifest.files_of(blob)) {
            (Place::Directory { .. }, _) => FileNumber::of_blob(blob),
            (Place::Tree(_), [file]) => FileNumber::of_entry(*file),
            (Place::Tree(path), _) => return Err(StoreError::SourceChanged(path.clone())),
        };
        self.open(&placed, file)
    }

    fn open(&self, placed: &Placed, file: FileNumber) -> Result<File, StoreError> {
        let path = self.path_in(&placed.place, file);
        let (flags, is_written) = match &placed.place {
            Place::Directory { is_written, .. } => (OFlags::NOFOLLOW, *is_written),
            // A pipe may have taken its place: opening it must not wait for a writer.
            Place::Tree(_) => (OFlags::NONBLOCK, false),
        };
        let mut options = OpenOptions::new();
        options.read(true).write(is_written).custom_flags(flags.bits().cast_signed());
        let opened = match open_patiently(|| options.open(&path)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.open_moved(placed, file).ok_or(error)
            }
            opened => opened,
        };
        let opened = opened.map_err(cannot("open", &path))?;
        // Another file may have taken its place, such as one that only this user may read.
        self.check(placed, file, &opened)?;
        Ok(opened)
    }

    /// Opens a blob that has become a file of the tree, while that is moved to its destination. It is
    /// served meanwhile, and syncing a large tree takes long.
    fn open_moved(&self, placed: &Placed, file: FileNumber) -> Option<File> {
        let Place::Directory { directory, .. } = &placed.place else { return None };
        let manifest = self.manifest.get()?;
        let [entry] = manifest.files_of(file.blob()) else { return None };
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let path = path_below(&directory.tree(), manifest, *entry);
        OpenOptions::new().read(true).custom_flags(flags).open(path).ok()
    }

    /// Fills `buffer` from an offset of a blob.
    pub(in crate::store) fn read(
        &self,
        blob: BlobNumber,
        at: u64,
        buffer: &mut [u8],
    ) -> Result<(), StoreError> {
        if let Some(bytes) = self.of_manifest(blob, at, buffer.len()) {
            buffer.copy_from_slice(bytes);
            return Ok(());
        }
        self.visit(blob, at, buffer.len(), |placed, file, at, range| {
            let open = self.file(placed, file)?;
            let path = || self.path_in(&placed.place, file);
            let part = &mut buffer[range];
            std::os::unix::fs::FileExt::read_exact_at(&*open, part, at)
                .map_err(|error| unreadable(&path(), error))?;
            self.check(placed, file, &open)
        })
    }

    /// Fills an uninitialised `buffer` from an offset of a blob.
    pub(super) fn read_uninit(
        &self,
        blob: BlobNumber,
        at: u64,
        buffer: &mut [MaybeUninit<u8>],
    ) -> Result<(), StoreError> {
        if let Some(bytes) = self.of_manifest(blob, at, buffer.len()) {
            for (to, from) in buffer.iter_mut().zip(bytes) {
                to.write(*from);
            }
            return Ok(());
        }
        self.visit(blob, at, buffer.len(), |placed, file, at, range| {
            let open = self.file(placed, file)?;
            let buffer = &mut buffer[range];
            let mut filled = 0;
            while filled < buffer.len() {
                match rustix::io::pread(&open, &mut buffer[filled..], at + filled as u64) {
                    Ok(([], _)) => {
                        return Err(StoreError::SourceChanged(self.path_in(&placed.place, file)));
                    }
                    Ok((read, _)) => filled += read.len(),
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => {
                        let path = self.path_in(&placed.place, file);
                        return Err(unreadable(&path, error.into()));
                    }
                }
            }
            self.check(placed, file, &open)
        })
    }

    /// Bytes of the manifest, once that is known.
    fn of_manifest(&self, blob: BlobNumber, at: u64, length: usize) -> Option<&[u8]> {
        let manifest = self.manifest.get().filter(|_| blob == BlobNumber::MANIFEST)?;
        manifest.encoded().get(at as usize..)?.get(..length)
    }

    /// Calls `visit` with the files that have these bytes of a blob, the first of them in the file,
    /// and the range of the bytes that it has.
    fn visit(
        &self,
        blob: BlobNumber,
        at: u64,
        length: usize,
        mut visit: impl FnMut(&Placed, FileNumber, u64, Range<usize>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let placed = self.placed();
        match (&placed.place, self.manifest.get()) {
            (Place::Tree(_), Some(manifest)) => Arrangement::Tree.visit(
                manifest,
                blob,
                at..at + length as u64,
                |file, at, range| visit(&placed, file, at, range),
            ),
            _ => visit(&placed, FileNumber::of_blob(blob), at, 0..length),
        }
    }

    /// Checks a file's fingerprint. Called after a read and not before, so that there is no time for
    /// a change in between.
    fn check(&self, placed: &Placed, file: FileNumber, open: &File) -> Result<(), StoreError> {
        let Some(expected) = placed.expected.get() else { return Ok(()) };
        let path = || self.path_in(&placed.place, file);
        let metadata = open.metadata().map_err(|error| cannot("look at", &path())(error))?;
        if expected.get(file).is_some_and(|expected| Fingerprint::of(&metadata) != *expected) {
            return Err(StoreError::SourceChanged(path()));
        }
        Ok(())
    }

    /// Checks the sizes and times of all files.
    pub(in crate::store) fn check_all(&self) -> Result<(), StoreError> {
        let placed = self.placed();
        let Some(expected) = placed.expected.get() else { return Ok(()) };
        expected.check(|file| self.path_in(&placed.place, file))
    }

    /// Writes `parts` one after the other, from an offset of a blob.
    pub(super) fn write(
        &self,
        blob: BlobNumber,
        at: u64,
        parts: &mut [IoSlice<'_>],
    ) -> Result<(), StoreError> {
        let open = self.file(&self.placed(), FileNumber::of_blob(blob))?;
        let written = reach(Step::Write).and_then(|()| write_vectored_at(&open, at, parts));
        // Also after an error: some bytes may have been written.
        self.mark_dirty(blob);
        written.map_err(|error| {
            StoreError::io("write", &self.path_of(FileNumber::of_blob(blob)), error)
        })
    }

    /// The blob has bytes that may not have reached the disk.
    pub(super) fn mark_dirty(&self, blob: BlobNumber) {
        self.dirty.lock().insert(blob);
    }

    /// Makes everything written so far survive a power cut. Only one thread at a time may call
    /// this: another would take the blobs that this one removed from `dirty` for synced. After an
    /// error it is unknown which bytes reached the disk: the system reports the error once, and the
    /// next sync succeeds.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        let placed = self.placed();
        let Place::Directory { directory, .. } = &placed.place else { return Ok(()) };
        if !self.has_synced_names.load(Ordering::Relaxed) {
            sync_names(directory)?;
            self.has_synced_names.store(true, Ordering::Relaxed);
        }
        let dirty = std::mem::take(&mut *self.dirty.lock());
        for blob in dirty {
            let open = self.file(&placed, FileNumber::of_blob(blob))?;
            reach(Step::SyncData)
                .and_then(|()| open.sync_data())
                .map_err(cannot("sync", &directory.blob(blob)))?;
        }
        Ok(())
    }
}

/// Makes the names of the blobs, and of the directory itself, survive a power cut.
fn sync_names(directory: &ContentDirectory) -> Result<(), StoreError> {
    sync_directory(&directory.blobs())?;
    directory.path().ancestors().take(2).try_for_each(sync_directory)
}

/// The path of an entry of a tree.
pub(in crate::store) fn path_below(
    root: &Path,
    manifest: &Manifest,
    entry: EntryNumber,
) -> PathBuf {
    let below = manifest.path_of(entry);
    if below.is_empty() { root.to_owned() } else { root.join(OsStr::from_bytes(&below)) }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.open.close_all_of(self.placed().key);
    }
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
