//! The data directory on disk: its format, the lock that gives it to one process, and its paths.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::process::geteuid;
use shoal_common::durable_files::{check_format, lock_file};
use shoal_core::content::ContentId;
use uuid::Uuid;

use crate::store::{
    StoreError,
    content::ContentDirectory,
    error::cannot,
    file_system::{delete_directory, sync_directory, sync_parent},
};

/// The content of the file `VERSION`.
const FORMAT: &str = "shoal store 2";

/// The mode of a directory that only this user may enter.
pub(in crate::store) const PRIVATE: u32 = 0o700;

/// A data directory, locked for this process.
pub(super) struct DataDirectory {
    path: PathBuf,
    _lock: File,
}

impl DataDirectory {
    /// Opens a data directory, or creates one.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let path = std::path::absolute(path).map_err(cannot("find", path))?;
        make_private(&path)?;
        let lock = lock_file(&path.join("lock"), &path)?;
        check_format(&path.join("VERSION"), FORMAT, sync_parent)?;
        Ok(Self { path, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn database(&self) -> PathBuf {
        self.path.join("store.redb")
    }

    pub(super) fn content(&self, id: ContentId) -> ContentDirectory {
        ContentDirectory::new(self.contents().join(id.to_string()))
    }

    /// A new path for a directory that is not a content yet, or no longer.
    pub(super) fn staging(&self) -> PathBuf {
        self.import().join(Uuid::new_v4().simple().to_string())
    }

    fn contents(&self) -> PathBuf {
        self.path.join("contents")
    }

    fn import(&self) -> PathBuf {
        self.path.join("import")
    }

    /// Makes a staged directory the directory of a content.
    pub(super) fn adopt(
        &self,
        staged: &Path,
        id: ContentId,
    ) -> Result<ContentDirectory, StoreError> {
        let directory = self.content(id);
        self.delete(&directory)?;
        fs::rename(staged, directory.path()).map_err(cannot("rename", staged))?;
        sync_directory(&self.contents())?;
        Ok(directory)
    }

    /// Deletes the directory of a content if it exists. It is renamed before its first file is
    /// deleted, so that a half-deleted directory is never taken for a content.
    pub(super) fn delete(&self, directory: &ContentDirectory) -> Result<(), StoreError> {
        let staged = self.staging();
        match fs::rename(directory.path(), &staged) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed.map_err(cannot("rename", directory.path()))?,
        }
        delete_directory(&staged)
    }

    /// Deletes what a crash left: staged directories, and those of contents that are not known.
    pub(super) fn clean(&self, is_known: impl Fn(ContentId) -> bool) -> Result<(), StoreError> {
        let (import, contents) = (self.import(), self.contents());
        match fs::remove_dir_all(&import) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(cannot("delete", &import))?,
        }
        for directory in [&import, &contents] {
            fs::create_dir_all(directory).map_err(cannot("create", directory))?;
        }
        for directory in fs::read_dir(&contents).map_err(cannot("list", &contents))? {
            let path = directory.map_err(cannot("list", &contents))?.path();
            let id: Option<ContentId> =
                path.file_name().and_then(|name| name.to_str()?.parse().ok());
            if !id.is_some_and(&is_known) {
                fs::remove_dir_all(&path).map_err(cannot("delete", &path))?;
            }
        }
        sync_directory(&self.path)
    }
}

/// Creates a directory that only this user may enter. An existing one is made private if it is a
/// data directory or empty: any other may have more users.
fn make_private(directory: &Path) -> Result<(), StoreError> {
    if let Some(parent) = directory.parent() {
        fs::create_dir_all(parent).map_err(cannot("create", parent))?;
    }
    match DirBuilder::new().mode(PRIVATE).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        created => return created.map_err(cannot("create", directory)),
    }
    let list = || fs::read_dir(directory).map_err(cannot("list", directory));
    let metadata = fs::metadata(directory).map_err(cannot("look at", directory))?;
    let is_private = metadata.mode() & 0o777 & !PRIVATE == 0;
    // Only the owner of a directory, such as that of a volume, decides about it.
    let is_ours = metadata.uid() == geteuid().as_raw();
    if !is_private && is_ours && (directory.join("VERSION").is_file() || list()?.next().is_none()) {
        fs::set_permissions(directory, Permissions::from_mode(PRIVATE))
            .map_err(cannot("change the mode of", directory))?;
    }
    Ok(())
}
