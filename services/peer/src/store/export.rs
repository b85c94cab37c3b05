//! Copies of a content for others to use, sharing its blocks on disk where the system can.

use std::{fs, io, path::Path};

use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};
use uuid::Uuid;

use super::{
    Store, StoreError, Stored,
    error::cannot,
    files::{create_parent, sync_file, sync_file_system, sync_parent},
    hash::hash,
};

/// How a file came to its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exported {
    /// The same content lay there already.
    Unchanged,
    /// Shares its blocks until either is written to.
    Reflink,
    /// The same file under a second name. Who edits it edits the store's copy as well: that is then
    /// noticed, and the content refused.
    HardLink,
    /// Bytes of its own.
    Copy,
}

impl Store {
    /// Puts a complete content at `destination`, all or nothing. Anything else that lies there is
    /// left alone, and is an error. Of a directory, the answer is the costliest way that was taken.
    pub fn export(&self, stored: &Stored, destination: &Path) -> Result<Exported, StoreError> {
        if !stored.is_complete() {
            return Err(StoreError::Incomplete(stored.id()));
        }
        if destination.symlink_metadata().is_ok() {
            return unchanged(stored, destination);
        }
        let name =
            destination.file_name().ok_or_else(|| StoreError::Unnamed(destination.to_owned()))?;
        let staged = destination.with_file_name(format!(
            ".{}.{}.shoal",
            name.display(),
            Uuid::new_v4().simple()
        ));
        let exported = export_all(stored, &staged).and_then(|exported| {
            if exported.contains(&Exported::HardLink) {
                self.guard(stored)?;
            }
            // What has its name is whole, also after a power cut.
            if stored.manifest().is_directory() {
                sync_file_system(&staged)?;
            } else {
                sync_file(&staged)?;
            }
            rename_new(&staged, destination)?;
            sync_parent(destination)?;
            Ok(exported.into_iter().max().unwrap_or(Exported::Copy))
        });
        if exported.is_err() {
            delete(&staged);
        }
        exported
    }
}

/// What lies at the destination is fine if it is the same content, byte by byte.
fn unchanged(stored: &Stored, destination: &Path) -> Result<Exported, StoreError> {
    let layout = stored.layout();
    let found = hash(destination, Some(layout.piece_length()), |_| {})?;
    let ours = stored.manifest();
    let is_same = found.hashes == *stored.hashes()
        && found.manifest.is_directory() == ours.is_directory()
        && (!ours.is_directory() || found.manifest.files() == ours.files())
        && found.manifest.empty_directories() == ours.empty_directories();
    if is_same { Ok(Exported::Unchanged) } else { Err(StoreError::Exists(destination.to_owned())) }
}

fn export_all(stored: &Stored, staged: &Path) -> Result<Vec<Exported>, StoreError> {
    let files = &stored.files;
    files.check_all()?;
    let manifest = stored.manifest();
    let mut exported = Vec::with_capacity(manifest.files().len());
    if manifest.is_directory() {
        fs::create_dir(staged).map_err(cannot("create", staged))?;
        for (number, entry) in manifest.files().iter().enumerate() {
            let target = staged.join(&entry.path);
            create_parent(&target)?;
            exported.push(export_file(stored, &files.path_of(number), &target)?);
        }
        for directory in manifest.empty_directories() {
            let target = staged.join(directory);
            fs::create_dir_all(&target).map_err(cannot("create", &target))?;
        }
    } else {
        exported.push(export_file(stored, &files.path_of(0), staged)?);
    }
    files.check_all()?;
    Ok(exported)
}

fn export_file(stored: &Stored, source: &Path, target: &Path) -> Result<Exported, StoreError> {
    if reflink_copy::reflink(source, target).is_ok() {
        let permissions = fs::metadata(source).map_err(cannot("look at", source))?.permissions();
        fs::set_permissions(target, permissions).map_err(cannot("change", target))?;
        return Ok(Exported::Reflink);
    }
    // What is in place is its owner's, who did not ask for a second name.
    if !stored.is_in_place() && fs::hard_link(source, target).is_ok() {
        return Ok(Exported::HardLink);
    }
    fs::copy(source, target).map_err(cannot("write", target))?;
    Ok(Exported::Copy)
}

/// Renames, but never over something else.
pub(super) fn rename_new(from: &Path, to: &Path) -> Result<(), StoreError> {
    let renamed = match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some network file systems cannot promise it.
        Err(Errno::INVAL | Errno::NOSYS) if to.symlink_metadata().is_err() => fs::rename(from, to),
        renamed => renamed.map_err(io::Error::from),
    };
    renamed.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty => {
            StoreError::Exists(to.to_owned())
        }
        _ => StoreError::io("rename to", to, error),
    })
}

/// What was staged in vain; what cannot be deleted stays, under a name that tells.
fn delete(staged: &Path) {
    let _ = fs::remove_dir_all(staged).or_else(|_| fs::remove_file(staged));
}
