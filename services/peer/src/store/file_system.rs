//! File-system operations that the standard library lacks: syncs of names, and a rename that
//! replaces nothing.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, ErrorKind},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStringExt as _,
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, RenameFlags, renameat, renameat_with, statat, statvfs, syncfs},
    io::Errno,
};
use shoal_common::durable_files::parent;

use super::{
    StoreError,
    error::cannot,
    probe::{Step, reach},
};

/// Makes the names in a directory survive a power cut.
pub(super) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    let directory = File::open(path).map_err(cannot("open", path))?;
    match reach(Step::SyncDirectory).and_then(|()| directory.sync_all()) {
        // Some network file systems cannot sync a directory.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
            Ok(())
        }
        synced => synced.map_err(cannot("sync", path)),
    }
}

/// Makes the name at `path`, created or renamed, survive a power cut.
pub(super) fn sync_parent(path: &Path) -> Result<(), StoreError> {
    match sync_directory(parent(path)) {
        // A directory that can be written but not read cannot be synced.
        Err(StoreError::Denied { .. }) => Ok(()),
        synced => synced,
    }
}

/// Deletes a directory with everything in it.
pub(super) fn delete_directory(path: &Path) -> Result<(), StoreError> {
    reach(Step::Delete).and_then(|()| fs::remove_dir_all(path)).map_err(cannot("delete", path))
}

/// Bytes of the file system of `path` that this user may still write. None if it does not tell, as
/// some network file systems.
pub(super) fn free_bytes(path: &Path) -> Option<u64> {
    let found = statvfs(path).ok().filter(|found| found.f_blocks > 0)?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Has the file system of an existing directory account for deleted files, which some do late.
pub(super) fn settle_deletions(directory: &Path) {
    if let Ok(open) = File::open(directory) {
        // If it fails, less space appears to be free than there is.
        let _ = syncfs(open);
    }
}

/// The names in an open directory.
pub(super) fn names_in(directory: &File) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    Ok(names)
}

/// Whether an open directory has an entry, which may be a symbolic link.
pub(super) fn exists(directory: BorrowedFd<'_>, name: &Path) -> bool {
    statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// Renames without replacing anything. `shown` is the destination in errors.
pub(super) fn rename_new(
    from_directory: impl AsFd,
    from: &Path,
    to_directory: impl AsFd,
    to: &Path,
    shown: &Path,
) -> Result<(), StoreError> {
    let (a, b) = (from_directory.as_fd(), to_directory.as_fd());
    let renamed = match renameat_with(a, from, b, to, RenameFlags::NOREPLACE) {
        // Some network file systems do not support it.
        Err(Errno::INVAL | Errno::NOSYS) if !exists(b, to) => renameat(a, from, b, to),
        renamed => renamed,
    };
    renamed.map_err(io::Error::from).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty => {
            StoreError::Exists(shown.to_owned())
        }
        _ => StoreError::io("rename to", shown, error),
    })
}
