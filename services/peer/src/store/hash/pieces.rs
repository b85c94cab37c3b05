//! Hashes files and packs in pieces, on all cores.

use std::{
    fs::File,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    thread,
};

use rustix::{
    fs::{OFlags, SeekFrom, seek},
    io::Errno,
};
use shoal_common::lock::Mutex;
use shoal_core::content::{
    BlobNumber, Layout, Manifest, NewBlob, PieceHash, PieceHasher, PieceIndex, PieceLength, Span,
    root_of,
};
use tokio_util::sync::CancellationToken;

use super::{Fingerprint, HashedFile, Tree};
use crate::store::{
    StoreError,
    error::{cannot, check_stop, unreadable},
    rooted_path::Opener,
};

/// Bytes per read: they stay in a core's cache until they are hashed.
pub(in crate::store) const BUFFER_BYTES: usize = 256 * 1024;

/// Bytes that a thread hashes in sequence, so that the disk reads long stretches.
const RUN_BYTES: u64 = 4 << 20;

/// Files that a thread hashes in sequence, at most.
const RUN_FILES: usize = 64;

/// A file of zeros, as far as one read goes.
static ZEROS: [u8; BUFFER_BYTES] = [0; BUFFER_BYTES];

/// Whether all bytes are zero.
fn is_zero(bytes: &[u8]) -> bool {
    // The first byte of most pieces decides.
    bytes.iter().all(|byte| *byte == 0)
}

/// Hashes one piece, whose bytes `read` fills in from an offset in its blob. `buffer` is scratch
/// space.
pub(in crate::store) fn hash_piece<E>(
    layout: &Layout,
    span: Span,
    buffer: &mut [u8],
    mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
) -> Result<PieceHash, E> {
    let mut hasher = PieceHasher::new(layout, span);
    for part in parts(span, buffer.len()) {
        let buffer = &mut buffer[..(part.end - part.start) as usize];
        read(part.start, buffer)?;
        hasher.update(buffer);
    }
    Ok(hasher.finish())
}

/// A span in parts of at most this many bytes.
fn parts(span: Span, most: usize) -> impl Iterator<Item = Range<u64>> {
    let end = span.offset + u64::from(span.length);
    (span.offset..end).step_by(most).map(move |at| at..end.min(at + most as u64))
}

/// A piece that was hashed.
#[derive(Clone, Copy, Default)]
struct Piece {
    hash: PieceHash,
    is_hole: bool,
}

impl Piece {
    /// Hashes a piece of zeros.
    fn hole(layout: &Layout, span: Span) -> Self {
        let mut hasher = PieceHasher::new(layout, span);
        for part in parts(span, ZEROS.len()) {
            hasher.update(&ZEROS[..(part.end - part.start) as usize]);
        }
        Self { hash: hasher.finish(), is_hole: true }
    }

    /// Hashes a piece that `read` reads.
    fn read(
        layout: &Layout,
        span: Span,
        buffer: &mut [u8],
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        let mut is_hole = true;
        let hash = hash_piece(layout, span, buffer, |at, buffer| {
            let is_read = read(at, buffer);
            is_hole = is_hole && is_zero(buffer);
            is_read
        })?;
        Ok(Self { hash, is_hole })
    }
}

/// Fails if one of the pieces, which the manifest calls holes, does not have the hash of zeros.
pub(in crate::store) fn check_holes(
    manifest: &Manifest,
    holes: &[PieceIndex],
) -> Result<(), StoreError> {
    let layout = manifest.layout();
    on_all_cores(holes, |piece, _| {
        let zeros = Piece::hole(layout, layout.span(*piece));
        if zeros.hash == *manifest.hash_of(*piece) {
            Ok(())
        } else {
            Err(StoreError::FalseHole(*piece))
        }
    })
}

/// Does the runs on all cores. Each thread takes the next, until none is left or one fails.
pub(in crate::store) fn on_all_cores<R: Sync>(
    runs: &[R],
    work: impl Fn(&R, &mut [u8]) -> Result<(), StoreError> + Sync,
) -> Result<(), StoreError> {
    let next = AtomicUsize::new(0);
    let has_failed = AtomicBool::new(false);
    let take_runs = || {
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
            if has_failed.load(Ordering::Relaxed) {
                break;
            }
            work(run, &mut buffer).inspect_err(|_| has_failed.store(true, Ordering::Relaxed))?;
        }
        Ok(())
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(runs.len());
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(take_runs)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().expect("a hashing thread does not panic"))
    })
}

/// A blob of hashed pieces.
fn blob_of(size: u64, pieces: &[Piece]) -> NewBlob {
    let mut holes: Vec<Range<u32>> = Vec::new();
    for (number, _) in (0..).zip(pieces).filter(|(_, piece)| piece.is_hole) {
        match holes.last_mut() {
            Some(run) if run.end == number => run.end += 1,
            _ => holes.push(number..number + 1),
        }
    }
    NewBlob { size, hashes: pieces.iter().map(|piece| piece.hash).collect(), holes }
}

/// The files that are hashed, and how.
pub(super) struct Hashing<'a> {
    tree: &'a Tree,
    opener: &'a Opener,
    stop: &'a CancellationToken,
    /// The numbers of the files' entries.
    files: Vec<usize>,
    /// The files of at least a piece, as numbers in `files`. Each is a blob of `layout`.
    long: Vec<usize>,
    layout: Layout,
}

/// What one thread hashes in sequence.
enum Run {
    /// Files that are shorter than a piece, as numbers in `files`.
    Files(Vec<usize>),
    /// Pieces of `layout`.
    Pieces(Range<u32>),
}

/// The hashed files of a tree.
pub(super) struct HashedFiles {
    /// In order.
    pub(super) files: Vec<HashedFile>,
    /// The only piece of each file that is shorter than a piece.
    short: Vec<Piece>,
    /// The pieces of all other files.
    long: Vec<Piece>,
}

impl<'a> Hashing<'a> {
    pub(super) fn new(
        tree: &'a Tree,
        opener: &'a Opener,
        piece_length: PieceLength,
        stop: &'a CancellationToken,
    ) -> Result<Self, StoreError> {
        let files: Vec<_> = tree.files().map(|(entry, _)| entry).collect();
        let size_of = |number: usize| tree.fingerprint(files[number]).size();
        let is_long = |number: &usize| size_of(*number) >= u64::from(piece_length.get());
        let long: Vec<_> = (0..files.len()).filter(is_long).collect();
        let layout = Layout::new(0, piece_length, long.iter().map(|number| size_of(*number)))?;
        Ok(Self { tree, opener, stop, files, long, layout })
    }

    /// Pieces of the files that are not shorter than a piece.
    pub(super) fn long_pieces(&self) -> u32 {
        self.layout.piece_count()
    }

    fn size_of(&self, number: usize) -> u64 {
        self.tree.fingerprint(self.files[number]).size()
    }

    /// Hashes all files.
    pub(super) fn hash_files(
        &self,
        progress: &(impl Fn(u64) + Sync),
    ) -> Result<HashedFiles, StoreError> {
        let short = Mutex::new(vec![Piece::default(); self.files.len()]);
        let long = Mutex::new(vec![Piece::default(); self.layout.piece_count() as usize]);
        let bytes = AtomicU64::new(0);
        let count = |more: u64| progress(bytes.fetch_add(more, Ordering::Relaxed) + more);
        on_all_cores(&self.runs(), |run, buffer| {
            match run {
                Run::Files(numbers) => {
                    let hashed = self.hash_short(numbers, buffer, &count)?;
                    let mut short = short.lock();
                    numbers.iter().zip(hashed).for_each(|(number, piece)| short[*number] = piece);
                }
                Run::Pieces(range) => {
                    let hashed = self.hash_long(range.clone(), buffer, &count)?;
                    long.lock()[range.start as usize..range.end as usize].copy_from_slice(&hashed);
                }
            }
            Ok(())
        })?;
        let (short, long) = (short.into_inner(), long.into_inner());
        let mut hashed = HashedFiles { files: Vec::new(), short, long };
        hashed.files = (0..self.files.len())
            .map(|number| {
                let hashes: Vec<_> =
                    self.pieces(&hashed, number).iter().map(|piece| piece.hash).collect();
                HashedFile { size: self.size_of(number), root: root_of(&hashes) }
            })
            .collect();
        Ok(hashed)
    }

    /// A hashed file as a blob.
    pub(super) fn file(&self, hashed: &HashedFiles, number: usize) -> NewBlob {
        blob_of(self.size_of(number), self.pieces(hashed, number))
    }

    /// Some files, one after the other, as a blob. They are read again, to be hashed as one.
    pub(super) fn pack(&self, numbers: &[usize]) -> Result<NewBlob, StoreError> {
        let mut ends = Vec::with_capacity(numbers.len());
        let mut size = 0;
        for number in numbers {
            size += self.size_of(*number);
            ends.push(size);
        }
        let layout = Layout::new(0, self.layout.piece_length(), [size])?;
        let pieces = Mutex::new(vec![Piece::default(); layout.piece_count() as usize]);
        let runs: Vec<_> = layout.pieces().collect();
        on_all_cores(&runs, |piece, buffer| {
            let hashed = Piece::read(&layout, layout.span(*piece), buffer, |at, buffer| {
                self.read_pack(numbers, &ends, at, buffer)
            })?;
            pieces.lock()[piece.get() as usize] = hashed;
            Ok(())
        })?;
        Ok(blob_of(size, &pieces.into_inner()))
    }

    /// Reads bytes of a pack, whose files end at `ends`.
    fn read_pack(
        &self,
        numbers: &[usize],
        ends: &[u64],
        mut at: u64,
        mut buffer: &mut [u8],
    ) -> Result<(), StoreError> {
        let mut index = ends.partition_point(|end| *end <= at);
        while !buffer.is_empty() {
            check_stop(self.stop, self.tree.root())?;
            let number = numbers[index];
            let start = ends[index] - self.size_of(number);
            let length = buffer.len().min((ends[index] - at) as usize);
            let (part, rest) = buffer.split_at_mut(length);
            let (file, path) = self.open(number)?;
            file.read_exact_at(part, at - start).map_err(|error| unreadable(&path, error))?;
            (at, buffer, index) = (at + length as u64, rest, index + 1);
        }
        Ok(())
    }

    fn pieces<'h>(&self, hashed: &'h HashedFiles, number: usize) -> &'h [Piece] {
        match self.long.binary_search(&number) {
            Ok(index) => {
                let pieces = self.layout.pieces_of(BlobNumber::new(index as u32 + 1));
                let length = pieces.len();
                let first = pieces.map(PieceIndex::get).next().unwrap_or(0) as usize;
                &hashed.long[first..first + length]
            }
            Err(_) if self.size_of(number) == 0 => &[],
            Err(_) => std::slice::from_ref(&hashed.short[number]),
        }
    }

    fn runs(&self) -> Vec<Run> {
        let mut runs = Vec::new();
        let pieces_per_run =
            (RUN_BYTES / u64::from(self.layout.piece_length().get())).max(1) as u32;
        let count = self.layout.piece_count();
        let starts = (0..count).step_by(pieces_per_run as usize);
        runs.extend(
            starts.map(|start| Run::Pieces(start..start.saturating_add(pieces_per_run).min(count))),
        );
        let is_short = |number: &usize| self.long.binary_search(number).is_err();
        let short: Vec<_> = (0..self.files.len()).filter(is_short).collect();
        runs.extend(short.chunks(RUN_FILES).map(|numbers| Run::Files(numbers.to_vec())));
        runs
    }

    /// Opens a file, unless another has taken its place since the scan.
    fn open(&self, number: usize) -> Result<(File, PathBuf), StoreError> {
        let entry = self.files[number];
        let path = self.tree.path_of(entry);
        // A pipe may have taken its place: opening it must not wait for a writer.
        let file = self.opener.open(&path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let metadata = file.metadata().map_err(cannot("look at", &path))?;
        if Fingerprint::of(&metadata) != *self.tree.fingerprint(entry) {
            return Err(StoreError::SourceChanged(path));
        }
        Ok((file, path))
    }

    /// Refuses a file that has content although its size is 0: it would be published as empty.
    fn check_empty(&self, number: usize) -> Result<(), StoreError> {
        let (file, path) = match self.open(number) {
            // None of its bytes are needed.
            Err(StoreError::Denied { .. }) => return Ok(()),
            opened => opened?,
        };
        match file.read_at(&mut [0], 0) {
            Ok(0) => Ok(()),
            Ok(_) => Err(StoreError::UnknownSize(path)),
            Err(error) => Err(unreadable(&path, error)),
        }
    }

    fn hash_short(
        &self,
        numbers: &[usize],
        buffer: &mut [u8],
        count: &impl Fn(u64),
    ) -> Result<Vec<Piece>, StoreError> {
        let mut hashed = Vec::with_capacity(numbers.len());
        for number in numbers {
            let size = self.size_of(*number);
            if size == 0 {
                self.check_empty(*number)?;
                hashed.push(Piece::default());
                continue;
            }
            check_stop(self.stop, self.tree.root())?;
            let (file, path) = self.open(*number)?;
            let layout = Layout::new(0, self.layout.piece_length(), [size])?;
            let span = Span { blob: BlobNumber::new(1), offset: 0, length: size as u32 };
            hashed.push(Piece::read(&layout, span, buffer, |at, buffer| {
                file.read_exact_at(buffer, at).map_err(|error| unreadable(&path, error))
            })?);
            count(size);
        }
        Ok(hashed)
    }

    fn hash_long(
        &self,
        pieces: Range<u32>,
        buffer: &mut [u8],
        count: &impl Fn(u64),
    ) -> Result<Vec<Piece>, StoreError> {
        let mut hashed = Vec::with_capacity(pieces.len());
        let mut open: Option<(BlobNumber, File, PathBuf)> = None;
        for piece in pieces.map(PieceIndex::new) {
            let span = self.layout.span(piece);
            // Checked per piece, which has at most 16 MiB: some milliseconds.
            check_stop(self.stop, self.tree.root())?;
            let (_, file, path) = match open.take() {
                Some(same) if same.0 == span.blob => open.insert(same),
                _ => {
                    let (file, path) = self.open(self.long[span.blob.get() as usize - 1])?;
                    open.insert((span.blob, file, path))
                }
            };
            hashed.push(if is_in_hole(file, span) {
                Piece::hole(&self.layout, span)
            } else {
                Piece::read(&self.layout, span, buffer, |at, buffer| {
                    file.read_exact_at(buffer, at).map_err(|error| unreadable(path, error))
                })?
            });
            count(u64::from(span.length));
        }
        Ok(hashed)
    }
}

/// Whether the file system has no data for a part of a file; false if it does not tell.
fn is_in_hole(file: &File, span: Span) -> bool {
    match seek(file, SeekFrom::Data(span.offset)) {
        Ok(data) => data >= span.offset + u64::from(span.length),
        // There is no data until the end of the file.
        Err(Errno::NXIO) => true,
        Err(_) => false,
    }
}
