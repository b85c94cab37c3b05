//! One content on disk, shared by the threads that read and write it.
//!
//! [`Stored`] brings its parts together: the files, the pieces in progress, the writer of verified
//! pieces, and the log of the pieces held.

mod accept;
mod assembly;
mod directory;
mod files;
pub(super) mod held_log;
mod open_files;
mod progress;
mod writer;

use std::{
    mem::MaybeUninit,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use shoal_common::lock::Mutex;
use shoal_core::content::{
    Bitfield, BlockRange, ContentId, FileSpan, Layout, Manifest, PieceHashes, PieceIndex,
};

pub use self::accept::Accepted;
pub(super) use self::{
    directory::{ContentDirectory, create_file},
    held_log::HeldLog,
    open_files::OpenFiles,
};
use self::{
    files::{Access, Files},
    progress::Progress,
    writer::Writer,
};
use super::{
    StoreError,
    hash::{BUFFER_BYTES, Fingerprint, Hashed, hash_piece},
};

/// A content and its files, with all of its pieces or some of them.
pub struct Stored {
    id: ContentId,
    hashes: PieceHashes,
    pub(super) files: Files,
    pub(super) progress: Mutex<Progress>,
    writer: Writer,
    /// None for a content in place, which is never written.
    pub(super) log: Option<Mutex<HeldLog>>,
    /// Locked during a checkpoint: see [`Files::sync`].
    pub(super) checkpointing: Mutex<()>,
    was_removed: AtomicBool,
}

/// How the files of a content compare with their stored fingerprints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Revalidated {
    /// They are the same files.
    SameFiles,
    /// Some are other files with the same bytes.
    SameBytes,
}

impl Stored {
    /// A content that is served where it was hashed, and never written.
    pub fn in_place(hashed: Hashed) -> Arc<Self> {
        let Hashed { path, manifest, hashes, fingerprints } = hashed;
        Self::guarded(manifest, hashes, path, fingerprints, Arc::default())
    }

    /// A content that is served in place at `path`, as long as its files have these fingerprints.
    pub(super) fn guarded(
        manifest: Manifest,
        hashes: PieceHashes,
        path: PathBuf,
        fingerprints: Vec<Fingerprint>,
        open_files: Arc<OpenFiles>,
    ) -> Arc<Self> {
        let stored = Self::unguarded(manifest, hashes, path, open_files);
        stored.files.guard(fingerprints);
        stored
    }

    /// The same before the fingerprints of its files are known.
    pub(super) fn unguarded(
        manifest: Manifest,
        hashes: PieceHashes,
        path: PathBuf,
        open_files: Arc<OpenFiles>,
    ) -> Arc<Self> {
        let held = Bitfield::full(manifest.layout().piece_count());
        let files = Files::new(manifest, path, Access::InPlace, open_files);
        Arc::new(Self::new(hashes, files, held, None))
    }

    /// Guards the files if they match these fingerprints. A file with the same size and time but
    /// another device or inode is hashed again: its file system may have been mounted again, or it
    /// may be a different file.
    pub(super) fn revalidate(&self, known: &[Fingerprint]) -> Result<Revalidated, StoreError> {
        let mut now = Vec::with_capacity(known.len());
        let mut others = Vec::new();
        for (number, expected) in known.iter().enumerate() {
            let path = self.files.path_of(number);
            let found = Fingerprint::at(&path)?;
            if !found.has_same_size_and_time(expected) {
                return Err(StoreError::SourceChanged(path));
            }
            if found != *expected {
                others.push(number);
            }
            now.push(found);
        }
        self.files.guard(now);
        for number in &others {
            let pieces: Vec<_> = self.layout().pieces_of_file(*number).collect();
            if matching(&self.files, &self.hashes, pieces.clone()) != pieces {
                return Err(StoreError::SourceChanged(self.files.path_of(*number)));
            }
        }
        Ok(if others.is_empty() { Revalidated::SameFiles } else { Revalidated::SameBytes })
    }

    /// A content in its directory. Pieces that a reboot put in doubt are hashed again, and so are
    /// the files that are not of their full size.
    pub(super) fn resume(
        manifest: Manifest,
        hashes: PieceHashes,
        directory: &ContentDirectory,
        open_files: Arc<OpenFiles>,
    ) -> Result<Arc<Self>, StoreError> {
        let log_path = directory.log();
        let layout = manifest.layout();
        let mut logged = held_log::read(&log_path, layout.piece_count())?;
        let missing = directory.missing_files(&manifest);
        logged.doubt(missing.iter().flat_map(|file| layout.pieces_of_file(*file)));
        // A content without pieces holds all of them even before its files or directories exist.
        let is_whole = logged.held.is_full()
            && missing.is_empty()
            && directory.has_empty_directories(&manifest);
        if !is_whole {
            directory.create_files(&manifest)?;
        }
        let access = if is_whole { Access::Read } else { Access::Write };
        let files = Files::new(manifest, directory.data(), access, open_files);
        let doubtful = std::mem::take(&mut logged.doubtful);
        let verified = matching(&files, &hashes, doubtful);
        for piece in verified.iter().chain(&logged.unsynced) {
            files.mark_dirty(files.manifest().layout().span(*piece).file);
        }
        for piece in verified {
            logged.held.insert(piece);
        }
        let log = HeldLog::open(&log_path, &logged, || files.sync())?;
        Ok(Arc::new(Self::new(hashes, files, logged.held, Some(Mutex::new(log)))))
    }

    fn new(hashes: PieceHashes, files: Files, held: Bitfield, log: Option<Mutex<HeldLog>>) -> Self {
        let layout = files.manifest().layout();
        let held_bytes = held.iter().map(|piece| u64::from(layout.length_of(piece))).sum();
        Self {
            id: files.manifest().id(),
            hashes,
            files,
            progress: Mutex::new(Progress::new(held, held_bytes)),
            writer: Writer::default(),
            log,
            checkpointing: Mutex::default(),
            was_removed: AtomicBool::new(false),
        }
    }

    /// The hash of its manifest.
    pub const fn id(&self) -> ContentId {
        self.id
    }

    /// Its manifest.
    pub const fn manifest(&self) -> &Manifest {
        self.files.manifest()
    }

    /// How it is cut into pieces.
    pub const fn layout(&self) -> &Layout {
        self.manifest().layout()
    }

    /// The hashes of its pieces.
    pub const fn hashes(&self) -> &PieceHashes {
        &self.hashes
    }

    /// The pieces that are held, that is verified and written, as of now.
    pub fn held(&self) -> Bitfield {
        self.progress.lock().held.clone()
    }

    /// The number of pieces held, as of now.
    pub fn held_pieces(&self) -> u32 {
        self.progress.lock().held.held()
    }

    /// Bytes of the pieces held, as of now.
    pub fn held_bytes(&self) -> u64 {
        self.progress.lock().held_bytes
    }

    /// Whether the piece is held.
    pub fn has(&self, piece: PieceIndex) -> bool {
        self.progress.lock().held.has(piece)
    }

    /// Whether every piece is held.
    pub fn is_complete(&self) -> bool {
        self.progress.lock().held.is_full()
    }

    /// Its file or directory, as of now.
    pub fn path(&self) -> PathBuf {
        self.files.path()
    }

    /// Whether its files belong to others and are served in place.
    pub const fn is_in_place(&self) -> bool {
        self.log.is_none()
    }

    /// Reads a block of a held piece; `buffer` is as long as the block.
    ///
    /// A file that others can change is checked after each read. If it was changed since it was
    /// hashed, the error is [`StoreError::SourceChanged`], and its bytes are not to be sent.
    pub fn read(&self, range: BlockRange, buffer: &mut [u8]) -> Result<(), StoreError> {
        let span = self.locate(range, buffer.len())?;
        self.files.read(span.file, span.offset, buffer)
    }

    /// Like [`Stored::read`], into uninitialised memory. After success all of it is initialised.
    pub fn read_uninit(
        &self,
        range: BlockRange,
        buffer: &mut [MaybeUninit<u8>],
    ) -> Result<(), StoreError> {
        let span = self.locate(range, buffer.len())?;
        self.files.read_uninit(span.file, span.offset, buffer)
    }

    fn locate(&self, range: BlockRange, actual: usize) -> Result<FileSpan, StoreError> {
        self.check_block(range, actual)?;
        if !self.has(range.piece) {
            return Err(StoreError::NotHeld(range.piece));
        }
        let mut span = self.layout().span(range.piece);
        span.offset += u64::from(range.offset);
        Ok(span)
    }

    /// Checks that the content has this block, of this length, and was not removed.
    fn check_block(&self, range: BlockRange, actual: usize) -> Result<(), StoreError> {
        if self.was_removed.load(Ordering::Relaxed) {
            return Err(StoreError::Removed(self.id));
        }
        let checked = self.layout().range(range.piece.get(), range.offset, range.length)?;
        if actual != checked.length as usize {
            return Err(StoreError::WrongLength { range, actual });
        }
        Ok(())
    }

    /// A checkpoint is due: 64 MiB were written since the last one, or the first of them 5 s ago.
    pub fn is_checkpoint_due(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.lock().is_checkpoint_due())
    }

    /// Makes all held pieces survive a power cut. Waits for the disk, and must not be called on the
    /// I/O threads. Called when [`Stored::is_checkpoint_due`], on completion, and before exit.
    ///
    /// After an error the pieces since the last checkpoint are no longer held, and no others are
    /// accepted: the content has to be opened again.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        let Some(log) = &self.log else { return Ok(()) };
        let _checkpointing = self.checkpointing.lock();
        // The pieces are counted before the sync. The bytes of each were written, and their file
        // marked dirty, before it was appended to the log: so this sync or an earlier one covers
        // it.
        let Some(pieces) = log.lock().begin_checkpoint() else { return Ok(()) };
        if let Err(error) = self.files.sync() {
            if self.was_removed.load(Ordering::Relaxed) {
                return Ok(());
            }
            self.fail_checkpoint(log)?;
            return Err(error);
        }
        let log = log.lock().end_checkpoint(pieces)?;
        log.sync()
    }

    fn fail_checkpoint(&self, log: &Mutex<HeldLog>) -> Result<(), StoreError> {
        let lost = log.lock().fail_checkpoint()?;
        let mut progress = self.progress.lock();
        for piece in lost {
            if progress.held.remove(piece) {
                progress.held_bytes -= u64::from(self.layout().length_of(piece));
            }
        }
        Ok(())
    }

    /// A checkpoint has failed, so that no pieces are accepted any more.
    pub(super) fn has_failed(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.lock().has_failed())
    }

    /// Makes the files and their names survive a power cut, even if no pieces arrived.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.checkpoint()?;
        let _checkpointing = self.checkpointing.lock();
        self.files.sync()
    }

    /// The files are about to be deleted: further reads and writes fail.
    pub(super) fn mark_removed(&self) {
        self.was_removed.store(true, Ordering::Relaxed);
    }
}

/// Those of the pieces whose bytes can be read and match their hash.
fn matching(files: &Files, hashes: &PieceHashes, pieces: Vec<PieceIndex>) -> Vec<PieceIndex> {
    let layout = files.manifest().layout();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut matches = |piece: &PieceIndex| {
        let span = layout.span(*piece);
        files.file(span.file).is_ok_and(|file| {
            hash_piece(&file, layout, span, &mut buffer)
                .is_ok_and(|hash| hash == *hashes.of(*piece))
        })
    };
    pieces.into_iter().filter(|piece| matches(piece)).collect()
}
