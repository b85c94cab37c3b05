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
mod verify;
mod writer;

use std::{
    mem::MaybeUninit,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use shoal_common::lock::Mutex;
use shoal_core::content::{
    Bitfield, BlobNumber, BlockRange, ContentId, Descriptor, Layout, Manifest, ManifestError,
    ManifestHashes, Metadata, PieceHash, PieceIndex, Span,
};

pub use self::{accept::Accepted, verify::Verified};
pub(super) use self::{
    directory::{ContentDirectory, file_mode},
    files::path_below,
    held_log::HeldLog,
    open_files::OpenFiles,
};
use self::{
    files::{Files, Place},
    progress::Progress,
    writer::Writer,
};
use super::{
    StoreError,
    hash::{BUFFER_BYTES, Fingerprint, Fingerprints, Hashed, check_holes, hash_piece},
    names::check_names,
};

/// A content and its files, with all of its pieces or some of them.
pub struct Stored {
    id: ContentId,
    descriptor: Descriptor,
    manifest_hashes: ManifestHashes,
    /// The layout until the manifest is known.
    partial_layout: Layout,
    pub(super) files: Files,
    pub(super) progress: Mutex<Progress>,
    writer: Writer,
    /// None for a content in place, which is never written.
    pub(super) owned: Option<Owned>,
    /// A directory, not there yet, whose file system must be able to keep the names.
    names_tried_in: OnceLock<PathBuf>,
    /// Locked during a checkpoint: see [`Files::sync`].
    pub(super) checkpointing: Mutex<()>,
    was_removed: AtomicBool,
}

/// The directory of a content that belongs to shoal, and the log of the pieces held.
pub(super) struct Owned {
    directory: ContentDirectory,
    pub(super) log: Mutex<HeldLog>,
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
        let Hashed { path, manifest, fingerprints } = hashed;
        Self::guarded(manifest, path, fingerprints, Arc::default())
    }

    /// A content that is served in place at `path`, as long as its files have these fingerprints.
    pub(super) fn guarded(
        manifest: Manifest,
        path: PathBuf,
        fingerprints: Fingerprints,
        open_files: Arc<OpenFiles>,
    ) -> Arc<Self> {
        let stored = Self::unguarded(manifest, path, open_files);
        stored.files.guard(fingerprints);
        stored
    }

    /// The same before the fingerprints of its files are known.
    pub(super) fn unguarded(
        manifest: Manifest,
        path: PathBuf,
        open_files: Arc<OpenFiles>,
    ) -> Arc<Self> {
        let held = Bitfield::full(manifest.layout().piece_count());
        let files = Files::new(Place::Tree(path), open_files);
        Arc::new(Self::new(Known::Manifest(manifest), files, held, None))
    }

    /// Guards the files if they match these fingerprints. A file with the same size and time but
    /// another device or inode is hashed again: its file system may have been mounted again, or it
    /// may be a different file.
    pub(super) fn revalidate(&self, known: &Fingerprints) -> Result<Revalidated, StoreError> {
        let Some(manifest) = self.manifest() else { return Ok(Revalidated::SameFiles) };
        let mut others = Vec::new();
        let arrangement = self.files.arrangement();
        let now = Fingerprints::find(manifest, arrangement, |file| {
            let path = self.files.path_of(file);
            let found = Fingerprint::at(&path)?;
            let expected = known.get(file);
            if !expected.is_some_and(|expected| found.has_same_size_and_time(expected)) {
                return Err(StoreError::SourceChanged(path));
            }
            if expected != Some(&found) {
                others.push(file);
            }
            Ok(found)
        })?;
        self.files.guard(now);
        for file in &others {
            let pieces = arrangement.pieces(manifest, *file);
            if self.matching(pieces.clone()) != pieces {
                return Err(StoreError::SourceChanged(self.files.path_of(*file)));
            }
        }
        Ok(if others.is_empty() { Revalidated::SameFiles } else { Revalidated::SameBytes })
    }

    /// A content in its directory. Pieces that a reboot put in doubt are hashed again, and so are
    /// the blobs that are not of their full size, and a manifest that is not whole.
    pub(super) fn resume(
        metadata: Metadata,
        directory: &ContentDirectory,
        open_files: Arc<OpenFiles>,
    ) -> Result<Arc<Self>, StoreError> {
        directory.create()?;
        let partial = metadata.descriptor().layout()?;
        let mut logged = held_log::read(&directory.log(), partial.piece_count())?;
        let known = Known::find(metadata, directory)?;
        if let Known::Manifest(manifest) = &known {
            let missing = directory.missing_blobs(manifest);
            logged.doubt(missing.iter().flat_map(|blob| manifest.layout().pieces_of(*blob)));
            logged.hold(manifest.layout().pieces_of(BlobNumber::MANIFEST));
            check_holes(manifest, &logged.unknown(manifest.holes()))?;
            logged.hold(manifest.holes());
            if !missing.is_empty() {
                directory.create_blobs(manifest)?;
            }
        } else {
            directory.create_manifest(partial.size_of(BlobNumber::MANIFEST))?;
            // If the log lists the whole manifest, that is damaged: no other piece can be checked.
            let held: Vec<_> = logged.held.iter().collect();
            logged.doubt(held);
        }
        let doubtful = std::mem::take(&mut logged.doubtful);
        let held = std::mem::replace(&mut logged.held, Bitfield::empty(0));
        let is_written = !(doubtful.is_empty() && held.is_full());
        let place = Place::Directory { directory: directory.clone(), is_written };
        let mut stored = Self::new(known, Files::new(place, open_files), held, None);
        let verified = stored.matching(doubtful);
        for piece in verified.iter().chain(&logged.unsynced) {
            stored.files.mark_dirty(stored.layout().span(*piece).blob);
        }
        stored.hold(verified);
        let held = stored.held();
        let log = HeldLog::open(&directory.log(), &logged, &held, || stored.files.sync())?;
        stored.owned = Some(Owned { directory: directory.clone(), log: Mutex::new(log) });
        Ok(Arc::new(stored))
    }

    fn new(known: Known, files: Files, held: Bitfield, owned: Option<Owned>) -> Self {
        let (descriptor, manifest_hashes) = match known {
            Known::Manifest(manifest) => {
                let hashes = ManifestHashes::of(&manifest);
                (files.set_manifest(manifest).descriptor().clone(), hashes)
            }
            Known::Descriptor(descriptor, hashes) => (descriptor, hashes),
        };
        let partial_layout = descriptor.layout().expect("a descriptor has a valid layout");
        let stored = Self {
            id: descriptor.id(),
            descriptor,
            manifest_hashes,
            partial_layout,
            files,
            progress: Mutex::new(Progress::new(held, 0)),
            writer: Writer::default(),
            owned,
            names_tried_in: OnceLock::new(),
            checkpointing: Mutex::default(),
            was_removed: AtomicBool::new(false),
        };
        let mut progress = stored.progress.lock();
        progress.held_bytes = progress.held.iter().map(|piece| stored.blob_bytes_of(piece)).sum();
        drop(progress);
        stored
    }

    /// The manifest is whole: reads it, and creates the files of the blobs. Returns the pieces that
    /// are held from now on, because they are holes.
    pub fn learn_manifest(&self) -> Result<Vec<PieceIndex>, StoreError> {
        let Some(owned) = &self.owned else { return Ok(Vec::new()) };
        let encoded = owned.directory.manifest()?;
        let manifest = Manifest::decode(self.descriptor.clone(), encoded)?;
        if let Some(place) = self.names_tried_in.get() {
            check_names(&manifest, place)?;
        }
        let holes: Vec<_> = manifest.holes().collect();
        check_holes(&manifest, &holes)?;
        owned.directory.create_blobs(&manifest)?;
        if self.names_tried_in.get().is_some() {
            owned.directory.allocate(&manifest)?;
        }
        self.files.set_manifest(manifest);
        let holes = self.hold(holes);
        owned.log.lock().append(&holes, 0)?;
        Ok(holes)
    }

    /// For a download without a data directory: refuses the content, as soon as its manifest is
    /// known, if the file system cannot keep the names of its files, which are tried in a new
    /// directory at `place`, or has no room for its bytes, which are allocated then.
    pub(super) fn try_names_in(&self, place: PathBuf) -> Result<(), StoreError> {
        if let Some(manifest) = self.manifest() {
            check_names(manifest, &place)?;
            let owned = self.owned.as_ref().filter(|_| !self.is_complete());
            return owned.map_or(Ok(()), |owned| owned.directory.allocate(manifest));
        }
        self.names_tried_in.get_or_init(|| place);
        Ok(())
    }

    /// Marks pieces as held. Returns those that were not before.
    fn hold(&self, pieces: Vec<PieceIndex>) -> Vec<PieceIndex> {
        let mut progress = self.progress.lock();
        let mut new = pieces;
        new.retain(|piece| progress.held.insert(*piece));
        progress.held_bytes += new.iter().map(|piece| self.blob_bytes_of(*piece)).sum::<u64>();
        new
    }

    /// Bytes of a piece of a blob; none of a piece of the manifest.
    fn blob_bytes_of(&self, piece: PieceIndex) -> u64 {
        let span = self.layout().span(piece);
        if span.blob == BlobNumber::MANIFEST { 0 } else { u64::from(span.length) }
    }

    /// Those of the pieces whose bytes can be read and match their hash.
    fn matching(&self, pieces: Vec<PieceIndex>) -> Vec<PieceIndex> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut matches = |piece: &PieceIndex| {
            let Some(expected) = self.hash_of(*piece) else { return false };
            let span = self.layout().span(*piece);
            let read = |at, buffer: &mut [u8]| self.files.read(span.blob, at, buffer);
            hash_piece(self.layout(), span, &mut buffer, read).is_ok_and(|hash| hash == expected)
        };
        pieces.into_iter().filter(|piece| matches(piece)).collect()
    }

    /// The hash of its descriptor.
    pub const fn id(&self) -> ContentId {
        self.id
    }

    /// Its descriptor.
    pub const fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The hashes of the pieces of its manifest.
    pub const fn manifest_hashes(&self) -> &ManifestHashes {
        &self.manifest_hashes
    }

    /// Its manifest, once all pieces of that are held.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.files.manifest()
    }

    /// The manifest of a content of which all pieces are held.
    pub(super) fn complete_manifest(&self) -> Result<&Manifest, StoreError> {
        let manifest = self.manifest().filter(|_| self.is_complete());
        manifest.ok_or(StoreError::Incomplete(self.id))
    }

    /// How it is cut into pieces, as far as that is known.
    pub fn layout(&self) -> &Layout {
        self.manifest().map_or(&self.partial_layout, Manifest::layout)
    }

    /// The hash of a piece; none if it is not known yet.
    pub(super) fn hash_of(&self, piece: PieceIndex) -> Option<PieceHash> {
        let of_manifest = self.manifest_hashes.get(piece.get());
        of_manifest.or_else(|| self.manifest().map(|manifest| manifest.hash_of(piece))).copied()
    }

    /// The pieces that are held, that is verified and written, as of now.
    pub fn held(&self) -> Bitfield {
        self.progress.lock().held.clone()
    }

    /// The number of pieces held, as of now.
    pub fn held_pieces(&self) -> u32 {
        self.progress.lock().held.held()
    }

    /// Bytes of the pieces of blobs that are held, as of now.
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
        self.owned.is_none()
    }

    /// Reads a block of a held piece; `buffer` is as long as the block.
    ///
    /// A file that others can change is checked after each read. If it was changed since it was
    /// hashed, the error is [`StoreError::SourceChanged`], and its bytes are not to be sent.
    pub fn read(&self, range: BlockRange, buffer: &mut [u8]) -> Result<(), StoreError> {
        let span = self.locate(range, buffer.len())?;
        self.files.read(span.blob, span.offset, buffer)
    }

    /// Like [`Stored::read`], into uninitialised memory. After success all of it is initialised.
    pub fn read_uninit(
        &self,
        range: BlockRange,
        buffer: &mut [MaybeUninit<u8>],
    ) -> Result<(), StoreError> {
        let span = self.locate(range, buffer.len())?;
        self.files.read_uninit(span.blob, span.offset, buffer)
    }

    fn locate(&self, range: BlockRange, actual: usize) -> Result<Span, StoreError> {
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
        self.owned.as_ref().is_some_and(|owned| owned.log.lock().is_checkpoint_due())
    }

    /// Makes all held pieces survive a power cut. Waits for the disk, and must not be called on the
    /// I/O threads. Called when [`Stored::is_checkpoint_due`], on completion, and before exit.
    ///
    /// After an error the pieces since the last checkpoint are no longer held, and no others are
    /// accepted: the content has to be opened again.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        let Some(Owned { log, .. }) = &self.owned else { return Ok(()) };
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
                progress.held_bytes -= self.blob_bytes_of(piece);
            }
        }
        Ok(())
    }

    /// A checkpoint has failed, so that no pieces are accepted any more.
    pub(super) fn has_failed(&self) -> bool {
        self.owned.as_ref().is_some_and(|owned| owned.log.lock().has_failed())
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

/// What is known about a content when it is opened.
enum Known {
    Manifest(Manifest),
    Descriptor(Descriptor, ManifestHashes),
}

impl Known {
    /// Finds the manifest in the directory of the content, or writes it there.
    fn find(metadata: Metadata, directory: &ContentDirectory) -> Result<Self, StoreError> {
        let present = directory.manifest()?;
        match metadata {
            Metadata::Manifest(manifest) => {
                if present != manifest.encoded() {
                    directory.write_manifest(&manifest)?;
                }
                Ok(Self::Manifest(manifest))
            }
            Metadata::Descriptor(descriptor, hashes) => {
                match Manifest::decode(descriptor.clone(), present) {
                    Ok(manifest) => Ok(Self::Manifest(manifest)),
                    Err(ManifestError::OtherDescriptor) => Ok(Self::Descriptor(descriptor, hashes)),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }
}
