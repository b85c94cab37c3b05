//! What can go wrong on disk, in words for the operator.

use std::{
    io,
    path::{Path, PathBuf},
};

use shoal_core::content::{
    BlockRange, ContentId, LayoutError, ManifestError, PieceHashesError, PieceIndex,
};

/// The store could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No space, or the user's disk quota is used up. Stops one download alone.
    #[error("no space is left on the disk of {}; free some and fetch again", .path.display())]
    DiskFull {
        /// What was being written.
        path: PathBuf,
    },
    /// A read-only file system, or missing permissions.
    #[error("cannot {action} {}: {source}; make it accessible to this user", .path.display())]
    Denied {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A symbolic link or `..` on the way.
    #[error(
        "{} leads out of {} by a symbolic link or ..; name the path that it leads to, which must lie in a directory of publish_roots or export_roots", .path.display(), .root.display()
    )]
    Outside {
        /// What was named, or found below that.
        path: PathBuf,
        /// The directory that it must lie in.
        root: PathBuf,
    },
    /// Any other answer of the file system.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The database is damaged, or could not be read or written.
    #[error("the database {} failed: {source}", .path.display())]
    Database {
        /// Its file.
        path: PathBuf,
        /// What redb says.
        source: Box<redb::Error>,
    },
    /// Another process has it open.
    #[error("{} is in use by another shoal process; stop that, or choose another directory", .0.display())]
    InUse(PathBuf),
    /// The directory's format is not one this version reads.
    #[error("{} has the format {found:?}, not {expected:?}; use the shoal that wrote it, or an empty directory", .path.display())]
    Format {
        /// The file that names the format.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What it should say.
        expected: &'static str,
    },
    /// A file was changed by someone else while it was hashed or served.
    #[error("{} was changed after shoal hashed it; remove the content, and publish or fetch it again", .0.display())]
    SourceChanged(PathBuf),
    /// The process ends, or nobody waits for it any more.
    #[error("the work on {} was interrupted; start it again", .0.display())]
    Interrupted(PathBuf),
    /// A symbolic link leads back to a directory above it.
    #[error("{} leads back to a directory above it", .0.display())]
    LinkCycle(PathBuf),
    /// A device, socket or pipe.
    #[error("{} is neither a file nor a directory; leave it out", .0.display())]
    NotAFile(PathBuf),
    /// A name that is no UTF-8.
    #[error("the name of {} is not valid UTF-8; rename it", .0.display())]
    NotUtf8(PathBuf),
    /// The path has no name of its own, like `/`.
    #[error("{} has no name to publish it under", .0.display())]
    Unnamed(PathBuf),
    /// The manifest would not be sound.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The piece hashes do not belong to the manifest.
    #[error(transparent)]
    PieceHashes(#[from] PieceHashesError),
    /// The files cannot be cut into pieces so, or there is no such block.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The bytes are not as many as the block has.
    #[error("{actual} bytes came for {range:?}")]
    WrongLength {
        /// The block.
        range: BlockRange,
        /// Bytes that came.
        actual: usize,
    },
    /// The piece is not here.
    #[error("piece {} is not held", .0.get())]
    NotHeld(PieceIndex),
    /// The disk failed when what was written was synced.
    #[error("nothing more is written to {}, as the disk failed to keep what was; fetch the content again", .0.display())]
    NotSynced(PathBuf),
    /// What a database or a file of the store says is not what was written there.
    #[error("{what} of content {id} is damaged; remove the content, and fetch or publish it again")]
    Damaged {
        /// What is damaged.
        what: &'static str,
        /// Of which content.
        id: ContentId,
    },
    /// The content was removed, or evicted to make room.
    #[error("content {0} was removed")]
    Removed(ContentId),
    /// The store does not know the content.
    #[error("content {0} is not in this store")]
    Unknown(ContentId),
    /// The content is here, but not whole.
    #[error("content {0} is not complete yet")]
    Incomplete(ContentId),
    /// The content is here, but not whole, and on its way.
    #[error("content {0} is being downloaded; remove it first")]
    Downloading(ContentId),
    /// What may be evicted does not make enough room.
    #[error(
        "{needed} bytes are {missing} more than the quota of {quota} leaves; raise it, or unpin or remove contents"
    )]
    QuotaExceeded {
        /// Bytes of the new content.
        needed: u64,
        /// Bytes too many.
        missing: u64,
        /// The quota.
        quota: u64,
    },
    /// Something else lies at the destination.
    #[error("{} exists already and is something else; move it away, or choose another destination", .0.display())]
    Exists(PathBuf),
    /// The state directory beside a destination belongs to another download.
    #[error("{} holds an unfinished download of {id}; finish or delete it", .path.display())]
    OtherDownload {
        /// The state directory.
        path: PathBuf,
        /// The content in it.
        id: ContentId,
    },
    /// Another user's file lies where the state of a download would.
    #[error("{} is no directory of this user; delete it, or choose another destination", .0.display())]
    NotOurs(PathBuf),
    /// The parts of an import do not fit together.
    #[error("the upload is refused: {0}")]
    Import(&'static str),
}

impl StoreError {
    /// Sorts an error of the file system.
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

    /// Sorts an error of the database at `path`.
    pub(super) fn database(path: &Path, error: impl Into<redb::Error>) -> Self {
        match error.into() {
            redb::Error::Io(source) => Self::io("use", path, source),
            source => Self::Database { path: path.to_owned(), source: Box::new(source) },
        }
    }
}

/// For `map_err`: says what was done to what.
pub(super) fn cannot(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::io(action, &path, source)
}
