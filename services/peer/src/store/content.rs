//! One content on disk, shared by the threads that read and write it.

use std::{
    collections::{HashMap, HashSet},
    fs,
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

use super::{
    StoreError,
    accept::Slot,
    assembly::Statement,
    error::cannot,
    files::{self, Access, Files, OpenFiles},
    hash::{BUFFER_BYTES, Hashed, hash_piece},
    held::{self, HeldLog},
    scan::Fingerprint,
    writer::Writer,
};

/// A content with its files: all of its pieces, or those that came so far.
pub struct Stored {
    id: ContentId,
    hashes: PieceHashes,
    pub(super) files: Files,
    pub(super) progress: Mutex<Progress>,
    pub(super) writer: Writer,
    /// None: in place, where nothing is ever written.
    pub(super) log: Option<Mutex<HeldLog>>,
    /// Held while a checkpoint is made: see [`Files::sync`].
    pub(super) checkpointing: Mutex<()>,
    was_removed: AtomicBool,
}

/// How the files of a content were found again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recognised {
    /// They are the same.
    Same,
    /// They have the same bytes.
    Anew,
}

/// What is here, and what is coming. A piece is held, or being written, or in a slot, or none of
/// these; which attempt is made at it, the brain decides.
pub(super) struct Progress {
    pub(super) held: Bitfield,
    pub(super) held_bytes: u64,
    /// Verified pieces on their way to disk.
    pub(super) writing: HashSet<PieceIndex>,
    /// Pieces that something has come of.
    pub(super) slots: HashMap<PieceIndex, Arc<Slot>>,
    /// Attempts whose bytes are kept in memory.
    pub(super) in_memory: u32,
    /// What neighbours sent for pieces that failed their hash.
    pub(super) statements: HashMap<PieceIndex, Vec<Statement>>,
}

/// Where a content that is ours lies in its directory.
pub(super) struct ContentDirectory(pub(super) PathBuf);

impl ContentDirectory {
    pub(super) fn create(&self) -> Result<(), StoreError> {
        fs::create_dir_all(&self.0).map_err(cannot("create", &self.0))
    }

    pub(super) fn delete(&self) -> Result<(), StoreError> {
        files::delete_directory(&self.0)
    }

    /// The file, or the directory of files.
    pub(super) fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.0.join("held.log")
    }
}

impl Stored {
    /// A content that is served where it was hashed. Nothing is ever written.
    pub fn in_place(hashed: Hashed) -> Arc<Self> {
        let Hashed { path, manifest, hashes, fingerprints } = hashed;
        Self::guarded(manifest, hashes, path, fingerprints, Arc::default())
    }

    /// A content that is served as it lies at `path`, as long as its files look as they should.
    pub(super) fn guarded(
        manifest: Manifest,
        hashes: PieceHashes,
        path: PathBuf,
        fingerprints: Vec<Fingerprint>,
        open: Arc<OpenFiles>,
    ) -> Arc<Self> {
        let stored = Self::unguarded(manifest, hashes, path, open);
        stored.files.guard(fingerprints);
        stored
    }

    /// The same before it is known what its files should look like.
    pub(super) fn unguarded(
        manifest: Manifest,
        hashes: PieceHashes,
        path: PathBuf,
        open: Arc<OpenFiles>,
    ) -> Arc<Self> {
        let held = Bitfield::full(manifest.layout().piece_count());
        let files = Files::new(manifest, path, Access::InPlace, open);
        Arc::new(Self::new(hashes, files, held, None))
    }

    /// Has the files guarded if they are still those with these fingerprints. One that was not
    /// changed but is another file by its device and inode, as after its file system was mounted
    /// anew, is hashed again: it may be another's with the same size and time.
    pub(super) fn recognise(&self, known: &[Fingerprint]) -> Result<Recognised, StoreError> {
        let mut now = Vec::with_capacity(known.len());
        let mut others = Vec::new();
        for (number, expected) in known.iter().enumerate() {
            let path = self.files.path_of(number);
            let found = Fingerprint::at(&path)?;
            if !found.looks_like(expected) {
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
            if check(&self.files, &self.hashes, pieces.clone()) != pieces {
                return Err(StoreError::SourceChanged(self.files.path_of(*number)));
            }
        }
        Ok(if others.is_empty() { Recognised::Same } else { Recognised::Anew })
    }

    /// A content in its directory. What a reboot leaves in doubt is hashed again, and so are the
    /// files that are not as long as they were left.
    pub(super) fn resume(
        manifest: Manifest,
        hashes: PieceHashes,
        directory: &ContentDirectory,
        open: Arc<OpenFiles>,
    ) -> Result<Arc<Self>, StoreError> {
        let log_path = directory.log();
        let layout = manifest.layout();
        let mut logged = held::read(&log_path, layout.piece_count())?;
        let lacking = files::lacking(&manifest, &directory.data());
        logged.doubt(lacking.iter().flat_map(|file| layout.pieces_of_file(*file)));
        // A content without pieces has all of them before it has files, or a directory to hold none.
        let is_whole = logged.held.is_full()
            && lacking.is_empty()
            && files::has_directories(&manifest, &directory.data());
        if !is_whole {
            files::create(&manifest, &directory.data())?;
        }
        let access = if is_whole { Access::Read } else { Access::Write };
        let files = Files::new(manifest, directory.data(), access, open);
        let doubtful = std::mem::take(&mut logged.doubtful);
        let verified = check(&files, &hashes, doubtful);
        for piece in verified.iter().chain(&logged.unsynced) {
            files.note_written(files.manifest().layout().span(*piece).file);
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
            progress: Mutex::new(Progress {
                held,
                held_bytes,
                writing: HashSet::new(),
                slots: HashMap::new(),
                in_memory: 0,
                statements: HashMap::new(),
            }),
            writer: Writer::default(),
            log,
            checkpointing: Mutex::default(),
            was_removed: AtomicBool::new(false),
        }
    }

    /// Its id.
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

    /// The pieces that are verified and written, as of now.
    pub fn held(&self) -> Bitfield {
        self.progress.lock().held.clone()
    }

    /// How many pieces are verified and written, as of now.
    pub fn held_pieces(&self) -> u32 {
        self.progress.lock().held.held()
    }

    /// Bytes of the pieces held.
    pub fn held_bytes(&self) -> u64 {
        self.progress.lock().held_bytes
    }

    /// The piece is verified and written.
    pub fn has(&self, piece: PieceIndex) -> bool {
        self.progress.lock().held.has(piece)
    }

    /// Every piece is held.
    pub fn is_complete(&self) -> bool {
        self.progress.lock().held.is_full()
    }

    /// The file or directory where it lies now.
    pub fn path(&self) -> PathBuf {
        self.files.place()
    }

    /// It belongs to someone else, who lets it be served where it lies.
    pub const fn is_in_place(&self) -> bool {
        self.log.is_none()
    }

    /// Reads a block of a piece that is held; `buffer` is as long as the block.
    ///
    /// A file that others can change is looked at after each read: what was changed since it was
    /// hashed is refused with [`StoreError::SourceChanged`], and never sent.
    pub fn read(&self, range: BlockRange, buffer: &mut [u8]) -> Result<(), StoreError> {
        let span = self.locate(range, buffer.len())?;
        self.files.read(span.file, span.offset, buffer)
    }

    /// As [`Stored::read`], into memory that need not be filled before. All of it is filled after.
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

    /// The block is one of this content's, the bytes are as many, and the content is still there.
    pub(super) fn check_block(&self, range: BlockRange, actual: usize) -> Result<(), StoreError> {
        if self.was_removed.load(Ordering::Relaxed) {
            return Err(StoreError::Removed(self.id));
        }
        let checked = self.layout().range(range.piece.get(), range.offset, range.length)?;
        if actual != checked.length as usize {
            return Err(StoreError::WrongLength { range, actual });
        }
        Ok(())
    }

    /// Enough was written since the last checkpoint that another is due: 64 MiB, or 5 s ago.
    pub fn is_checkpoint_due(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.lock().is_checkpoint_due())
    }

    /// Has all pieces held survive a power cut. Waits for the disk: not for the threads that move
    /// bytes. Due when [`Stored::is_checkpoint_due`] says so, on completion, and before exit.
    ///
    /// After an error the pieces since the last checkpoint are not held any more, and no others are
    /// taken in: the content is to be opened anew.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        let Some(log) = &self.log else { return Ok(()) };
        let _checkpointing = self.checkpointing.lock();
        // Pieces are counted first: the bytes of each were written, and noted as written, before it
        // was appended to the log. So this sync covers them, or one before has.
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

    /// A checkpoint failed: nothing is taken in any more.
    pub(super) fn has_failed(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.lock().has_failed())
    }

    /// Has the files and their names survive a power cut, whether pieces came or not.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.checkpoint()?;
        let _checkpointing = self.checkpointing.lock();
        self.files.sync()
    }

    /// The files are going to be deleted: nothing is read or written any more.
    pub(super) fn retire(&self) {
        self.was_removed.store(true, Ordering::Relaxed);
    }
}

/// Those of the pieces whose bytes match their hash. One that cannot be read does not.
fn check(files: &Files, hashes: &PieceHashes, pieces: Vec<PieceIndex>) -> Vec<PieceIndex> {
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
