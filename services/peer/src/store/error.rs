//! Errors of the store, with messages for the operator.

use std::{
    fmt, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use shoal_common::{
    durable_files::{DirectoryError, FileError},
    text::ShellWord,
};
use shoal_core::content::{
    BlockRange, ContentId, DescriptorError, Escaped, LayoutError, ManifestError, PieceIndex,
};
use tokio_util::sync::CancellationToken;

/// The store could not do what was requested.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk or the user's disk quota is full. Stops only one download.
    #[error("no space is left on the disk of {}; free some and fetch again", .path.display())]
    DiskFull {
        /// The file that was written.
        path: PathBuf,
    },
    /// A read-only file system, or missing permissions.
    #[error("cannot {action} {}: {source}; make it accessible to this user", .path.display())]
    Denied {
        /// The operation.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A symbolic link or `..` on the path.
    #[error(
        "{} leads out of {} by a symbolic link or ..; name the path that it leads to, which must lie in a directory of publish_roots or export_roots", .path.display(), .root.display()
    )]
    Outside {
        /// The requested path, or one found below it.
        path: PathBuf,
        /// The directory that it must lie in.
        root: PathBuf,
    },
    /// Any other error of the file system.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// The operation.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The database is damaged, or could not be read or written.
    #[error("the database {} failed: {source}", .path.display())]
    Database {
        /// Its file.
        path: PathBuf,
        /// The error of redb.
        source: Box<redb::Error>,
    },
    /// Another process has the directory open, or its format is another one.
    #[error(transparent)]
    Directory(DirectoryError),
    /// Another process changed a file while it was hashed or served.
    #[error("{} was changed after shoal hashed it; remove the content, and publish or fetch it again", .0.display())]
    SourceChanged(PathBuf),
    /// A file of `/proc` or the like.
    #[error("{} has content although its size is 0, as files of /proc; copy it, and publish the copy", .0.display())]
    UnknownSize(PathBuf),
    /// The process is stopping, or nobody waits for the result any more.
    #[error("the work on {} was interrupted; start it again", .0.display())]
    Interrupted(PathBuf),
    /// A symbolic link leads back to a directory above it.
    #[error("{} leads back to a directory above it; remove that link", .0.display())]
    LinkCycle(PathBuf),
    /// Devices, sockets or pipes.
    #[error("these are neither files nor directories: {0}; leave them out")]
    NotFiles(Paths),
    /// Symbolic links that lead nowhere.
    #[error(
        "these symbolic links lead nowhere: {0}; remove them, or leave them out with --links skip"
    )]
    Dangling(Paths),
    /// Symbolic links that lead out of the content.
    #[error(
        "these symbolic links lead out of the directory: {0}; publish what they lead to with --links follow, or leave them out with --links skip"
    )]
    LinksRefused(Paths),
    /// The path has no file name, like `/`.
    #[error("{} has no file name; name a file or a directory", .0.display())]
    Unnamed(PathBuf),
    /// The manifest would be invalid.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The descriptor would be invalid.
    #[error(transparent)]
    Descriptor(#[from] DescriptorError),
    /// The file system cannot keep these names, or makes two of them one.
    #[error("the file system of {} cannot keep these names: {names}; choose another destination", .directory.display())]
    Names {
        /// Where the content was to be.
        directory: PathBuf,
        /// The paths in the content.
        names: Paths,
    },
    /// A path would be longer than the system allows.
    #[error("a path of the content has {longest} bytes, and below {} it would be longer than the 4095 that the system allows; choose a destination with a shorter path", .directory.display())]
    TooLong {
        /// Where the content was to be.
        directory: PathBuf,
        /// Bytes of the longest path in the content.
        longest: usize,
    },
    /// The bytes of a file are not those that its hash in the manifest demands.
    #[error("the publisher's manifest is wrong about {}: its bytes have another hash", .0.display())]
    WrongRoot(PathBuf),
    /// The manifest says that a piece has only zeros, and gives it another hash than theirs.
    #[error("the publisher's manifest is wrong: piece {} has another hash than the zeros it is said to have", .0.get())]
    FalseHole(PieceIndex),
    /// The files cannot be cut into such pieces, or there is no such block.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The number of bytes is not the length of the block.
    #[error("{actual} bytes were given for {range:?}")]
    WrongLength {
        /// The block.
        range: BlockRange,
        /// The number of bytes.
        actual: usize,
    },
    /// The piece is not held.
    #[error("piece {} is not held", .0.get())]
    NotHeld(PieceIndex),
    /// A sync of written pieces failed earlier.
    #[error("nothing more is written to {}, because the disk failed to sync earlier pieces; fetch the content again", .0.display())]
    NotSynced(PathBuf),
    /// The database or a file of the store does not hold what was written there.
    #[error("{what} of content {id} is damaged; remove the content, and fetch or publish it again")]
    Damaged {
        /// What is damaged.
        what: &'static str,
        /// The content.
        id: ContentId,
    },
    /// The content was removed, or evicted to make room.
    #[error("content {0} was removed")]
    Removed(ContentId),
    /// The store does not have the content.
    #[error("content {0} is not in this store")]
    Unknown(ContentId),
    /// The store has the content, but not all of its pieces.
    #[error("content {0} is not complete yet")]
    Incomplete(ContentId),
    /// The content is still being downloaded, so that it cannot be added as complete.
    #[error("content {0} is being downloaded; remove it first")]
    Downloading(ContentId),
    /// The contents that may be evicted do not make enough room.
    #[error(
        "{needed} bytes do not fit into the quota of {quota}: {missing} are too many; raise it, or unpin or remove contents"
    )]
    QuotaExceeded {
        /// Bytes of the new content.
        needed: u64,
        /// Bytes too many.
        missing: u64,
        /// The quota.
        quota: u64,
    },
    /// The content does not fit into the free space of the file system.
    #[error(
        "{needed} bytes do not fit on the file system of {}: {missing} are too many, beside {free} that are free, less what other downloads and min_free take; free some, or unpin or remove contents", .path.display()
    )]
    NoSpace {
        /// Where the content was to be.
        path: PathBuf,
        /// Bytes of the new content that are not written yet.
        needed: u64,
        /// Bytes too many.
        missing: u64,
        /// Free bytes of the file system.
        free: u64,
    },
    /// The destination is occupied.
    #[error("{} exists already and is something else; move it away, or choose another destination", .0.display())]
    Exists(PathBuf),
    /// The download of another content to the same destination is unfinished.
    #[error(
        "a download of {id} to {} is unfinished; finish it with `shoal get {id} -o {}`, or discard it with `rm -r {}`", .destination.display(), ShellWord(.destination.as_os_str()), ShellWord(.path.as_os_str())
    )]
    OtherDownload {
        /// Its state.
        path: PathBuf,
        /// The content.
        id: ContentId,
        /// Its destination.
        destination: PathBuf,
    },
    /// Another user's file lies where the state of a download would.
    #[error("{} is not a directory of this user; delete it, or choose another destination", .0.display())]
    NotOurs(PathBuf),
    /// The bytes of an import are not those of its manifest.
    #[error("the import is refused: {0}")]
    Import(&'static str),
}

/// Paths in a message: the first few, and the number of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    first: Vec<PathBuf>,
    more: usize,
}

impl Paths {
    /// Paths that are named in a message.
    const SHOWN: usize = 20;

    /// Adds a path.
    pub fn push(&mut self, path: PathBuf) {
        if self.first.len() < Self::SHOWN {
            self.first.push(path);
        } else {
            self.more += 1;
        }
    }

    /// No path was added.
    pub const fn is_empty(&self) -> bool {
        self.first.is_empty()
    }
}

impl fmt::Display for Paths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, path) in self.first.iter().enumerate() {
            let separator = if number > 0 { ", " } else { "" };
            write!(f, "{separator}{}", Escaped(path.as_os_str().as_bytes()))?;
        }
        if self.more > 0 { write!(f, " and {} more", self.more) } else { Ok(()) }
    }
}

impl StoreError {
    /// Classifies an error of the file system.
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                Self::Denied { action, path, source }
            }
            _ => Self::Io { action, path, source },
        }
    }

    /// Classifies an error of the database at `path`.
    pub(super) fn database(path: &Path, error: impl Into<redb::Error>) -> Self {
        match error.into() {
            redb::Error::Io(source) => Self::io("use", path, source),
            source => Self::Database { path: path.to_owned(), source: Box::new(source) },
        }
    }
}

impl From<FileError> for StoreError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Io { action, path, source } => Self::io(action, &path, source),
            FileError::Directory(error) => Self::Directory(error),
        }
    }
}

/// For `map_err`: adds the operation and the path to an error.
pub(super) fn cannot(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::io(action, &path, source)
}

/// Classifies an error of a read of a whole block. A file that ends early was truncated by another
/// process.
pub(super) fn unreadable(path: &Path, error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => StoreError::SourceChanged(path.to_owned()),
        _ => StoreError::io("read", path, error),
    }
}

/// For long work on `path`: an error once `stop` is cancelled.
pub(super) fn check_stop(stop: &CancellationToken, path: &Path) -> Result<(), StoreError> {
    if stop.is_cancelled() { Err(StoreError::Interrupted(path.to_owned())) } else { Ok(()) }
}
