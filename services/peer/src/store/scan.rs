//! Finds the files of a content to be, as they lie on disk.

use std::{
    fs::{self, File, Metadata},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, UNIX_EPOCH},
};

use rustix::fs::OFlags;
use shoal_core::content::Manifest;
use tokio_util::sync::CancellationToken;

use super::{
    StoreError,
    error::cannot,
    hash::check_stop,
    place::{Opener, names_in},
};

/// Linux's slowest clock of file times ticks 100 times a second.
const TICK: Duration = Duration::from_millis(10);

/// What tells that a file is still the one that it was, and was not changed: which file it is, its
/// size, and the time of its last change. Size and time alone would not do: anyone can give a file
/// of theirs those of another, and later put a link to that other one in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    size: u64,
    seconds: i64,
    nanoseconds: i64,
    device: u64,
    inode: u64,
}

impl Fingerprint {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            size: metadata.size(),
            seconds: metadata.mtime(),
            nanoseconds: metadata.mtime_nsec(),
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }

    /// Of the file at `path`, symbolic links followed.
    pub(super) fn at(path: &Path) -> Result<Self, StoreError> {
        fs::metadata(path).map(|found| Self::of(&found)).map_err(cannot("look at", path))
    }

    /// Whether the files of a content at `place` have the size and time that they had.
    pub(super) fn check_all(
        expected: &[Self],
        manifest: &Manifest,
        place: &Path,
    ) -> Result<(), StoreError> {
        for (file, expected) in manifest.files().iter().zip(expected) {
            let path =
                if manifest.is_directory() { place.join(&file.path) } else { place.to_owned() };
            if !Self::at(&path)?.looks_like(expected) {
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

    /// Size and time are the same: perhaps the same file, whose file system was mounted anew.
    pub(super) fn looks_like(&self, other: &Self) -> bool {
        (self.size, self.seconds, self.nanoseconds)
            == (other.size, other.seconds, other.nanoseconds)
    }

    pub(super) fn encode_all(fingerprints: &[Self]) -> Vec<u8> {
        fingerprints
            .iter()
            .flat_map(|print| print.words().map(u64::to_le_bytes))
            .flatten()
            .collect()
    }

    /// Those of so many files, if these are they. Earlier versions did not keep device and inode,
    /// which are then 0.
    pub(super) fn decode_all(bytes: &[u8], files: usize) -> Option<Vec<Self>> {
        const WORDS: [usize; 2] = [5, 3];
        let (words, rest) = bytes.as_chunks::<8>();
        let each = WORDS.into_iter().find(|each| Some(words.len()) == each.checked_mul(files))?;
        let words: Vec<_> = words.iter().copied().map(u64::from_le_bytes).collect();
        rest.is_empty().then(|| words.chunks_exact(each).map(Self::of_words).collect())
    }

    const fn words(&self) -> [u64; 5] {
        let (seconds, nanoseconds) = (self.seconds, self.nanoseconds);
        [self.size, seconds.cast_unsigned(), nanoseconds.cast_unsigned(), self.device, self.inode]
    }

    fn of_words(words: &[u64]) -> Self {
        let word = |number: usize| words.get(number).copied().unwrap_or(0);
        Self {
            size: word(0),
            seconds: word(1).cast_signed(),
            nanoseconds: word(2).cast_signed(),
            device: word(3),
            inode: word(4),
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

/// Walks a file or directory tree. Symbolic links are followed, as far as `opener` lets them lead.
pub(super) fn walk(
    root: &Path,
    opener: &Opener,
    stop: &CancellationToken,
) -> Result<Tree, StoreError> {
    let metadata = look_at(root, opener)?;
    let name = name_of(root)?;
    let is_directory = metadata.is_dir();
    let mut tree = Tree { name, is_directory, files: Vec::new(), empty_directories: Vec::new() };
    if is_directory {
        let mut walk = Walk { tree: &mut tree, opener, stop, above: Vec::new() };
        walk.directory(root, "")?;
    } else {
        let path = tree.name.clone();
        tree.files.push(found(path, root.to_owned(), &metadata)?);
    }
    tree.files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(tree)
}

struct Walk<'a> {
    tree: &'a mut Tree,
    opener: &'a Opener,
    stop: &'a CancellationToken,
    /// Device and inode of the directories that the walk is in.
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
        let metadata = look_at(&source, self.opener)?;
        let name = name_of(&source)?;
        let path = if inside.is_empty() { name } else { format!("{inside}/{name}") };
        if metadata.is_dir() {
            return self.directory(&source, &path);
        }
        self.tree.files.push(found(path, source, &metadata)?);
        Ok(())
    }
}

fn look_at(path: &Path, opener: &Opener) -> Result<Metadata, StoreError> {
    let handle: File = opener.open(path, OFlags::PATH)?;
    handle.metadata().map_err(cannot("look at", path))
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
