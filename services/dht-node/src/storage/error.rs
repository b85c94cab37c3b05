//! What can go wrong on disk, in words for the operator.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The store could not do what it was asked for. Cheap to clone: writes that share a commit share
/// its failure.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// No space, or the user's disk quota is used up. Reads go on, and so do writes once there is
    /// room.
    #[error("no space is left on the disk of {}; free some, or give it a bigger one", .0.display())]
    Full(PathBuf),
    /// A read-only file system, or missing permissions.
    #[error("cannot {action} {}: {source}; make it accessible to this user", .path.display())]
    Denied {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        source: Arc<io::Error>,
    },
    /// Any other answer of the file system.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        source: Arc<io::Error>,
    },
    /// The database is damaged, or could not be read or written.
    #[error("the database {} failed: {source}", .path.display())]
    Database {
        /// Its file.
        path: PathBuf,
        /// What redb says.
        source: Arc<redb::Error>,
    },
    /// A row of the database is not what this version writes.
    #[error("the database {} is damaged: it holds {what}; restore it, or have the ring fill an empty directory", .path.display())]
    Damaged {
        /// Its file.
        path: PathBuf,
        /// What was found.
        what: &'static str,
    },
    /// The disk failed before, and what is on it is being found out.
    #[error("the database {} is being opened again after an error of its disk; try again soon", .0.display())]
    Reopening(PathBuf),
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
    /// The directory does not tell whose it is.
    #[error("{} does not hold the id of this node; restore it, or use an empty directory", .0.display())]
    NodeId(PathBuf),
    /// Something went wrong inside shoal with a write that was to share a commit with this one.
    #[error("a write beside this one failed inside shoal, and neither was kept; try again")]
    Aborted,
    /// The writer has ended.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Sorts an error of the file system.
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

    /// Sorts what went wrong with the database at `path`.
    pub(super) fn database(path: &Path, fault: impl Into<Fault>) -> Self {
        match fault.into() {
            Fault::Redb(redb::Error::Io(source)) => Self::io("use", path, source),
            Fault::Redb(redb::Error::DatabaseAlreadyOpen) => Self::InUse(path.to_owned()),
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

/// What went wrong with the database, before its path is known.
#[derive(Debug)]
pub(super) enum Fault {
    Redb(redb::Error),
    /// It holds this.
    Damaged(&'static str),
}

impl Fault {
    pub(super) const UNREADABLE_KEY: Self = Self::Damaged("a key that cannot be read");
    pub(super) const UNREADABLE_CUSTODY: Self = Self::Damaged("agreements that cannot be read");
    pub(super) const UNREADABLE_RECORD: Self = Self::Damaged("a record that cannot be read");
}

impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Redb(error.into())
    }
}

/// For `map_err`: says what was done to what.
pub(super) fn cannot(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::io(action, &path, source)
}
