//! The data directory of a node: its identity, its format, and a lock that gives it to one process.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use shoal_common::durable_files::{
    FileError, cannot, check_format, lock_file, read_if_exists, sync_parent, write_whole,
};
use shoal_core::ring::NodeId;
use uuid::Uuid;

use super::StoreError;

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
        let (directory, lock) = lock(directory).map_err(StoreError::file)?;
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

/// Locks a directory of our format while the returned file is open. Creates it if it does not exist.
fn lock(directory: &Path) -> Result<(PathBuf, File), FileError> {
    let directory = std::path::absolute(directory).map_err(cannot("find", directory))?;
    fs::create_dir_all(&directory).map_err(cannot("create", &directory))?;
    let lock = lock_file(&directory.join("lock"), &directory)?;
    check_format(&directory.join("format"), FORMAT, sync_parent)?;
    Ok((directory, lock))
}

fn node_id(directory: &Path) -> Result<NodeId, StoreError> {
    let path = directory.join("node-id");
    match read_if_exists(&path).map_err(StoreError::file)? {
        Some(found) => {
            let found = String::from_utf8_lossy(&found);
            found.trim_end().parse().map_err(|_| StoreError::NodeId(path))
        }
        // The id is stored before the database. Under another id the records would be at another
        // place on the ring, where no node would look for them.
        None if database_in(directory).exists() => Err(StoreError::NodeId(path)),
        None => {
            let id = NodeId::new(Uuid::new_v4());
            let written = write_whole(&path, format!("{id}\n").as_bytes(), sync_parent);
            written.map(|_| id).map_err(StoreError::file)
        }
    }
}
