//! Creates the files of a complete content.
//!
//! Other users may write to the directory of the destination. Therefore everything there is done
//! through open directory handles, without resolving a path again, and no symbolic link is
//! followed.

use std::{
    ffi::OsStr,
    fs::{File, FileTimes, Permissions},
    io::{self, Read as _, Seek as _, Write as _},
    ops::Range,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{
            ffi::OsStrExt as _,
            fs::{MetadataExt as _, PermissionsExt as _},
        },
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::{
    fs::{
        AtFlags, CWD, Mode, OFlags, SeekFrom, ioctl_ficlone, linkat, mkdirat, openat, renameat,
        seek, symlinkat, unlinkat,
    },
    io::Errno,
};
use shoal_core::content::{Attributes, BlobNumber, Entry, EntryNumber, Kind, Manifest, Part};
use tokio_util::sync::CancellationToken;

use super::Exported;
use crate::store::{
    StoreError,
    arrangement::FileNumber,
    content::{Stored, file_mode},
    error::{Paths, cannot, check_stop},
    file_system::exists,
    probe::{Step, reach},
};

/// How created files and directories are opened: a link that has taken their place is refused.
pub(super) const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Mode bits that are restored. Not set-user-ID and set-group-ID: the copy may have another owner.
const RESTORED: u32 = 0o1777;

const SET_GROUP_ID: u32 = 0o2000;

/// Bytes copied between two checks for cancellation: a second on a slow disk.
const COPY_STEP: u64 = 64 << 20;

/// Bytes read at a time from a pack.
const BUFFER_BYTES: usize = 256 << 10;

/// Directories that are open at a time, one in the other. A manifest may have 2,048 of them, which is
/// more than the usual limit of files of a process.
const MAX_OPEN: usize = 64;

/// A name in an open directory, which is not used yet.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) directory: BorrowedFd<'a>,
    pub(super) name: &'a OsStr,
    /// The path in errors.
    pub(super) shown: &'a Path,
}

/// What becomes of the blobs that are whole files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blobs {
    /// They stay, and the copies share their bytes on disk if the file system can do that.
    Stay,
    /// They become the files.
    Move,
}

/// Creates the file or tree of a complete content, and returns the costliest way of its files. If
/// blobs are moved, the caller restores the attributes of the content's own directory.
pub(super) fn create(
    stored: &Stored,
    target: Target<'_>,
    blobs: Blobs,
    stop: &CancellationToken,
) -> Result<Exported, StoreError> {
    let manifest = stored.complete_manifest()?;
    let mut work = Work {
        stored,
        manifest,
        blobs,
        stop,
        collisions: Paths::default(),
        not_kept: Paths::default(),
    };
    let root = manifest.entry(EntryNumber::ROOT);
    if !manifest.is_directory() {
        let way = work.file(target, EntryNumber::ROOT, &root)?;
        warn_of_not_kept(&work.not_kept);
        return Ok(way);
    }
    let mut costliest = work.walk(target, Pass::Create)?;
    if !work.collisions.is_empty() {
        let (directory, names) = (target.shown.to_owned(), work.collisions);
        return Err(StoreError::Names { directory, names });
    }
    if blobs == Blobs::Move {
        costliest = costliest.max(work.walk(target, Pass::Move)?);
    }
    warn_of_not_kept(&work.not_kept);
    Ok(costliest)
}

struct Work<'a> {
    stored: &'a Stored,
    manifest: &'a Manifest,
    blobs: Blobs,
    stop: &'a CancellationToken,
    /// Entries whose names the file system takes for those of others.
    collisions: Paths,
    /// Entries whose modes and times the file system does not keep.
    not_kept: Paths,
}

/// What is done in one walk through the entries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Directories are created, with all files but those that blobs become.
    Create,
    /// Blobs become files. Later, so that equal files could be copied from them.
    Move,
}

/// A directory of the tree.
struct Directory {
    handle: Handle,
    attributes: Option<Attributes>,
    path: PathBuf,
}

enum Handle {
    Open(File),
    /// Far above the current directory. It is opened again when its entries are.
    Closed {
        device: u64,
        inode: u64,
    },
}

/// The current directory and those above it.
///
/// Invariant: the current one is open.
#[derive(Default)]
struct Above(Vec<Directory>);

impl Above {
    const fn depth(&self) -> usize {
        self.0.len()
    }

    /// The current directory, and its path.
    fn current(&self) -> Option<(BorrowedFd<'_>, &Path)> {
        let Directory { handle, path, .. } = self.0.last()?;
        let Handle::Open(handle) = handle else { unreachable!("the current directory is open") };
        Some((handle.as_fd(), path))
    }

    fn enter(
        &mut self,
        handle: File,
        attributes: Option<Attributes>,
        path: PathBuf,
    ) -> Result<(), StoreError> {
        if let Some(far) = self.0.len().checked_sub(MAX_OPEN) {
            let Directory { handle, path, .. } = &mut self.0[far];
            if let Handle::Open(open) = handle {
                let found = open.metadata().map_err(cannot("look at", path))?;
                *handle = Handle::Closed { device: found.dev(), inode: found.ino() };
            }
        }
        self.0.push(Directory { handle: Handle::Open(handle), attributes, path });
        Ok(())
    }

    /// All entries of the current directory were created. Returns it with the attributes that it is
    /// to have.
    fn leave(&mut self) -> Result<Option<(File, Option<Attributes>, PathBuf)>, StoreError> {
        let Some(Directory { handle, attributes, path }) = self.0.pop() else { return Ok(None) };
        let Handle::Open(handle) = handle else { unreachable!("the current directory is open") };
        // Before its permissions are restored, which may forbid it.
        if let Some(above) = self.0.last_mut() {
            above.reopen(&handle)?;
        }
        Ok(Some((handle, attributes, path)))
    }
}

impl Directory {
    /// Opens the directory that contains `inner`, if it is closed.
    fn reopen(&mut self, inner: &File) -> Result<(), StoreError> {
        let Handle::Closed { device, inode } = self.handle else { return Ok(()) };
        let opened = openat(inner, "..", READ | OFlags::DIRECTORY, Mode::empty());
        let opened = opened.map(File::from).map_err(io::Error::from);
        let opened = opened.map_err(cannot("open", &self.path))?;
        let found = opened.metadata().map_err(cannot("look at", &self.path))?;
        if (found.dev(), found.ino()) != (device, inode) {
            let error = io::Error::other("another process moved what is in it");
            return Err(StoreError::io("open", &self.path, error));
        }
        self.handle = Handle::Open(opened);
        Ok(())
    }
}

impl Work<'_> {
    fn walk(&mut self, target: Target<'_>, pass: Pass) -> Result<Exported, StoreError> {
        let is_last_pass = (pass == Pass::Move) == (self.blobs == Blobs::Move);
        // Of a tree without bytes.
        let mut costliest = Exported::Reflink;
        let mut above = Above::default();
        for (number, entry) in self.manifest.entries() {
            check_stop(self.stop, target.shown)?;
            while above.depth() > entry.depth as usize {
                self.leave(&mut above, is_last_pass)?;
            }
            let (directory, name, path) = match above.current() {
                None => (target.directory, target.name, target.shown.to_owned()),
                Some((directory, path)) => {
                    let name = OsStr::from_bytes(entry.name);
                    (directory, name, path.join(name))
                }
            };
            let target = Target { directory, name, shown: &path };
            if entry.kind == Kind::Directory {
                let handle = self.directory(target, &entry, pass)?;
                let is_left = number == EntryNumber::ROOT && self.blobs == Blobs::Move;
                let attributes = entry.attributes.filter(|_| !is_left);
                above.enter(handle, attributes, path)?;
                continue;
            }
            let is_moved = self.is_moved(number, &entry);
            let done = match (&entry.kind, pass) {
                (Kind::Link(link), Pass::Create) => symlink(link, target),
                (Kind::File { .. }, Pass::Create) if !is_moved => self.file(target, number, &entry),
                (Kind::File { .. }, Pass::Move) if is_moved => self.file(target, number, &entry),
                _ => continue,
            };
            match done {
                // In a fresh directory: another name is the same to the file system.
                Err(StoreError::Exists(path)) => self.collisions.push(path),
                done => costliest = costliest.max(done?),
            }
        }
        while above.depth() > 0 {
            self.leave(&mut above, is_last_pass)?;
        }
        Ok(costliest)
    }

    fn leave(&mut self, above: &mut Above, is_last_pass: bool) -> Result<(), StoreError> {
        match above.leave()? {
            Some((directory, Some(attributes), path)) if is_last_pass => {
                self.restore(&directory, attributes, &path)
            }
            _ => Ok(()),
        }
    }

    /// Restores mode and time of a file or directory, if the file system keeps them.
    fn restore(
        &mut self,
        file: &File,
        attributes: Attributes,
        shown: &Path,
    ) -> Result<(), StoreError> {
        if restore(file, attributes, shown)? == Restored::NotKept {
            self.not_kept.push(shown.to_owned());
        }
        Ok(())
    }

    /// Whether the blob of a file becomes that file.
    fn is_moved(&self, number: EntryNumber, entry: &Entry<'_>) -> bool {
        let blob = entry.part().and_then(|part| part.blob);
        self.blobs == Blobs::Move
            && blob.is_some_and(|blob| self.manifest.files_of(blob) == [number])
    }

    /// Creates a directory, or opens one that was created.
    fn directory(
        &mut self,
        target: Target<'_>,
        entry: &Entry<'_>,
        pass: Pass,
    ) -> Result<File, StoreError> {
        let Target { directory, name, shown } = target;
        if pass == Pass::Create {
            let mode = if entry.private { Mode::RWXU } else { Mode::from_raw_mode(0o777) };
            match mkdirat(directory, name, mode) {
                Err(Errno::EXIST) => self.collisions.push(shown.to_owned()),
                created => {
                    created.map_err(|error| StoreError::io("create", shown, error.into()))?;
                }
            }
        }
        let opened = openat(directory, name, READ | OFlags::DIRECTORY, Mode::empty());
        opened.map(File::from).map_err(|error| StoreError::io("open", shown, error.into()))
    }

    /// Creates a file.
    fn file(
        &mut self,
        target: Target<'_>,
        number: EntryNumber,
        entry: &Entry<'_>,
    ) -> Result<Exported, StoreError> {
        let Kind::File { part, executable } = entry.kind else {
            unreachable!("only files are created as files")
        };
        let mode = Mode::from_raw_mode(file_mode(executable, entry.private));
        let way = match (part.blob, self.whole(&part)) {
            (Some(blob), _) if self.is_moved(number, entry) => self.take(blob, target)?,
            (Some(blob), Some(first)) => {
                // The file of the blob has the mode of the first of equal files, and may have one
                // more name: the files of an export must not change with each other.
                let may_link = first == number && entry.attributes.is_none();
                self.copy(blob, target, mode, may_link)?
            }
            _ => self.unpack(&part, target, mode)?,
        };
        if let Some(attributes) = entry.attributes {
            let flags = READ | OFlags::NONBLOCK;
            let file = openat(target.directory, target.name, flags, Mode::empty());
            let file = file.map_err(|error| StoreError::io("open", target.shown, error.into()))?;
            self.restore(&file.into(), attributes, target.shown)?;
        }
        Ok(way)
    }

    /// The first of the files that are the whole blob of this one; none if that is a pack.
    fn whole(&self, part: &Part) -> Option<EntryNumber> {
        match self.manifest.files_of(part.blob?) {
            [first] => Some(*first),
            _ => None,
        }
    }

    /// Makes the file of a blob the file.
    fn take(&self, blob: BlobNumber, target: Target<'_>) -> Result<Exported, StoreError> {
        let Target { directory, name, shown } = target;
        if exists(directory, name.as_ref()) {
            return Err(StoreError::Exists(shown.to_owned()));
        }
        let from = self.stored.files.path_of(FileNumber::of_blob(blob));
        let renamed = renameat(CWD, &from, directory, name);
        renamed.map_err(|error| StoreError::io("rename", &from, error.into()))?;
        Ok(Exported::Unchanged)
    }

    /// Creates a file with the bytes of a blob.
    fn copy(
        &self,
        blob: BlobNumber,
        target: Target<'_>,
        mode: Mode,
        may_link: bool,
    ) -> Result<Exported, StoreError> {
        let Target { directory, name, shown } = target;
        let mut source = self.stored.files.open_unshared(self.manifest, blob)?;
        let file = new_file(target, mode)?;
        if ioctl_ficlone(&file, &source).is_ok() {
            return Ok(Exported::Reflink);
        }
        // The owner of files in place did not request a second name for them.
        if may_link && self.blobs == Blobs::Stay && !self.stored.is_in_place() {
            drop(file);
            unlinkat(directory, name, AtFlags::empty())
                .map_err(|error| StoreError::io("replace", shown, error.into()))?;
            let from = self.stored.files.path_of(FileNumber::of_blob(blob));
            if linkat(CWD, &from, directory, name, AtFlags::empty()).is_ok() {
                return Ok(Exported::HardLink);
            }
            let mut file = new_file(target, mode)?;
            copy(&mut source, &mut file, shown, self.stop)?;
            return Ok(Exported::Copy);
        }
        let mut file = file;
        copy(&mut source, &mut file, shown, self.stop)?;
        Ok(Exported::Copy)
    }

    /// Creates a file with its bytes in a pack. Only the pack's hash was checked, not the file's.
    fn unpack(&self, part: &Part, target: Target<'_>, mode: Mode) -> Result<Exported, StoreError> {
        let mut file = new_file(target, mode)?;
        let Some(blob) = part.blob else { return Ok(Exported::Reflink) };
        let mut buffer = vec![0; BUFFER_BYTES.min(part.size as usize)];
        let mut hasher = blake3::Hasher::new();
        let mut at = 0;
        while at < part.size {
            let length = buffer.len().min((part.size - at) as usize);
            let buffer = &mut buffer[..length];
            self.stored.files.read(blob, part.offset + at, buffer)?;
            hasher.update(buffer);
            file.write_all(buffer).map_err(cannot("write", target.shown))?;
            at += length as u64;
        }
        if hasher.finalize() != part.root {
            return Err(StoreError::WrongRoot(target.shown.to_owned()));
        }
        Ok(Exported::Copy)
    }
}

fn new_file(target: Target<'_>, mode: Mode) -> Result<File, StoreError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(target.directory, target.name, flags, mode) {
        Ok(file) => Ok(file.into()),
        Err(Errno::EXIST) => Err(StoreError::Exists(target.shown.to_owned())),
        Err(error) => Err(StoreError::io("create", target.shown, error.into())),
    }
}

fn symlink(link: &[u8], target: Target<'_>) -> Result<Exported, StoreError> {
    let Target { directory, name, shown } = target;
    match symlinkat(OsStr::from_bytes(link), directory, name) {
        Ok(()) => Ok(Exported::Unchanged),
        Err(Errno::EXIST) => Err(StoreError::Exists(shown.to_owned())),
        Err(error) => Err(StoreError::io("create", shown, error.into())),
    }
}

/// Whether a file or directory has its mode and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restored {
    All,
    /// The file system does not keep them, as FAT and some network file systems.
    NotKept,
}

/// Restores mode and time of a file or directory.
pub(super) fn restore(
    file: &File,
    attributes: Attributes,
    shown: &Path,
) -> Result<Restored, StoreError> {
    let modified = FileTimes::new().set_modified(time_of(attributes.modified_ns));
    let found = file.metadata().map_err(cannot("look at", shown))?;
    // A directory has it from the one that it is in, whose group its files are to have.
    let inherited = if found.is_dir() { found.mode() & SET_GROUP_ID } else { 0 };
    let mode = Permissions::from_mode(attributes.mode & RESTORED | inherited);
    let mut restored = Restored::All;
    // The mode last: it may forbid what is before it.
    for done in [
        reach(Step::Restore).and_then(|()| file.set_times(modified)),
        reach(Step::Restore).and_then(|()| file.set_permissions(mode)),
    ] {
        match done {
            Err(error) if is_not_kept(&error) => restored = Restored::NotKept,
            done => done.map_err(cannot("change the mode and time of", shown))?,
        }
    }
    Ok(restored)
}

fn is_not_kept(error: &io::Error) -> bool {
    let not_kept = [Errno::PERM, Errno::OPNOTSUPP, Errno::NOSYS, Errno::INVAL];
    not_kept.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Reports what does not have its mode and time.
pub(super) fn warn_of_not_kept(paths: &Paths) {
    if !paths.is_empty() {
        tracing::warn!(%paths, "the file system does not keep these modes and times");
    }
}

fn time_of(nanoseconds: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanoseconds.unsigned_abs());
    if nanoseconds < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}

/// Like `io::copy`, but in steps, because it may take hours. Holes stay holes.
fn copy(
    from: &mut File,
    to: &mut File,
    shown: &Path,
    stop: &CancellationToken,
) -> Result<(), StoreError> {
    let size = from.metadata().and_then(|found| to.set_len(found.len()).map(|()| found.len()));
    let size = size.map_err(cannot("write", shown))?;
    let mut at = 0;
    while let Some(data) = next_data(from, at, size) {
        check_stop(stop, shown)?;
        let step = copy_part(from, to, data.start..data.end.min(data.start + COPY_STEP));
        match step.map_err(cannot("write", shown))? {
            // Another process truncates it, which its fingerprint will show.
            0 => break,
            copied => at = data.start + copied,
        }
    }
    Ok(())
}

fn copy_part(from: &mut File, to: &mut File, part: Range<u64>) -> io::Result<u64> {
    from.seek(io::SeekFrom::Start(part.start))?;
    to.seek(io::SeekFrom::Start(part.start))?;
    // From file to file the kernel copies, without a user-space buffer.
    io::copy(&mut from.take(part.end - part.start), to)
}

/// The next bytes of a file that are not in a hole, from an offset on. If the file system does not
/// tell, these are all.
fn next_data(file: &File, at: u64, size: u64) -> Option<Range<u64>> {
    let start = match seek(file, SeekFrom::Data(at)) {
        Err(Errno::NXIO) => return None,
        found => found.unwrap_or(at),
    };
    let end = seek(file, SeekFrom::Hole(start)).unwrap_or(size);
    (start < size).then_some(start..end.min(size))
}
