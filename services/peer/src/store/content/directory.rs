//! The directory of a content that belongs to shoal: where its files lie, and how they are created.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;
use shoal_core::content::{FileEntry, Manifest};

use crate::store::{
    StoreError,
    error::cannot,
    file_system::{create_parent, delete_directory},
};

/// The directory of a content: its files, and the log of the pieces held.
pub(in crate::store) struct ContentDirectory(PathBuf);

impl ContentDirectory {
    pub(in crate::store) const fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(in crate::store) fn path(&self) -> &Path {
        &self.0
    }

    /// The file, or the directory of files.
    pub(in crate::store) fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    pub(in crate::store) fn log(&self) -> PathBuf {
        self.0.join("held.log")
    }

    pub(in crate::store) fn create(&self) -> Result<(), StoreError> {
        fs::create_dir_all(&self.0).map_err(cannot("create", &self.0))
    }

    pub(in crate::store) fn delete(&self) -> Result<(), StoreError> {
        delete_directory(&self.0)
    }

    /// Numbers of the files that do not exist, or are shorter or longer than they should be.
    pub(super) fn missing_files(&self, manifest: &Manifest) -> Vec<usize> {
        let data = self.data();
        let is_missing = |number: &usize| {
            let file = &manifest.files()[*number];
            let path = if manifest.is_directory() { data.join(&file.path) } else { data.clone() };
            !path.symlink_metadata().is_ok_and(|found| found.is_file() && found.len() == file.size)
        };
        (0..manifest.files().len()).filter(is_missing).collect()
    }

    /// Whether the file or directory exists, and all empty directories in it.
    pub(super) fn has_empty_directories(&self, manifest: &Manifest) -> bool {
        let data = self.data();
        let mut empty = manifest.empty_directories().iter();
        data.exists() && empty.all(|directory| data.join(directory).is_dir())
    }

    /// Creates the files of a content, sparse and of full size, and its empty directories. Existing
    /// bytes are kept.
    pub(super) fn create_files(&self, manifest: &Manifest) -> Result<(), StoreError> {
        let data = self.data();
        if !manifest.is_directory() {
            return create_file(&data, &manifest.files()[0]).map(drop);
        }
        fs::create_dir_all(&data).map_err(cannot("create", &data))?;
        let mut parent = PathBuf::new();
        for file in manifest.files() {
            let path = data.join(&file.path);
            if let Some(directory) = path.parent().filter(|directory| *directory != parent) {
                directory.clone_into(&mut parent);
                create_parent(&path)?;
            }
            create_file(&path, file)?;
        }
        for directory in manifest.empty_directories() {
            let path = data.join(directory);
            fs::create_dir_all(&path).map_err(cannot("create", &path))?;
        }
        Ok(())
    }
}

/// Creates one file, sparse and of full size. Existing bytes are kept.
pub(in crate::store) fn create_file(path: &Path, entry: &FileEntry) -> Result<File, StoreError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .mode(if entry.executable { 0o755 } else { 0o644 })
        .open(path)
        .map_err(cannot("create", path))?;
    let found = file.metadata().map_err(cannot("look at", path))?;
    // Setting the same length would change the file's time, so that it would look changed.
    if found.len() != entry.size {
        file.set_len(entry.size).map_err(cannot("resize", path))?;
    }
    Ok(file)
}
