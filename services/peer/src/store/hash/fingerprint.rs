//! How a file that others can change looked when it was hashed.

use std::{
    fs::{self, Metadata},
    os::unix::fs::MetadataExt,
    path::Path,
    thread,
    time::{Duration, UNIX_EPOCH},
};

use shoal_core::content::Manifest;

use crate::store::{StoreError, error::cannot};

/// Linux's slowest clock of file times ticks 100 times a second.
const TICK: Duration = Duration::from_millis(10);

/// Tells whether a file is the same file and unchanged: its device and inode, its size, and the
/// time of its last change. Size and time are not enough: anyone can give a file of theirs the size
/// and time of another, and later put a link to that other file in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Fingerprint {
    size: u64,
    seconds: i64,
    nanoseconds: i64,
    device: u64,
    inode: u64,
}

impl Fingerprint {
    pub(in crate::store) fn of(metadata: &Metadata) -> Self {
        Self {
            size: metadata.size(),
            seconds: metadata.mtime(),
            nanoseconds: metadata.mtime_nsec(),
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }

    /// Of the file at `path`. Symbolic links are followed.
    pub(in crate::store) fn at(path: &Path) -> Result<Self, StoreError> {
        fs::metadata(path).map(|found| Self::of(&found)).map_err(cannot("look at", path))
    }

    /// Checks that the files of a content at `path` still have the expected sizes and times.
    pub(in crate::store) fn check_all(
        expected: &[Self],
        manifest: &Manifest,
        path: &Path,
    ) -> Result<(), StoreError> {
        for (file, expected) in manifest.files().iter().zip(expected) {
            let path =
                if manifest.is_directory() { path.join(&file.path) } else { path.to_owned() };
            if !Self::at(&path)?.has_same_size_and_time(expected) {
                return Err(StoreError::SourceChanged(path));
            }
        }
        Ok(())
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Waits until a later change would show. File times advance in ticks, and a file that was just
    /// written could change again within the same tick.
    pub(in crate::store) fn wait_for_next_tick<'a>(
        fingerprints: impl IntoIterator<Item = &'a Self>,
    ) {
        let modified =
            fingerprints.into_iter().map(|print| (print.seconds, print.nanoseconds)).max();
        let Some((seconds @ 0.., nanoseconds)) = modified else { return };
        let newest = UNIX_EPOCH + Duration::new(seconds as u64, nanoseconds as u32);
        if let Some(rest) = newest.elapsed().ok().and_then(|age| TICK.checked_sub(age)) {
            thread::sleep(rest);
        }
    }

    /// True also for the same file after its file system was mounted again, with another device or
    /// inode.
    pub(in crate::store) fn has_same_size_and_time(&self, other: &Self) -> bool {
        (self.size, self.seconds, self.nanoseconds)
            == (other.size, other.seconds, other.nanoseconds)
    }

    pub(in crate::store) fn encode_all(fingerprints: &[Self]) -> Vec<u8> {
        fingerprints
            .iter()
            .flat_map(|print| print.words().map(u64::to_le_bytes))
            .flatten()
            .collect()
    }

    /// The fingerprints of this number of files; none if the bytes are not that. Earlier versions
    /// did not store device and inode, which are then 0.
    pub(in crate::store) fn decode_all(bytes: &[u8], files: usize) -> Option<Vec<Self>> {
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
