//! The files of a content: opened on demand, read and written at offsets.

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::{self, ErrorKind, IoSlice},
    mem::MaybeUninit,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::fs::OFlags;
use shoal_common::lock::Mutex;
use shoal_core::content::Manifest;

use super::open_files::OpenFiles;
use crate::store::{
    StoreError,
    error::{cannot, unreadable},
    file_system::sync_directory,
    hash::Fingerprint,
    probe::{Step, reach},
};

/// Slices of one `pwritev`, at most: Linux's IOV_MAX.
const MAX_SLICES: usize = 1024;

/// Who owns the files, and how they are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Owned by shoal, and not complete.
    Write,
    /// Owned by shoal, and complete.
    Read,
    /// Owned by others: symbolic links are followed.
    InPlace,
}

/// The files of one content.
pub(in crate::store) struct Files {
    manifest: Manifest,
    /// The file, or the directory that holds the files.
    path: Mutex<PathBuf>,
    access: Access,
    open: Arc<OpenFiles>,
    /// The key of this content in `open`.
    key: u64,
    /// Files written since the last [`Files::sync`]. A file is added after its bytes were written,
    /// so that the sync that removes it covers them.
    dirty: Mutex<BTreeSet<usize>>,
    /// The directories were synced. No file is created later.
    has_synced_names: AtomicBool,
    /// The fingerprints that the files must still have, if others can change them.
    expected: OnceLock<Vec<Fingerprint>>,
}

impl Files {
    pub(super) fn new(
        manifest: Manifest,
        path: PathBuf,
        access: Access,
        open: Arc<OpenFiles>,
    ) -> Self {
        let key = open.new_content();
        Self {
            manifest,
            path: Mutex::new(path),
            access,
            open,
            key,
            dirty: Mutex::default(),
            has_synced_names: AtomicBool::new(false),
            expected: OnceLock::new(),
        }
    }

    pub(super) const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The file, or the directory that holds the files, as of now.
    pub(super) fn path(&self) -> PathBuf {
        self.path.lock().clone()
    }

    /// The files were renamed. Open files stay open.
    pub(in crate::store) fn moved_to(&self, path: PathBuf) {
        *self.path.lock() = path;
    }

    /// From now on others can change the files: reads fail unless the files have these
    /// fingerprints.
    pub(super) fn guard(&self, expected: Vec<Fingerprint>) -> &[Fingerprint] {
        self.expected.get_or_init(|| expected)
    }

    /// Like [`Files::guard`], with the present fingerprints of the files.
    pub(in crate::store) fn guard_as_is(&self) -> Result<&[Fingerprint], StoreError> {
        if let Some(expected) = self.expected.get() {
            return self.check_all().map(|()| expected.as_slice());
        }
        let count = self.manifest.files().len();
        let fingerprints = (0..count)
            .map(|file| Fingerprint::at(&self.path_of(file)))
            .collect::<Result<Vec<_>, _>>()?;
        Fingerprint::wait_for_next_tick(&fingerprints);
        Ok(self.guard(fingerprints))
    }

    pub(in crate::store) fn path_of(&self, file: usize) -> PathBuf {
        let path = self.path.lock();
        if self.manifest.is_directory() {
            path.join(&self.manifest.files()[file].path)
        } else {
            path.clone()
        }
    }

    pub(super) fn file(&self, file: usize) -> Result<Arc<File>, StoreError> {
        if let Some(open) = self.open.find((self.key, file)) {
            return Ok(open);
        }
        let opened = Arc::new(self.open_unshared(file)?);
        self.open.insert((self.key, file), opened.clone());
        Ok(opened)
    }

    /// Opens a file for one caller, with a position of its own.
    pub(in crate::store) fn open_unshared(&self, file: usize) -> Result<File, StoreError> {
        let path = self.path_of(file);
        let flags = match self.access {
            Access::Write | Access::Read => OFlags::NOFOLLOW,
            // A pipe may have taken its place: opening it must not wait for a writer.
            Access::InPlace => OFlags::NONBLOCK,
        };
        let mut options = OpenOptions::new();
        options.read(true).write(self.access == Access::Write);
        options.custom_flags(flags.bits().cast_signed());
        let opened = options.open(&path).map_err(cannot("open", &path))?;
        // Another file may have taken its place, such as one that only this user may read.
        self.check(file, &opened)?;
        Ok(opened)
    }

    /// Fills `buffer` from an offset of a file.
    pub(super) fn read(&self, file: usize, at: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        let open = self.file(file)?;
        open.read_exact_at(buffer, at).map_err(|error| unreadable(&self.path_of(file), error))?;
        self.check(file, &open)
    }

    /// Fills an uninitialised `buffer` from an offset of a file.
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

    /// Checks the file's fingerprint. Called after a read and not before, so that there is no time
    /// for a change in between.
    fn check(&self, file: usize, open: &File) -> Result<(), StoreError> {
        let Some(expected) = self.expected.get() else { return Ok(()) };
        let metadata = open.metadata().map_err(cannot("look at", &self.path_of(file)))?;
        if Fingerprint::of(&metadata) != expected[file] {
            return Err(StoreError::SourceChanged(self.path_of(file)));
        }
        Ok(())
    }

    /// Checks the sizes and times of all files.
    pub(in crate::store) fn check_all(&self) -> Result<(), StoreError> {
        let Some(expected) = self.expected.get() else { return Ok(()) };
        Fingerprint::check_all(expected, &self.manifest, &self.path())
    }

    /// Writes `parts` one after the other, from an offset of a file.
    pub(super) fn write(
        &self,
        file: usize,
        at: u64,
        parts: &mut [IoSlice<'_>],
    ) -> Result<(), StoreError> {
        let open = self.file(file)?;
        let written = reach(Step::Write).and_then(|()| write_vectored_at(&open, at, parts));
        // Also after an error: some bytes may have been written.
        self.mark_dirty(file);
        written.map_err(|error| StoreError::io("write", &self.path_of(file), error))
    }

    /// The file has bytes that may not have reached the disk.
    pub(super) fn mark_dirty(&self, file: usize) {
        self.dirty.lock().insert(file);
    }

    /// Makes everything written so far survive a power cut. Only one thread at a time may call
    /// this: another would take the files that this one removed from `dirty` for synced. After an
    /// error it is unknown which bytes reached the disk: the system reports the error once, and the
    /// next sync succeeds.
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
        let path = self.path();
        let above = path.ancestors().skip(1).take(2).map(Path::to_owned);
        let mut directories: BTreeSet<_> = above.collect();
        if self.manifest.is_directory() {
            directories.insert(path.clone());
            let files = self.manifest.files().iter().map(|file| file.path.as_str());
            let empty = self.manifest.empty_directories().iter().map(String::as_str);
            for inside in files.chain(empty) {
                let parents = inside.match_indices('/').map(|(end, _)| path.join(&inside[..end]));
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
