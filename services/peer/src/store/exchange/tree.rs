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
        unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
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
};

/// How created files and directories are opened: a link that has taken their place is refused.
pub(super) const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Mode bits that are restored. Not set-user-ID and set-group-ID: the copy may have another owner.
const RESTORED: u32 = 0o1777;

/// Bytes copied between two checks for cancellation: a second on a slow disk.
const COPY_STEP: u64 = 64 << 20;

/// Bytes read at a time from a pack.
const BUFFER_BYTES: usize = 256 << 10;

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
    let mut work = Work { stored, manifest, blobs, stop, collisions: Paths::default() };
    let root = manifest.entry(EntryNumber::ROOT);
    if !manifest.is_directory() {
        return work.file(target, EntryNumber::ROOT, &root);
    }
    let mut costliest = work.walk(target, Step::Create)?;
    if !work.collisions.is_empty() {
        let (directory, names) = (target.shown.to_owned(), work.collisions);
        return Err(StoreError::Names { directory, names });
    }
    if blobs == Blobs::Move {
        costliest = costliest.max(work.walk(target, Step::Move)?);
    }
    Ok(costliest)
}

struct Work<'a> {
    stored: &'a Stored,
    manifest: &'a Manifest,
    blobs: Blobs,
    stop: &'a CancellationToken,
    /// Entries whose names the file system takes for those of others.
    collisions: Paths,
}

/// What is done in one walk through the entries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Directories are created, with all files but those that blobs become.
    Create,
    /// Blobs become files. Later, so that equal files could be copied from them.
    Move,
}

/// A directory of the tree.
struct Open {
    handle: File,
    attributes: Option<Attributes>,
    path: PathBuf,
}

impl Open {
    /// All entries of the directory were created.
    fn close(self, is_last_step: bool) -> Result<(), StoreError> {
        match self.attributes {
            Some(attributes) if is_last_step => restore(&self.handle, attributes, &self.path),
            _ => Ok(()),
        }
    }
}

impl Work<'_> {
    fn walk(&mut self, target: Target<'_>, step: Step) -> Result<Exported, StoreError> {
        let is_last_step = (step == Step::Move) == (self.blobs == Blobs::Move);
        // Of a tree without bytes.
        let mut costliest = Exported::Reflink;
        let mut open: Vec<Open> = Vec::new();
        for (number, entry) in self.manifest.entries() {
            check_stop(self.stop, target.shown)?;
            while open.len() > entry.depth as usize {
                open.pop().map_or(Ok(()), |directory| directory.close(is_last_step))?;
            }
            let (name, path) = match open.last() {
                None => (target.name, target.shown.to_owned()),
                Some(above) => {
                    let name = OsStr::from_bytes(entry.name);
                    (name, above.path.join(name))
                }
            };
            let directory = open.last().map_or(target.directory, |above| above.handle.as_fd());
            let target = Target { directory, name, shown: &path };
            if entry.kind == Kind::Directory {
                let handle = self.directory(target, &entry, step)?;
                let is_left = number == EntryNumber::ROOT && self.blobs == Blobs::Move;
                let attributes = entry.attributes.filter(|_| !is_left);
                open.push(Open { handle, attributes, path });
                continue;
            }
            let is_moved = self.is_moved(number, &entry);
            let done = match (&entry.kind, step) {
                (Kind::Link(link), Step::Create) => symlink(link, target),
                (Kind::File { .. }, Step::Create) if !is_moved => self.file(target, number, &entry),
                (Kind::File { .. }, Step::Move) if is_moved => self.file(target, number, &entry),
                _ => continue,
            };
            match done {
                // In a fresh directory: another name is the same to the file system.
                Err(StoreError::Exists(path)) => self.collisions.push(path),
                done => costliest = costliest.max(done?),
            }
        }
        while let Some(directory) = open.pop() {
            directory.close(is_last_step)?;
        }
        Ok(costliest)
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
        step: Step,
    ) -> Result<File, StoreError> {
        let Target { directory, name, shown } = target;
        if step == Step::Create {
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
        &self,
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
            restore(&file.into(), attributes, target.shown)?;
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

/// Restores mode and time of a file or directory.
pub(super) fn restore(file: &File, attributes: Attributes, shown: &Path) -> Result<(), StoreError> {
    let modified = time_of(attributes.modified_ns);
    file.set_permissions(Permissions::from_mode(attributes.mode & RESTORED))
        .and_then(|()| file.set_times(FileTimes::new().set_modified(modified)))
        .map_err(cannot("change the mode and time of", shown))
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
