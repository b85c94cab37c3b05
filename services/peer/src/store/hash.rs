//! Hashes a file or directory tree where it lies, on all cores.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    thread,
};

use rustix::fs::OFlags;
use shoal_common::lock::Mutex;
use shoal_core::content::{
    FileEntry, FileSpan, Layout, MAX_MANIFEST_BYTES, Manifest, ManifestError, PieceHash,
    PieceHasher, PieceHashes, PieceIndex, PieceLength, file_root,
};
use tokio_util::sync::CancellationToken;

use super::{
    StoreError,
    error::cannot,
    place::{Opener, Place},
    scan::{self, Fingerprint, Found, Tree},
};

/// Bytes read at once: they stay in a core's cache until they are hashed.
pub(super) const BUFFER_BYTES: usize = 256 * 1024;

/// Bytes that a thread hashes in a row, so that a disk sees long reads.
const RUN_BYTES: u32 = 4 << 20;

/// A file or tree that was hashed where it lies.
pub struct Hashed {
    /// Where it lies: absolute.
    pub path: PathBuf,
    /// What it is.
    pub manifest: Manifest,
    /// The hashes of its pieces.
    pub hashes: PieceHashes,
    /// What its files looked like, in the manifest's order.
    pub(super) fingerprints: Vec<Fingerprint>,
}

/// Hashes what lies at `path`, without a copy; `progress` is told the sum of bytes hashed so far,
/// by several threads. Without a `piece_length` one is chosen by size.
///
/// Symbolic links are followed and empty directories kept. A device, a link cycle, a name that is
/// no UTF-8, or a file that changes meanwhile is an error.
pub fn hash(
    path: &Path,
    piece_length: Option<PieceLength>,
    progress: impl Fn(u64) + Sync,
) -> Result<Hashed, StoreError> {
    hash_until(&CancellationToken::new(), path, piece_length, progress)
}

/// The same, given up soon after `stop` is cancelled: with [`StoreError::Interrupted`].
pub fn hash_until(
    stop: &CancellationToken,
    path: &Path,
    piece_length: Option<PieceLength>,
    progress: impl Fn(u64) + Sync,
) -> Result<Hashed, StoreError> {
    let absolute = std::path::absolute(path).map_err(cannot("resolve", path))?;
    hash_at(stop, &Place::anywhere(&absolute), piece_length, progress)
}

/// The same of a place, whose path is absolute, without leaving its root.
pub fn hash_at(
    stop: &CancellationToken,
    place: &Place,
    piece_length: Option<PieceLength>,
    progress: impl Fn(u64) + Sync,
) -> Result<Hashed, StoreError> {
    let opener = place.opener()?;
    let tree = scan::walk(place.path(), &opener, stop)?;
    let sizes: Vec<u64> = tree.files.iter().map(|file| file.fingerprint.size()).collect();
    let total_bytes = sizes.iter().copied().fold(0, u64::saturating_add);
    let piece_length = piece_length.unwrap_or_else(|| PieceLength::for_size(total_bytes));
    let layout = Layout::new(piece_length, sizes)?;
    Fingerprint::settle(tree.files.iter().map(|file| &file.fingerprint));
    let pieces = hash_pieces(&tree.files, &opener, &layout, stop, &progress)?;
    for file in &tree.files {
        if Fingerprint::at(&file.source)? != file.fingerprint {
            return Err(StoreError::SourceChanged(file.source.clone()));
        }
    }
    let fingerprints = tree.files.iter().map(|file| file.fingerprint).collect();
    let manifest = manifest_of(tree, &layout, &pieces)?;
    let hashes = PieceHashes::verify(&manifest, pieces.as_flattened())?;
    Ok(Hashed { path: place.path().to_owned(), manifest, hashes, fingerprints })
}

/// Long work is not to go on.
pub(super) fn check_stop(stop: &CancellationToken, path: &Path) -> Result<(), StoreError> {
    if stop.is_cancelled() { Err(StoreError::Interrupted(path.to_owned())) } else { Ok(()) }
}

/// Hashes one piece of a file; `buffer` is for reading.
pub(super) fn hash_piece(
    file: &File,
    layout: &Layout,
    span: FileSpan,
    buffer: &mut [u8],
) -> io::Result<PieceHash> {
    let mut hasher = PieceHasher::new(layout, span);
    let end = span.offset + u64::from(span.length);
    let mut at = span.offset;
    while at < end {
        let length = (end - at).min(buffer.len() as u64) as usize;
        file.read_exact_at(&mut buffer[..length], at)?;
        hasher.update(&buffer[..length]);
        at += length as u64;
    }
    Ok(hasher.finish())
}

fn hash_pieces(
    files: &[Found],
    opener: &Opener,
    layout: &Layout,
    stop: &CancellationToken,
    progress: &(impl Fn(u64) + Sync),
) -> Result<Vec<PieceHash>, StoreError> {
    let work = Work {
        stop,
        files,
        opener,
        layout,
        run: (RUN_BYTES / layout.piece_length().get()).max(1),
        next: AtomicU32::new(0),
        bytes: AtomicU64::new(0),
        hashes: Mutex::new(vec![[0; 32]; layout.piece_count() as usize]),
    };
    let runs = layout.piece_count().div_ceil(work.run) as usize;
    let threads = thread::available_parallelism().map_or(1, usize::from).min(runs);
    thread::scope(|scope| {
        let workers: Vec<_> =
            (0..threads).map(|_| scope.spawn(|| work.hash_runs(progress))).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().expect("a hashing thread does not panic"))
    })?;
    Ok(work.hashes.into_inner())
}

/// What the hashing threads share: each takes the next run of pieces until none is left.
struct Work<'a> {
    stop: &'a CancellationToken,
    files: &'a [Found],
    opener: &'a Opener,
    layout: &'a Layout,
    /// Pieces in a run.
    run: u32,
    next: AtomicU32,
    bytes: AtomicU64,
    hashes: Mutex<Vec<PieceHash>>,
}

impl Work<'_> {
    /// Opens the file that was found, and none that has taken its place since.
    fn open(&self, found: &Found) -> Result<File, StoreError> {
        let source = &found.source;
        // What was a file may be a pipe by now: opening it must not wait for a writer.
        let file = self.opener.open(source, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let metadata = file.metadata().map_err(cannot("look at", source))?;
        if Fingerprint::of(&metadata) != found.fingerprint {
            return Err(StoreError::SourceChanged(source.clone()));
        }
        Ok(file)
    }

    fn hash_runs(&self, progress: &impl Fn(u64)) -> Result<(), StoreError> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut open: Option<(usize, File)> = None;
        loop {
            let start = self.next.fetch_add(self.run, Ordering::Relaxed);
            let end = start.saturating_add(self.run).min(self.layout.piece_count());
            if start >= end {
                return Ok(());
            }
            let mut run = Vec::with_capacity(self.run as usize);
            for piece in (start..end).map(PieceIndex::new) {
                let span = self.layout.span(piece);
                let source = &self.files[span.file].source;
                // A piece has at most 16 MiB: some milliseconds.
                check_stop(self.stop, source)?;
                let file = match open.take() {
                    Some((number, file)) if number == span.file => file,
                    _ => self.open(&self.files[span.file])?,
                };
                run.push(
                    hash_piece(&file, self.layout, span, &mut buffer)
                        .map_err(|error| unreadable(source, error))?,
                );
                open = Some((span.file, file));
                let length = u64::from(span.length);
                progress(self.bytes.fetch_add(length, Ordering::Relaxed) + length);
            }
            self.hashes.lock()[start as usize..end as usize].copy_from_slice(&run);
        }
    }
}

/// A file that ends early was truncated by someone.
pub(super) fn unreadable(path: &Path, error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => StoreError::SourceChanged(path.to_owned()),
        _ => StoreError::io("read", path, error),
    }
}

fn manifest_of(tree: Tree, layout: &Layout, pieces: &[PieceHash]) -> Result<Manifest, StoreError> {
    let mut rest = pieces;
    let mut files = Vec::with_capacity(tree.files.len());
    for (number, file) in tree.files.into_iter().enumerate() {
        let (own, later) = rest.split_at(layout.pieces_of_file(number).len());
        rest = later;
        files.push(FileEntry {
            path: file.path,
            size: file.fingerprint.size(),
            executable: file.executable,
            root: file_root(own),
        });
    }
    seal(tree.name, tree.is_directory, layout.piece_length(), files, tree.empty_directories)
}

/// The manifest of what was hashed, if others can fetch it.
pub(super) fn seal(
    name: String,
    is_directory: bool,
    piece_length: PieceLength,
    mut files: Vec<FileEntry>,
    empty_directories: Vec<String>,
) -> Result<Manifest, StoreError> {
    let manifest = match files.pop() {
        Some(file) if !is_directory => Manifest::of_file(piece_length, file)?,
        last => {
            files.extend(last);
            Manifest::of_directory(name, piece_length, files, empty_directories)?
        }
    };
    match manifest.encode().len() {
        0..=MAX_MANIFEST_BYTES => Ok(manifest),
        too_long => Err(ManifestError::TooLong(too_long).into()),
    }
}
