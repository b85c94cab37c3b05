//! Finds the files below a path that are to become a content.

use std::{
    fs::{File, Metadata},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;
use tokio_util::sync::CancellationToken;

use super::fingerprint::Fingerprint;
use crate::store::{
    StoreError,
    error::{cannot, check_stop},
    file_system::names_in,
    rooted_path::Opener,
};

/// A file below the scanned path.
pub(super) struct FoundFile {
    /// Within the content.
    pub(super) path: String,
    /// On disk.
    pub(super) source: PathBuf,
    pub(super) fingerprint: Fingerprint,
    pub(super) executable: bool,
}

/// Everything below a path.
pub(super) struct Tree {
    pub(super) name: String,
    pub(super) is_directory: bool,
    /// Sorted by path within the content, like a manifest.
    pub(super) files: Vec<FoundFile>,
    pub(super) empty_directories: Vec<String>,
}

/// Scans a file or directory tree. Symbolic links are followed unless `opener` refuses them.
pub(super) fn scan(
    root: &Path,
    opener: &Opener,
    stop: &CancellationToken,
) -> Result<Tree, StoreError> {
    let metadata = metadata_of(root, opener)?;
    let name = name_of(root)?;
    let is_directory = metadata.is_dir();
    let mut tree = Tree { name, is_directory, files: Vec::new(), empty_directories: Vec::new() };
    if is_directory {
        let mut walk = Walk { tree: &mut tree, opener, stop, above: Vec::new() };
        walk.directory(root, "")?;
    } else {
        let path = tree.name.clone();
        tree.files.push(found_file(path, root.to_owned(), &metadata)?);
    }
    tree.files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(tree)
}

struct Walk<'a> {
    tree: &'a mut Tree,
    opener: &'a Opener,
    stop: &'a CancellationToken,
    /// Device and inode of the current directory and of those above it.
    above: Vec<(u64, u64)>,
}

impl Walk<'_> {
    fn directory(&mut self, path: &Path, inside: &str) -> Result<(), StoreError> {
        let directory = self.opener.open(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let metadata = directory.metadata().map_err(cannot("look at", path))?;
        let identity = (metadata.dev(), metadata.ino());
        if self.above.contains(&identity) {
            return Err(StoreError::LinkCycle(path.to_owned()));
        }
        self.above.push(identity);
        let names = names_in(&directory).map_err(cannot("list", path))?;
        drop(directory);
        if names.is_empty() && !inside.is_empty() {
            self.tree.empty_directories.push(inside.to_owned());
        }
        for name in names {
            self.entry(path.join(name), inside)?;
        }
        self.above.pop();
        Ok(())
    }

    fn entry(&mut self, source: PathBuf, inside: &str) -> Result<(), StoreError> {
        check_stop(self.stop, &source)?;
        let metadata = metadata_of(&source, self.opener)?;
        let name = name_of(&source)?;
        let path = if inside.is_empty() { name } else { format!("{inside}/{name}") };
        if metadata.is_dir() {
            return self.directory(&source, &path);
        }
        self.tree.files.push(found_file(path, source, &metadata)?);
        Ok(())
    }
}

fn metadata_of(path: &Path, opener: &Opener) -> Result<Metadata, StoreError> {
    let handle: File = opener.open(path, OFlags::PATH)?;
    handle.metadata().map_err(cannot("look at", path))
}

fn found_file(path: String, source: PathBuf, metadata: &Metadata) -> Result<FoundFile, StoreError> {
    if !metadata.is_file() {
        return Err(StoreError::NotAFile(source));
    }
    let executable = metadata.mode() & 0o111 != 0;
    Ok(FoundFile { path, source, fingerprint: Fingerprint::of(metadata), executable })
}

/// The last component; for `.` and the like, the name of the directory that it resolves to.
fn name_of(path: &Path) -> Result<String, StoreError> {
    let resolved;
    let name = if let Some(name) = path.file_name() {
        name
    } else {
        resolved = path.canonicalize().map_err(cannot("resolve", path))?;
        resolved.file_name().ok_or_else(|| StoreError::Unnamed(path.to_owned()))?
    };
    name.to_str().map(str::to_owned).ok_or_else(|| StoreError::NotUtf8(path.to_owned()))
}
