//! The data directory of a node: its identity, its format, and a lock that gives it to one process.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use shoal_core::ring::NodeId;
use uuid::Uuid;

use super::{StoreError, error::cannot};

/// The content of the file `format`. It is checked before anything that depends on it.
const FORMAT: &str = "shoal ring 1";

/// A data directory, locked for this process.
pub struct DataDir {
    directory: PathBuf,
    node_id: NodeId,
    _lock: File,
}

impl DataDir {
    /// Opens a data directory, or creates one with a new identity.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let directory = std::path::absolute(directory).map_err(cannot("find", directory))?;
        fs::create_dir_all(&directory).map_err(cannot("create", &directory))?;
        let lock = lock(&directory)?;
        check_format(&directory.join("format"))?;
        let node_id = node_id(&directory)?;
        Ok(Self { directory, node_id, _lock: lock })
    }

    /// The identity of this node, whatever its address. Created with the directory.
    pub const fn node_id(&self) -> NodeId {
        self.node_id
    }

    pub(super) fn database(&self) -> PathBuf {
        database_in(&self.directory)
    }
}

fn database_in(directory: &Path) -> PathBuf {
    directory.join("ring.redb")
}

/// Locks a directory while the returned file is open.
fn lock(directory: &Path) -> Result<File, StoreError> {
    let path = directory.join("lock");
    let mut options = File::options();
    let file = options.write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(cannot("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(directory.to_owned())),
        Err(TryLockError::Error(error)) => Err(StoreError::io("lock", &path, error)),
    }
}

fn check_format(path: &Path) -> Result<(), StoreError> {
    match read(path)? {
        None => write_whole(path, &format!("{FORMAT}\n")),
        Some(found) if found.trim_end() == FORMAT => Ok(()),
        Some(found) => Err(StoreError::Format {
            path: path.to_owned(),
            found: found.trim_end().chars().take(80).collect(),
            expected: FORMAT,
        }),
    }
}

fn node_id(directory: &Path) -> Result<NodeId, StoreError> {
    let path = directory.join("node-id");
    match read(&path)? {
        Some(found) => found.trim_end().parse().map_err(|_| StoreError::NodeId(path)),
        // The id is stored before the database. Under another id the records would be at another
        // place on the ring, where no node would look for them.
        None if database_in(directory).exists() => Err(StoreError::NodeId(path)),
        None => {
            let id = NodeId::new(Uuid::new_v4());
            write_whole(&path, &format!("{id}\n")).map(|()| id)
        }
    }
}

/// The text of a small file, if it exists, with replacement characters for invalid UTF-8.
fn read(path: &Path) -> Result<Option<String>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("read", path, error)),
    }
}

/// Writes a small file atomically, so that it survives a power cut.
fn write_whole(path: &Path, text: &str) -> Result<(), StoreError> {
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh).map_err(cannot("create", &fresh))?;
    file.write_all(text.as_bytes()).map_err(cannot("write", &fresh))?;
    file.sync_all().map_err(cannot("sync", &fresh))?;
    fs::rename(&fresh, path).map_err(cannot("rename", &fresh))?;
    let directory = path.parent().unwrap_or(path);
    File::open(directory).and_then(|opened| opened.sync_all()).map_err(cannot("sync", directory))
}
