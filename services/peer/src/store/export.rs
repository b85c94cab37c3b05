//! Copies of a content for others to use, sharing its blocks on disk where the system can.
//!
//! Others may write to the directory of the destination. All there is done by handles of
//! directories, none of which is looked up again, and nothing is opened through a symbolic link.

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
    fs::{
        AtFlags, CWD, Mode, OFlags, RenameFlags, ioctl_ficlone, linkat, mkdirat, openat, renameat,
        renameat_with, statat, syncfs, unlinkat,
    },
    io::Errno,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Store, StoreError, Stored,
    error::cannot,
    hash::{check_stop, hash_at},
    place::{Place, names_in},
};

/// Reading, writing and running; a set-user-id bit of a file in place does not pass to its copy,
/// which has another owner.
const PERMISSIONS: u32 = 0o777;

/// How what we made is opened: nobody may have put a link in its place.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Bytes that are copied before it is looked whether to go on: a second on a slow disk.
const COPY_STEP: u64 = 64 << 20;

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
        let absolute = std::path::absolute(destination).map_err(cannot("find", destination))?;
        self.export_to(stored, &Place::anywhere(&absolute))
    }

    /// The same at a place, without leaving its root.
    pub fn export_to(&self, stored: &Stored, destination: &Place) -> Result<Exported, StoreError> {
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
            // What has its name is whole, also after a power cut.
            sync_staged(target, stored.manifest().is_directory()).map_err(cannot("sync", path))?;
            rename_new(&parent, staged.as_ref(), &parent, name.as_ref(), path)?;
            sync_names(parent.as_fd()).map_err(cannot("sync", path))?;
            Ok(exported.into_iter().max().unwrap_or(Exported::Copy))
        });
        if exported.is_err() {
            // What cannot be deleted stays, under a name that tells.
            let _ = delete(parent.as_fd(), staged.as_ref());
        }
        exported
    }
}

/// Whether a copy may be put at a destination, as far as that can be told before the content is here:
/// it has a name, in a directory that is there.
pub(crate) fn check_destination(destination: &Place) -> Result<(), StoreError> {
    open_parent(destination).map(drop)
}

/// The name of a destination, and the directory that is to hold it.
fn open_parent(destination: &Place) -> Result<(&OsStr, File), StoreError> {
    let path = destination.path();
    let unnamed = || StoreError::Unnamed(path.to_owned());
    let (name, parent) = path.file_name().zip(path.parent()).ok_or_else(unnamed)?;
    let parent = destination.opener()?.open(parent, OFlags::PATH | OFlags::DIRECTORY)?;
    Ok((name, parent))
}

/// What lies at the destination is fine if it is the same content, byte by byte.
fn unchanged(
    stored: &Stored,
    destination: &Place,
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

/// A name in an open directory, where nothing lies yet.
#[derive(Clone, Copy)]
struct Target<'a> {
    directory: BorrowedFd<'a>,
    name: &'a OsStr,
    /// For errors.
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
    let mut source = stored.files.open_alone(number)?;
    let mode = source.metadata().map_err(cannot("look at", &path))?.permissions().mode();
    let create = || -> io::Result<File> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?.into())
    };
    let permit = |file: &File| {
        file.set_permissions(Permissions::from_mode(mode & PERMISSIONS))
            .map_err(cannot("change", shown))
    };
    let file = create().map_err(cannot("create", shown))?;
    if ioctl_ficlone(&file, &source).is_ok() {
        permit(&file)?;
        return Ok(Exported::Reflink);
    }
    // What is in place is its owner's, who did not ask for a second name.
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

/// As `io::copy`, but in steps, as it may take hours.
fn copy(
    from: &mut File,
    to: &mut File,
    shown: &Path,
    stop: &CancellationToken,
) -> Result<(), StoreError> {
    loop {
        check_stop(stop, shown)?;
        // Between two files the kernel copies, without a buffer of ours.
        let step = io::copy(&mut from.by_ref().take(COPY_STEP), to);
        if step.map_err(cannot("write", shown))? == 0 {
            return Ok(());
        }
    }
}

/// Has what was staged survive a power cut: one call for a tree, whose files may be many.
fn sync_staged(target: Target<'_>, is_tree: bool) -> io::Result<()> {
    let Target { directory, name, .. } = target;
    let staged = File::from(openat(directory, name, READ, Mode::empty())?);
    if is_tree { Ok(syncfs(staged)?) } else { staged.sync_all() }
}

/// Has the names in a directory survive a power cut.
fn sync_names(directory: BorrowedFd<'_>) -> io::Result<()> {
    match openat(directory, ".", READ, Mode::empty()) {
        Ok(readable) => File::from(readable).sync_all(),
        // One that may be written to but not read cannot be synced either.
        Err(Errno::ACCESS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Makes a directory, unless it is there, and opens it.
fn directory_in(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<File> {
    match mkdirat(parent, name, Mode::RWXU | Mode::RWXG | Mode::RWXO) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(openat(parent, name, READ | OFlags::DIRECTORY, Mode::empty())?.into())
}

/// The same for all names of a path.
fn directories_in(parent: &File, path: &str) -> io::Result<File> {
    let mut at = parent.try_clone()?;
    for name in path.split('/') {
        at = directory_in(at.as_fd(), name.as_ref())?;
    }
    Ok(at)
}

fn exists(directory: BorrowedFd<'_>, name: &Path) -> bool {
    statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// Renames, but never over something else. `shown` is where to, for errors.
pub(super) fn rename_new(
    from_directory: impl AsFd,
    from: &Path,
    to_directory: impl AsFd,
    to: &Path,
    shown: &Path,
) -> Result<(), StoreError> {
    let (a, b) = (from_directory.as_fd(), to_directory.as_fd());
    let renamed = match renameat_with(a, from, b, to, RenameFlags::NOREPLACE) {
        // Some network file systems cannot promise it.
        Err(Errno::INVAL | Errno::NOSYS) if !exists(b, to) => renameat(a, from, b, to),
        renamed => renamed,
    };
    renamed.map_err(io::Error::from).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty => {
            StoreError::Exists(shown.to_owned())
        }
        _ => StoreError::io("rename to", shown, error),
    })
}

/// Deletes what was staged in vain.
fn delete(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        // A directory, in the words of Linux and of POSIX.
        Err(Errno::ISDIR | Errno::PERM) => {}
        outcome => return outcome.map_err(io::Error::from),
    }
    let inner = directory_in(directory, name)?;
    for name in names_in(&inner)? {
        delete(inner.as_fd(), &name)?;
    }
    Ok(unlinkat(directory, name, AtFlags::REMOVEDIR)?)
}
