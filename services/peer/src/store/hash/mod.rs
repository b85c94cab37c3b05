//! Hashes a file or directory tree in place, on all cores, and builds its manifest.

mod blobs;
mod fingerprint;
mod pieces;
mod scan;

use std::path::{Path, PathBuf};

use shoal_core::content::{
    Entry, Kind, MAX_MANIFEST_BYTES, Manifest, ManifestError, NewBlob, Part, PieceLength,
};
use tokio_util::sync::CancellationToken;

use self::{
    blobs::{Assigned, Blob, HashedFile, assign},
    pieces::Hashing,
    scan::{FoundKind, Tree, scan},
};
pub(super) use self::{
    fingerprint::{Fingerprint, Fingerprints},
    pieces::{BUFFER_BYTES, check_holes, hash_piece, on_all_cores},
};
use super::{StoreError, arrangement::Arrangement, error::cannot, rooted_path::RootedPath};

/// What becomes of symbolic links that do not stay in the content; the others are kept as links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Links {
    /// What they lead to is published in their place.
    #[default]
    Follow,
    /// They are left out.
    Skip,
    /// They are an error.
    Refuse,
}

/// What of files and directories becomes part of a content.
#[derive(Clone, Debug, Default)]
pub struct HashOptions {
    /// None: chosen by size.
    pub piece_length: Option<PieceLength>,
    /// Links that do not stay in the content.
    pub links: Links,
    /// All mode bits and the times of modification, instead of what everybody has: whether files are
    /// executable, and what is private.
    pub preserve: bool,
    /// None: the name of the file or directory.
    pub name: Option<Vec<u8>>,
}

/// A file or tree that was hashed in place.
pub struct Hashed {
    /// Its absolute path.
    pub path: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its files when they were hashed.
    pub(super) fingerprints: Fingerprints,
}

/// Hashes the file or directory tree at `path`, without copying it. Several threads call `progress`
/// with the total of bytes hashed so far.
///
/// A device, a link cycle, a link that leads nowhere, or a file that changes meanwhile is an error.
pub fn hash(
    path: &Path,
    options: &HashOptions,
    progress: impl Fn(u64) + Sync,
) -> Result<Hashed, StoreError> {
    hash_until(&CancellationToken::new(), path, options, progress)
}

/// Like [`hash`], but ends with [`StoreError::Interrupted`] soon after `stop` is cancelled.
pub fn hash_until(
    stop: &CancellationToken,
    path: &Path,
    options: &HashOptions,
    progress: impl Fn(u64) + Sync,
) -> Result<Hashed, StoreError> {
    let absolute = std::path::absolute(path).map_err(cannot("resolve", path))?;
    hash_at(stop, &RootedPath::anywhere(&absolute), options, progress)
}

/// Like [`hash_until`], for an absolute path, without leaving its root.
pub fn hash_at(
    stop: &CancellationToken,
    path: &RootedPath,
    options: &HashOptions,
    progress: impl Fn(u64) + Sync,
) -> Result<Hashed, StoreError> {
    let opener = path.opener()?;
    let tree = scan(path.path(), &opener, options.links, stop)?;
    let total_bytes = tree.files().fold(0, |sum: u64, (_, file)| sum.saturating_add(file.size()));
    let piece_length = options.piece_length.unwrap_or_else(|| PieceLength::for_size(total_bytes));
    let hashing = Hashing::new(&tree, &opener, piece_length, stop)?;
    check_size(&tree, hashing.long_pieces())?;
    Fingerprint::wait_for_next_tick(tree.files().map(|(_, fingerprint)| fingerprint));
    let hashed = hashing.hash_files(&progress)?;
    let Assigned { parts, blobs } = assign(&hashed.files, piece_length);
    let blobs = blobs
        .into_iter()
        .map(|blob| match blob {
            Blob::File(number) => Ok(hashing.file(&hashed, number)),
            Blob::Pack(numbers) => hashing.pack(&numbers),
        })
        .collect::<Result<Vec<_>, _>>()?;
    // Of a million files these take as much memory as the manifest.
    drop(hashed);
    for (number, fingerprint) in tree.files() {
        let path = tree.path_of(number);
        if Fingerprint::at(&path)? != *fingerprint {
            return Err(StoreError::SourceChanged(path));
        }
    }
    let manifest = build(&tree, piece_length, &blobs, &parts, options)?;
    let fingerprints = Fingerprints::find(&manifest, Arrangement::Tree, |file| {
        Ok(*tree.fingerprint(file.entry().get() as usize))
    })?;
    Ok(Hashed { path: path.path().to_owned(), manifest, fingerprints })
}

/// Refuses a tree whose manifest would be too long, before its files are hashed.
fn check_size(tree: &Tree, pieces: u32) -> Result<(), StoreError> {
    let names = tree.entries.iter().map(|entry| entry.name.len() as u64);
    let least = names.sum::<u64>() + 32 * u64::from(pieces);
    if least > MAX_MANIFEST_BYTES { Err(ManifestError::TooLong(least).into()) } else { Ok(()) }
}

/// Whether only the owner and the group have permissions.
const fn is_private(mode: u32) -> bool {
    const OTHERS: u32 = 0o007;
    mode & OTHERS == 0
}

fn build(
    tree: &Tree,
    piece_length: PieceLength,
    blobs: &[NewBlob],
    parts: &[Part],
    options: &HashOptions,
) -> Result<Manifest, StoreError> {
    let mut parts = parts.iter();
    let entries = tree.entries.iter().map(|found| {
        let mode = found.attributes.mode;
        let kind = match &found.kind {
            FoundKind::Directory => Kind::Directory,
            FoundKind::Link(target) => Kind::Link(target),
            FoundKind::File(_) => {
                let part = *parts.next().expect("each file has a part");
                Kind::File { part, executable: mode & 0o111 != 0 }
            }
        };
        let is_link = matches!(kind, Kind::Link(_));
        Entry {
            depth: found.depth,
            name: &found.name,
            kind,
            private: !is_link && is_private(mode),
            // A link has no mode of its own, and its time cannot be set everywhere.
            attributes: (options.preserve && !is_link).then_some(found.attributes),
        }
    });
    let name = options.name.as_ref().unwrap_or(&tree.name);
    Ok(Manifest::new(name, piece_length, blobs, entries)?)
}
