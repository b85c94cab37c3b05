//! Test contents, and a neighbour that has them.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use shoal_core::{
    content::{BlockRange, PieceIndex, PieceLength},
    swarm::{Attempt, LinkKey},
};
use shoal_peer::store::{Accepted, Hashed, Store, StoreError, Stored, hash};
use tempfile::TempDir;

pub(crate) const MIB: usize = 1 << 20;

/// Pseudorandom bytes, the same in each run.
pub(crate) fn noise(length: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

/// A content on the disk of a neighbour that is a seeder.
pub(crate) struct Source {
    pub(crate) stored: Arc<Stored>,
    pub(crate) path: PathBuf,
    _directory: TempDir,
}

impl Source {
    /// A file of `length` bytes.
    pub(crate) fn file(length: usize, piece_length: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.bin");
        fs::write(&path, noise(length, 1)).unwrap();
        Self::at(directory, path, piece_length)
    }

    /// A directory with files of these lengths, two levels deep, and an empty directory.
    pub(crate) fn tree(lengths: &[usize], piece_length: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model");
        fs::create_dir_all(path.join("empty/inside")).unwrap();
        for (number, length) in lengths.iter().enumerate() {
            let file = path.join(format!("part-{}/{number}.bin", number % 10));
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, noise(*length, number as u8)).unwrap();
        }
        Self::at(directory, path, piece_length)
    }

    fn at(directory: TempDir, path: PathBuf, piece_length: u64) -> Self {
        let stored = Stored::in_place(hashed(&path, piece_length));
        Self { stored, path, _directory: directory }
    }

    /// All blocks of a piece, of `length` bytes each except the last.
    pub(crate) fn blocks(&self, piece: PieceIndex, length: u32) -> Vec<(BlockRange, Bytes)> {
        let whole = self.stored.layout().length_of(piece);
        (0..whole)
            .step_by(length as usize)
            .map(|offset| {
                let block = BlockRange { piece, offset, length: length.min(whole - offset) };
                (block, self.bytes(block))
            })
            .collect()
    }

    pub(crate) fn bytes(&self, block: BlockRange) -> Bytes {
        let mut bytes = vec![0; block.length as usize];
        self.stored.read(block, &mut bytes).unwrap();
        bytes.into()
    }

    /// Sends a whole piece in an attempt of its own, as the neighbour `link`.
    pub(crate) fn send(
        &self,
        to: &Stored,
        link: LinkKey,
        piece: PieceIndex,
    ) -> Result<Accepted, StoreError> {
        let block = self.stored.layout().whole(piece);
        to.accept(link, next_attempt(), block, self.bytes(block))
    }

    /// Sends all pieces that the other lacks.
    pub(crate) fn send_all(&self, to: &Stored) {
        let held = to.held();
        for piece in self.stored.layout().pieces().filter(|piece| !held.has(*piece)) {
            self.send(to, LinkKey(1), piece).unwrap();
        }
        assert!(to.is_complete());
    }

    /// Adds the content to a store, to be downloaded.
    pub(crate) fn add_to(&self, store: &Store) -> Arc<Stored> {
        store.add(self.stored.manifest().clone(), self.stored.hashes().clone()).unwrap()
    }
}

/// An attempt later than all before.
fn next_attempt() -> Attempt {
    static NEXT: AtomicU64 = AtomicU64::new(1_000);
    Attempt(NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn hashed(path: &Path, piece_length: u64) -> Hashed {
    hash(path, Some(PieceLength::new(piece_length).unwrap()), |_| {}).unwrap()
}

/// The files below a path, with their bytes, and the directories, sorted.
pub(crate) fn snapshot(path: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    let mut todo = vec![path.to_owned()];
    while let Some(next) = todo.pop() {
        let inside = next.strip_prefix(path).unwrap().to_owned();
        if next.is_dir() {
            todo.extend(fs::read_dir(&next).unwrap().map(|entry| entry.unwrap().path()));
            found.push((inside, None));
        } else {
            found.push((inside, Some(fs::read(&next).unwrap())));
        }
    }
    found.sort();
    found
}

/// Names in a directory, sorted.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
