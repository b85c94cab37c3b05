//! Hashes a file or directory tree in place, on all cores, and builds its manifest.

mod fingerprint;
mod scan;

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

pub(super) use self::fingerprint::Fingerprint;
use self::scan::{FoundFile, Tree, scan};
use super::{
    StoreError,
    error::{cannot, check_stop, unreadable},
    rooted_path::{Opener, RootedPath},
};

/// Bytes per read: they stay in a core's cache until they are hashed.
pub(super) const BUFFER_BYTES: usize = 256 * 1024;

/// Bytes that a thread hashes in sequence, so that the disk reads long stretches.
const RUN_BYTES: u32 = 4 << 20;

/// A file or tree that was hashed in place.
pub struct Hashed {
    /// Its absolute path.
    pub path: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
    /// The hashes of its pieces.
    pub hashes: PieceHashes,
    /// Its files when they were hashed, in the manifest's order.
    pub(super) fingerprints: Vec<Fingerprint>,
}

/// Hashes the file or directory tree at `path`, without copying it. Several threads call `progress`
/// with the total of bytes hashed so far. Without a `piece_length` one is chosen by size.
///
/// Symbolic links are followed and empty directories kept. A device, a link cycle, a name that is
/// not UTF-8, or a file that changes meanwhile is an error.
pub fn hash(
    path: &Path,
    piece_length: Option<PieceLength>,
    progress: impl Fn(u64) + Sync,
) -> Result<Hashed, StoreError> {
    hash_until(&CancellationToken::new(), path, piece_length, progress)
}

/// Like [`hash`], but ends with [`StoreError::Interrupted`] soon after `stop` is cancelled.
pub fn hash_until(
    stop: &CancellationToken,
    path: &Path,
    piece_length: Option<PieceLength>,
    progress: impl Fn(u64) + Sync,
) -> Result<Hashed, StoreError> {
    let absolute = std::path::absolute(path).map_err(cannot("resolve", path))?;
    hash_at(stop, &RootedPath::anywhere(&absolute), piece_length, progress)
}

/// Like [`hash_until`], for an absolute path, without leaving its root.
pub fn hash_at(
    stop: &CancellationToken,
    path: &RootedPath,
    piece_length: Option<PieceLength>,
    progress: impl Fn(u64) + Sync,
) -> Result<Hashed, StoreError> {
    let opener = path.opener()?;
    let tree = scan(path.path(), &opener, stop)?;
    let sizes: Vec<u64> = tree.files.iter().map(|file| file.fingerprint.size()).collect();
    let total_bytes = sizes.iter().copied().fold(0, u64::saturating_add);
    let piece_length = piece_length.unwrap_or_else(|| PieceLength::for_size(total_bytes));
    let layout = Layout::new(piece_length, sizes)?;
    Fingerprint::wait_for_next_tick(tree.files.iter().map(|file| &file.fingerprint));
    let pieces = hash_pieces(&tree.files, &opener, &layout, stop, &progress)?;
    for file in &tree.files {
        if Fingerprint::at(&file.source)? != file.fingerprint {
            return Err(StoreError::SourceChanged(file.source.clone()));
        }
    }
    let fingerprints = tree.files.iter().map(|file| file.fingerprint).collect();
    let manifest = manifest_of(tree, &layout, &pieces)?;
    let hashes = PieceHashes::verify(&manifest, pieces.as_flattened())?;
    Ok(Hashed { path: path.path().to_owned(), manifest, hashes, fingerprints })
}

/// Hashes one piece of a file. `buffer` is scratch space.
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
    files: &[FoundFile],
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

/// The work of the hashing threads. Each takes the next run of pieces until none is left.
struct Work<'a> {
    stop: &'a CancellationToken,
    files: &'a [FoundFile],
    opener: &'a Opener,
    layout: &'a Layout,
    /// Pieces in a run.
    run: u32,
    next: AtomicU32,
    bytes: AtomicU64,
    hashes: Mutex<Vec<PieceHash>>,
}

impl Work<'_> {
    /// Opens a file, unless another has taken its place since the scan.
    fn open(&self, found: &FoundFile) -> Result<File, StoreError> {
        let source = &found.source;
        // A pipe may have taken its place: opening it must not wait for a writer.
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
                // Checked per piece, which has at most 16 MiB: some milliseconds.
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
    build_manifest(
        tree.name,
        tree.is_directory,
        layout.piece_length(),
        files,
        tree.empty_directories,
    )
}

/// The manifest of hashed files; an error if it is longer than peers accept.
pub(super) fn build_manifest(
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
