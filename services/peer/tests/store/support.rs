//! Test contents, and a neighbour that has them.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use shoal_core::{
    content::{
        BlockRange, ContentId, Descriptor, Manifest, ManifestHashes, Metadata, PieceIndex,
        PieceLength,
    },
    swarm::{Attempt, LinkKey},
};
use shoal_peer::store::{Accepted, HashOptions, Hashed, OneShot, Store, StoreError, Stored, hash};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub(crate) const MIB: usize = 1 << 20;

/// Pseudorandom bytes, the same in each run.
pub(crate) fn noise(length: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

/// A piece of the blobs, counted from 0, of a content whose manifest is one piece.
pub(crate) const fn blob_piece(number: u32) -> PieceIndex {
    PieceIndex::new(1 + number)
}

/// The held pieces of such a content.
pub(crate) fn held_blob_pieces(stored: &Stored) -> Vec<u32> {
    let held = stored.held();
    assert!(held.has(PieceIndex::new(0)), "the manifest is held");
    held.iter().skip(1).map(|piece| piece.get() - 1).collect()
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
        Self::seeded_file(length, piece_length, 1)
    }

    /// A file of `length` bytes of the noise with this seed.
    pub(crate) fn seeded_file(length: usize, piece_length: u64, seed: u8) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.bin");
        fs::write(&path, noise(length, seed)).unwrap();
        // Whatever the umask of this process is: the manifest depends on it.
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        Self::in_directory(directory, path, &options(piece_length))
    }

    /// A directory with files of these lengths, two levels deep, and an empty directory.
    pub(crate) fn tree(lengths: &[usize], piece_length: u64) -> Self {
        Self::made(&options(piece_length), |path| {
            fs::create_dir_all(path.join("empty/inside")).unwrap();
            for (number, length) in lengths.iter().enumerate() {
                let file = path.join(format!("part-{}/{number}.bin", number % 10));
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, noise(*length, number as u8)).unwrap();
            }
        })
    }

    /// A directory whose files `make` creates.
    pub(crate) fn made(options: &HashOptions, make: impl FnOnce(&Path)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        make(&path);
        Self::in_directory(directory, path, options)
    }

    /// What is at a path in a temporary directory.
    pub(crate) fn in_directory(directory: TempDir, path: PathBuf, options: &HashOptions) -> Self {
        // Whatever the umask is, tests that work as another user can enter it.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let stored = Stored::in_place(hash(&path, options, |_| {}).unwrap());
        Self { stored, path, _directory: directory }
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        self.stored.manifest().unwrap()
    }

    pub(crate) fn descriptor(&self) -> &Descriptor {
        self.stored.descriptor()
    }

    /// What a peer learns that fetches a short manifest with the descriptor.
    pub(crate) fn metadata(&self) -> Metadata {
        Metadata::Manifest(self.manifest().clone())
    }

    /// What a peer learns that fetches the manifest in pieces.
    pub(crate) fn descriptor_only(&self) -> Metadata {
        let hashes = ManifestHashes::of(self.manifest());
        Metadata::Descriptor(self.descriptor().clone(), hashes)
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
        bytes_of(&self.stored, block).unwrap().into()
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
        store.add(self.metadata()).unwrap()
    }

    /// Checks that a complete copy has the same bytes in every piece.
    pub(crate) fn assert_same(&self, copy: &Stored) {
        assert!(copy.is_complete());
        assert_eq!(copy.id(), self.stored.id());
        assert!(copy.manifest() == self.stored.manifest());
        for piece in copy.layout().pieces() {
            let block = copy.layout().whole(piece);
            assert!(bytes_of(copy, block).unwrap() == self.bytes(block), "{piece:?}");
        }
    }
}

pub(crate) fn bytes_of(stored: &Stored, block: BlockRange) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![0; block.length as usize];
    stored.read(block, &mut bytes).map(|()| bytes)
}

/// Finishes a download that nobody interrupts.
pub(crate) fn finish(download: OneShot) -> Result<Arc<Stored>, StoreError> {
    download.finish(&CancellationToken::new())
}

/// An attempt later than all before.
fn next_attempt() -> Attempt {
    static NEXT: AtomicU64 = AtomicU64::new(1_000);
    Attempt(NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn options(piece_length: u64) -> HashOptions {
    HashOptions {
        piece_length: Some(PieceLength::new(piece_length).unwrap()),
        ..HashOptions::default()
    }
}

pub(crate) fn hashed(path: &Path, piece_length: u64) -> Hashed {
    hash(path, &options(piece_length), |_| {}).unwrap()
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Directory,
    File(Vec<u8>),
    Link(PathBuf),
}

/// What is below a path, which may be a file.
pub(crate) fn snapshot(path: &Path) -> BTreeMap<PathBuf, Found> {
    let mut found = BTreeMap::new();
    let mut todo = vec![path.to_owned()];
    while let Some(next) = todo.pop() {
        let kind = next.symlink_metadata().unwrap().file_type();
        let it = if kind.is_dir() {
            todo.extend(fs::read_dir(&next).unwrap().map(|entry| entry.unwrap().path()));
            Found::Directory
        } else if kind.is_symlink() {
            Found::Link(fs::read_link(&next).unwrap())
        } else {
            Found::File(fs::read(&next).unwrap())
        };
        found.insert(next.strip_prefix(path).unwrap().to_owned(), it);
    }
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

/// The permissions that this process does not give to what it creates.
pub(crate) fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    u32::from_str_radix(line.unwrap().trim(), 8).unwrap()
}

/// The permissions of a file or directory.
pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// The name of the directory with the state of a download to a destination with this name.
pub(crate) fn state_name(id: ContentId, name: &str) -> String {
    let hash = blake3::hash(name.as_bytes()).to_hex();
    format!(".{}-{}.shoal", &id.to_string()[..16], &hash[..8])
}
