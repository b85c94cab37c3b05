//! Finds the files of a content to be, as they lie on disk.

use std::{
    fs::{self, Metadata},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, UNIX_EPOCH},
};

use shoal_core::content::Manifest;

use super::{StoreError, error::cannot};

/// Linux's slowest clock of file times ticks 100 times a second.
const TICK: Duration = Duration::from_millis(10);

/// What tells that a file was not changed: its size and the time of its last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    size: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl Fingerprint {
    /// Bytes of its encoded form.
    pub(super) const BYTES: usize = 24;

    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            size: metadata.size(),
            seconds: metadata.mtime(),
            nanoseconds: metadata.mtime_nsec(),
        }
    }

    /// Of the file at `path`, symbolic links followed.
    pub(super) fn at(path: &Path) -> Result<Self, StoreError> {
        fs::metadata(path).map(|found| Self::of(&found)).map_err(cannot("look at", path))
    }

    /// Whether the files of a content at `place` look as they did.
    pub(super) fn check_all(
        expected: &[Self],
        manifest: &Manifest,
        place: &Path,
    ) -> Result<(), StoreError> {
        for (file, expected) in manifest.files().iter().zip(expected) {
            let path =
                if manifest.is_directory() { place.join(&file.path) } else { place.to_owned() };
            if Self::at(&path)? != *expected {
                return Err(StoreError::SourceChanged(path));
            }
        }
        Ok(())
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Waits until a later change would show: file systems keep time in ticks, and files that were
    /// just written could change once more within theirs.
    pub(super) fn settle<'a>(fingerprints: impl IntoIterator<Item = &'a Self>) {
        let modified =
            fingerprints.into_iter().map(|print| (print.seconds, print.nanoseconds)).max();
        let Some((seconds @ 0.., nanoseconds)) = modified else { return };
        let newest = UNIX_EPOCH + Duration::new(seconds as u64, nanoseconds as u32);
        if let Some(rest) = newest.elapsed().ok().and_then(|age| TICK.checked_sub(age)) {
            thread::sleep(rest);
        }
    }

    pub(super) fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.size.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.seconds.to_le_bytes());
        bytes[16..].copy_from_slice(&self.nanoseconds.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: [u8; Self::BYTES]) -> Self {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            word
        };
        Self {
            size: u64::from_le_bytes(word(0)),
            seconds: i64::from_le_bytes(word(8)),
            nanoseconds: i64::from_le_bytes(word(16)),
        }
    }
}

/// A file that was found.
pub(super) struct Found {
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
    /// Sorted by path within the content, as a manifest has them.
    pub(super) files: Vec<Found>,
    pub(super) empty_directories: Vec<String>,
}

/// Walks a file or directory tree. Symbolic links are followed.
pub(super) fn walk(root: &Path) -> Result<Tree, StoreError> {
    let metadata = fs::metadata(root).map_err(cannot("look at", root))?;
    let name = name_of(root)?;
    let is_directory = metadata.is_dir();
    let mut tree = Tree { name, is_directory, files: Vec::new(), empty_directories: Vec::new() };
    if is_directory {
        let mut walk = Walk { tree: &mut tree, above: Vec::new() };
        walk.directory(root, &metadata, "")?;
    } else {
        let path = tree.name.clone();
        tree.files.push(found(path, root.to_owned(), &metadata)?);
    }
    tree.files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(tree)
}

struct Walk<'a> {
    tree: &'a mut Tree,
    /// Device and inode of the directories that the walk is in.
    above: Vec<(u64, u64)>,
}

impl Walk<'_> {
    fn directory(
        &mut self,
        directory: &Path,
        metadata: &Metadata,
        inside: &str,
    ) -> Result<(), StoreError> {
        let identity = (metadata.dev(), metadata.ino());
        if self.above.contains(&identity) {
            return Err(StoreError::LinkCycle(directory.to_owned()));
        }
        self.above.push(identity);
        let mut is_empty = true;
        for entry in fs::read_dir(directory).map_err(cannot("list", directory))? {
            let source = entry.map_err(cannot("list", directory))?.path();
            is_empty = false;
            self.entry(source, inside)?;
        }
        if is_empty && !inside.is_empty() {
            self.tree.empty_directories.push(inside.to_owned());
        }
        self.above.pop();
        Ok(())
    }

    fn entry(&mut self, source: PathBuf, inside: &str) -> Result<(), StoreError> {
        let metadata = fs::metadata(&source).map_err(cannot("look at", &source))?;
        let name = name_of(&source)?;
        let path = if inside.is_empty() { name } else { format!("{inside}/{name}") };
        if metadata.is_dir() {
            return self.directory(&source, &metadata, &path);
        }
        self.tree.files.push(found(path, source, &metadata)?);
        Ok(())
    }
}

fn found(path: String, source: PathBuf, metadata: &Metadata) -> Result<Found, StoreError> {
    if !metadata.is_file() {
        return Err(StoreError::NotAFile(source));
    }
    let executable = metadata.mode() & 0o111 != 0;
    Ok(Found { path, source, fingerprint: Fingerprint::of(metadata), executable })
}

/// The last component; of `.` and the like, that of the directory meant.
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
