//! Exports copies of a content, which share its blocks on disk if the file system can do that.

use std::{
    ffi::OsStr,
    fs::{File, Permissions},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::PermissionsExt as _,
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, openat, syncfs, unlinkat},
    io::Errno,
};
use shoal_core::content::{Entry, Manifest, Metadata};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::tree::{self, Blobs, READ, Target};
use crate::store::{
    StoreError,
    catalogue::{PRIVATE, Store},
    content::Stored,
    error::cannot,
    file_system::{exists, names_in, rename_new},
    hash::{HashOptions, Hashed, hash_at},
    probe::{Step, reach},
    rooted_path::RootedPath,
};

/// How a file was exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exported {
    /// The destination holds the same content already.
    Unchanged,
    /// The copy shares its blocks until either file is written.
    Reflink,
    /// The same file under a second name. Editing it edits the store's copy as well: that is
    /// detected, and the content is then refused.
    HardLink,
    /// The copy has blocks of its own.
    Copy,
}

impl Store {
    /// Exports a complete content to `destination`, all or nothing. Anything else at `destination`
    /// is left as it is, and is an error. For a directory, the costliest way of its files is
    /// returned.
    pub fn export(&self, stored: &Stored, destination: &Path) -> Result<Exported, StoreError> {
        let absolute = std::path::absolute(destination).map_err(cannot("find", destination))?;
        self.export_to(stored, &RootedPath::anywhere(&absolute))
    }

    /// Like [`Store::export`], without leaving the root of the path.
    pub fn export_to(
        &self,
        stored: &Stored,
        destination: &RootedPath,
    ) -> Result<Exported, StoreError> {
        let manifest = stored.complete_manifest()?;
        let path = destination.path();
        let (name, parent) = open_parent(destination)?;
        if exists(parent.as_fd(), name.as_ref()) {
            let metadata = Metadata::Manifest(manifest.clone());
            return find(destination, &metadata, self.stop()).map(|_| Exported::Unchanged);
        }
        // Not with the name in it, which may be as long as a name can be.
        let staged = format!(".{}.shoal", Uuid::new_v4().simple());
        let target = Target { directory: parent.as_fd(), name: staged.as_ref(), shown: path };
        stored.files.check_all()?;
        let exported = tree::create(stored, target, Blobs::Stay, self.stop()).and_then(|way| {
            stored.files.check_all()?;
            if way >= Exported::HardLink && !stored.is_in_place() {
                self.guard(stored)?;
            }
            // A file or tree under its final name must be whole, even after a power cut.
            sync_staged(target, manifest.is_directory()).map_err(cannot("sync", path))?;
            rename_new(&parent, staged.as_ref(), &parent, name.as_ref(), path)?;
            sync_names(parent.as_fd()).map_err(cannot("sync", path))?;
            Ok(way)
        });
        if exported.is_err() {
            // If it remains, its name tells where it comes from.
            let _ = delete(parent.as_fd(), staged.as_ref());
        }
        exported
    }
}

/// Checks a destination as far as possible before the content is complete: it has a name, in a
/// directory that exists.
pub(crate) fn check_destination(destination: &RootedPath) -> Result<(), StoreError> {
    open_parent(destination).map(drop)
}

/// The name of a destination, and its open parent directory.
fn open_parent(destination: &RootedPath) -> Result<(&OsStr, File), StoreError> {
    let path = destination.path();
    let unnamed = || StoreError::Unnamed(path.to_owned());
    let (name, parent) = path.file_name().zip(path.parent()).ok_or_else(unnamed)?;
    let parent = destination.opener()?.open(parent, OFlags::PATH | OFlags::DIRECTORY)?;
    Ok((name, parent))
}

/// The files at a path, which are those of a content; an error if they are anything else.
pub fn find_at(
    path: &Path,
    metadata: &Metadata,
    stop: &CancellationToken,
) -> Result<Hashed, StoreError> {
    let absolute = std::path::absolute(path).map_err(cannot("find", path))?;
    find(&RootedPath::anywhere(&absolute), metadata, stop)
}

/// Like [`find_at`], without leaving the root of the path.
fn find(
    path: &RootedPath,
    metadata: &Metadata,
    stop: &CancellationToken,
) -> Result<Hashed, StoreError> {
    let descriptor = metadata.descriptor();
    let options = HashOptions {
        piece_length: Some(descriptor.piece_length()),
        name: Some(descriptor.name().to_vec()),
        ..HashOptions::default()
    };
    let found = hash_at(stop, path, &options, |_| {})?;
    match metadata {
        _ if found.manifest.id() == metadata.id() => Ok(found),
        // Who may read the files, and what else is preserved, may differ here.
        Metadata::Manifest(manifest) if has_same_files(manifest, &found.manifest) => {
            Ok(Hashed { manifest: manifest.clone(), ..found })
        }
        _ => Err(StoreError::Exists(path.path().to_owned())),
    }
}

/// Whether two contents have the same files, directories and links.
fn has_same_files(ours: &Manifest, theirs: &Manifest) -> bool {
    let is_same = |(ours, theirs): (Entry<'_>, Entry<'_>)| {
        (ours.depth, ours.name) == (theirs.depth, theirs.name) && ours.kind == theirs.kind
    };
    let both = ours.entries().zip(theirs.entries());
    ours.entry_count() == theirs.entry_count()
        && both.map(|((_, ours), (_, theirs))| (ours, theirs)).all(is_same)
}

/// Makes the staged copy survive a power cut. For a tree, one call instead of one per file.
pub(super) fn sync_staged(target: Target<'_>, is_tree: bool) -> io::Result<()> {
    let Target { directory, name, .. } = target;
    reach(Step::SyncTree)?;
    let staged = match openat(directory, name, READ, Mode::empty()) {
        // Its restored permissions forbid it.
        Err(Errno::ACCESS) => return Ok(syncfs(openat(directory, ".", READ, Mode::empty())?)?),
        opened => File::from(opened?),
    };
    if is_tree { Ok(syncfs(staged)?) } else { staged.sync_all() }
}

/// Makes the names in a directory survive a power cut.
fn sync_names(directory: BorrowedFd<'_>) -> io::Result<()> {
    match openat(directory, ".", READ, Mode::empty()) {
        Ok(readable) => File::from(readable).sync_all(),
        // A directory that can be written but not read cannot be synced.
        Err(Errno::ACCESS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Deletes a file or a tree.
fn delete(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        // The errors of Linux and of POSIX for a directory.
        Err(Errno::ISDIR | Errno::PERM) => {}
        outcome => return outcome.map_err(io::Error::from),
    }
    let inner = File::from(openat(directory, name, READ | OFlags::DIRECTORY, Mode::empty())?);
    // Restored permissions may forbid to delete what is in it.
    inner.set_permissions(Permissions::from_mode(PRIVATE))?;
    for name in names_in(&inner)? {
        delete(inner.as_fd(), &name)?;
    }
    Ok(unlinkat(directory, name, AtFlags::REMOVEDIR)?)
}
