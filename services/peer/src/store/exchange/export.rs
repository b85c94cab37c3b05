//! Exports copies of a content, which share its blocks on disk if the file system can do that.
//!
//! Other users may write to the directory of the destination. Therefore everything there is done
//! through open directory handles, without resolving a path again, and no symbolic link is
//! followed.

use std::{
    ffi::OsStr,
    fs::{File, Permissions},
    io::{self, Read as _},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::PermissionsExt as _,
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, ioctl_ficlone, linkat, mkdirat, openat, syncfs, unlinkat},
    io::Errno,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::store::{
    StoreError,
    catalogue::Store,
    content::Stored,
    error::{cannot, check_stop},
    file_system::{exists, names_in, rename_new},
    hash::hash_at,
    rooted_path::RootedPath,
};

/// Permissions that are copied. The set-user-id bit is not, because the copy may have another
/// owner.
const PERMISSIONS: u32 = 0o777;

/// How created files and directories are opened: a link that has taken their place is refused.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Bytes copied between two checks for cancellation: a second on a slow disk.
const COPY_STEP: u64 = 64 << 20;

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
        if !stored.is_complete() {
            return Err(StoreError::Incomplete(stored.id()));
        }
        let path = destination.path();
        let (name, parent) = open_parent(destination)?;
        if exists(parent.as_fd(), name.as_ref()) {
            return unchanged(stored, destination, self.stop());
        }
        let staged = format!(".{}.{}.shoal", name.display(), Uuid::new_v4().simple());
        let target = Target { directory: parent.as_fd(), name: staged.as_ref(), shown: path };
        let exported = export_all(stored, target, self.stop()).and_then(|exported| {
            if exported.contains(&Exported::HardLink) {
                self.guard(stored)?;
            }
            // A file or tree under its final name must be whole, even after a power cut.
            sync_staged(target, stored.manifest().is_directory()).map_err(cannot("sync", path))?;
            rename_new(&parent, staged.as_ref(), &parent, name.as_ref(), path)?;
            sync_names(parent.as_fd()).map_err(cannot("sync", path))?;
            Ok(exported.into_iter().max().unwrap_or(Exported::Copy))
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

/// Succeeds if the destination holds the same content, byte by byte.
fn unchanged(
    stored: &Stored,
    destination: &RootedPath,
    stop: &CancellationToken,
) -> Result<Exported, StoreError> {
    let layout = stored.layout();
    let found = hash_at(stop, destination, Some(layout.piece_length()), |_| {})?;
    let ours = stored.manifest();
    let is_same = found.hashes == *stored.hashes()
        && found.manifest.is_directory() == ours.is_directory()
        && (!ours.is_directory() || found.manifest.files() == ours.files())
        && found.manifest.empty_directories() == ours.empty_directories();
    let path = destination.path();
    if is_same { Ok(Exported::Unchanged) } else { Err(StoreError::Exists(path.to_owned())) }
}

/// A name in an open directory, which is not used yet.
#[derive(Clone, Copy)]
struct Target<'a> {
    directory: BorrowedFd<'a>,
    name: &'a OsStr,
    /// The path in errors.
    shown: &'a Path,
}

fn export_all(
    stored: &Stored,
    target: Target<'_>,
    stop: &CancellationToken,
) -> Result<Vec<Exported>, StoreError> {
    let files = &stored.files;
    files.check_all()?;
    let manifest = stored.manifest();
    if !manifest.is_directory() {
        let exported = export_file(stored, 0, target, stop)?;
        files.check_all()?;
        return Ok(vec![exported]);
    }
    let Target { directory, name, shown } = target;
    let root = directory_in(directory, name).map_err(cannot("create", shown))?;
    let mut exported = Vec::with_capacity(manifest.files().len());
    for (number, entry) in manifest.files().iter().enumerate() {
        let shown = &shown.join(&entry.path);
        let (above, name) = match entry.path.rsplit_once('/') {
            Some((above, name)) => {
                (directories_in(&root, above).map_err(cannot("create", shown))?, name)
            }
            None => (root.try_clone().map_err(cannot("create", shown))?, entry.path.as_str()),
        };
        let target = Target { directory: above.as_fd(), name: name.as_ref(), shown };
        exported.push(export_file(stored, number, target, stop)?);
    }
    for path in manifest.empty_directories() {
        directories_in(&root, path).map_err(cannot("create", &shown.join(path)))?;
    }
    files.check_all()?;
    Ok(exported)
}

fn export_file(
    stored: &Stored,
    number: usize,
    target: Target<'_>,
    stop: &CancellationToken,
) -> Result<Exported, StoreError> {
    let Target { directory, name, shown } = target;
    let path = stored.files.path_of(number);
    let mut source = stored.files.open_unshared(number)?;
    let mode = source.metadata().map_err(cannot("look at", &path))?.permissions().mode();
    let create = || -> io::Result<File> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?.into())
    };
    let permit = |file: &File| {
        file.set_permissions(Permissions::from_mode(mode & PERMISSIONS))
            .map_err(cannot("change the mode of", shown))
    };
    let file = create().map_err(cannot("create", shown))?;
    if ioctl_ficlone(&file, &source).is_ok() {
        permit(&file)?;
        return Ok(Exported::Reflink);
    }
    // The owner of files in place did not request a second name for them.
    if !stored.is_in_place() {
        unlinkat(directory, name, AtFlags::empty())
            .map_err(|error| StoreError::io("replace", shown, error.into()))?;
        if linkat(CWD, &path, directory, name, AtFlags::empty()).is_ok() {
            return Ok(Exported::HardLink);
        }
    }
    let mut file =
        if stored.is_in_place() { file } else { create().map_err(cannot("create", shown))? };
    copy(&mut source, &mut file, shown, stop)?;
    permit(&file)?;
    Ok(Exported::Copy)
}

/// Like `io::copy`, but in steps, because it may take hours.
fn copy(
    from: &mut File,
    to: &mut File,
    shown: &Path,
    stop: &CancellationToken,
) -> Result<(), StoreError> {
    loop {
        check_stop(stop, shown)?;
        // From file to file the kernel copies, without a user-space buffer.
        let step = io::copy(&mut from.by_ref().take(COPY_STEP), to);
        if step.map_err(cannot("write", shown))? == 0 {
            return Ok(());
        }
    }
}

/// Makes the staged copy survive a power cut. For a tree, one call instead of one per file.
fn sync_staged(target: Target<'_>, is_tree: bool) -> io::Result<()> {
    let Target { directory, name, .. } = target;
    let staged = File::from(openat(directory, name, READ, Mode::empty())?);
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

/// Opens a directory, after creating it if it does not exist.
fn directory_in(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<File> {
    match mkdirat(parent, name, Mode::RWXU | Mode::RWXG | Mode::RWXO) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(openat(parent, name, READ | OFlags::DIRECTORY, Mode::empty())?.into())
}

/// The same for each directory of a path.
fn directories_in(parent: &File, path: &str) -> io::Result<File> {
    let mut at = parent.try_clone()?;
    for name in path.split('/') {
        at = directory_in(at.as_fd(), name.as_ref())?;
    }
    Ok(at)
}

/// Deletes a file or a tree.
fn delete(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        // The errors of Linux and of POSIX for a directory.
        Err(Errno::ISDIR | Errno::PERM) => {}
        outcome => return outcome.map_err(io::Error::from),
    }
    let inner = directory_in(directory, name)?;
    for name in names_in(&inner)? {
        delete(inner.as_fd(), &name)?;
    }
    Ok(unlinkat(directory, name, AtFlags::REMOVEDIR)?)
}
