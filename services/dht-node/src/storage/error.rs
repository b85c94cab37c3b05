//! Errors of the disk, with messages for the operator.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use shoal_common::durable_files::{DirectoryError, FileError};

/// The store could not do what was requested. Cheap to clone: writes that share a commit share its
/// error.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk or the user's disk quota is full. Reads continue, and writes continue once there is
    /// room.
    #[error("no space is left on the disk of {}; free some, or give it a bigger one", .0.display())]
    Full(PathBuf),
    /// A read-only file system, or missing permissions.
    #[error("cannot {action} {}: {source}; make it accessible to this user", .path.display())]
    Denied {
        /// The operation.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// Any other error of the file system.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// The operation.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: Arc<io::Error>,
    },
    /// The database is damaged, or could not be read or written.
    #[error("the database {} failed: {source}", .path.display())]
    Database {
        /// Its file.
        path: PathBuf,
        /// The error of redb.
        source: Arc<redb::Error>,
    },
    /// The database holds a row that this version does not write.
    #[error("the database {} is damaged: it holds {what}; restore it, or have the ring fill an empty directory", .path.display())]
    Damaged {
        /// Its file.
        path: PathBuf,
        /// The row.
        what: &'static str,
    },
    /// The disk failed before, and the database is being reopened.
    #[error("the database {} is being opened again after an error of its disk; try again soon", .0.display())]
    Reopening(PathBuf),
    /// Another process has the directory open, or its format is another one.
    #[error(transparent)]
    Directory(DirectoryError),
    /// The directory has no identity.
    #[error("{} does not hold the id of this node; restore it, or use an empty directory", .0.display())]
    NodeId(PathBuf),
    /// A write that was to share a commit with this one failed inside shoal.
    #[error("a write beside this one failed inside shoal, and neither was kept; try again")]
    Aborted,
    /// The writer has ended.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Classifies an error of the file system.
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::Full(path),
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                Self::Denied { action, path, source: Arc::new(source) }
            }
            _ => Self::Io { action, path, source: Arc::new(source) },
        }
    }

    /// Classifies an error of a file or a directory.
    pub(super) fn file(error: FileError) -> Self {
        match error {
            FileError::Io { action, path, source } => Self::io(action, &path, source),
            FileError::Directory(error) => Self::Directory(error),
        }
    }

    /// Classifies an error of the database at `path`.
    pub(super) fn database(path: &Path, fault: impl Into<Fault>) -> Self {
        match fault.into() {
            Fault::Redb(redb::Error::Io(source)) => Self::io("use", path, source),
            Fault::Redb(redb::Error::DatabaseAlreadyOpen) => {
                Self::Directory(DirectoryError::InUse(path.to_owned()))
            }
            Fault::Redb(redb::Error::PreviousIo | redb::Error::DatabaseClosed) => {
                Self::Reopening(path.to_owned())
            }
            Fault::Redb(source) => {
                Self::Database { path: path.to_owned(), source: Arc::new(source) }
            }
            Fault::Damaged(what) => Self::Damaged { path: path.to_owned(), what },
        }
    }
}

/// An error of the database, before its path is known.
#[derive(Debug)]
pub(super) enum Fault {
    Redb(redb::Error),
    /// It holds this.
    Damaged(&'static str),
}

impl Fault {
    pub(super) const UNREADABLE_KEY: Self = Self::Damaged("a key that cannot be read");
    pub(super) const UNREADABLE_CONFIGURATIONS: Self =
        Self::Damaged("configurations that cannot be read");
    pub(super) const UNREADABLE_RECORD: Self = Self::Damaged("a record that cannot be read");
}

impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Redb(error.into())
    }
}
