//! How a file that others can change looked when it was hashed.

use std::{
    fs::{self, Metadata},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, UNIX_EPOCH},
};

use shoal_core::content::Manifest;

use crate::store::{
    StoreError,
    arrangement::{Arrangement, FileNumber},
    error::cannot,
};

/// Linux's slowest clock of file times ticks 100 times a second.
const TICK: Duration = Duration::from_millis(10);

/// Numbers of a stored fingerprint.
const WORDS: usize = 5;

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

    const fn words(&self) -> [u64; WORDS] {
        let (seconds, nanoseconds) = (self.seconds, self.nanoseconds);
        [self.size, seconds.cast_unsigned(), nanoseconds.cast_unsigned(), self.device, self.inode]
    }

    const fn of_words([size, seconds, nanoseconds, device, inode]: [u64; WORDS]) -> Self {
        let (seconds, nanoseconds) = (seconds.cast_signed(), nanoseconds.cast_signed());
        Self { size, seconds, nanoseconds, device, inode }
    }
}

/// The fingerprints of the files on disk of a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Fingerprints(Vec<(FileNumber, Fingerprint)>);

impl Fingerprints {
    /// As `look` finds them.
    pub(in crate::store) fn find(
        manifest: &Manifest,
        arrangement: Arrangement,
        mut look: impl FnMut(FileNumber) -> Result<Fingerprint, StoreError>,
    ) -> Result<Self, StoreError> {
        let files = arrangement.files(manifest).into_iter();
        files.map(|file| Ok((file, look(file)?))).collect::<Result<_, _>>().map(Self)
    }

    /// Waits until a later change of a file would show.
    pub(in crate::store) fn wait_for_next_tick(&self) {
        Fingerprint::wait_for_next_tick(self.0.iter().map(|(_, fingerprint)| fingerprint));
    }

    /// Checks that all files still have the expected sizes and times.
    pub(in crate::store) fn check(
        &self,
        path_of: impl Fn(FileNumber) -> PathBuf,
    ) -> Result<(), StoreError> {
        self.0.iter().try_for_each(|(file, expected)| {
            let path = path_of(*file);
            if Fingerprint::at(&path)?.has_same_size_and_time(expected) {
                return Ok(());
            }
            Err(StoreError::SourceChanged(path))
        })
    }

    /// That of one file.
    pub(in crate::store) fn get(&self, file: FileNumber) -> Option<&Fingerprint> {
        let index = self.0.binary_search_by_key(&file, |(number, _)| *number).ok()?;
        Some(&self.0[index].1)
    }

    pub(in crate::store) fn encode(&self) -> Vec<u8> {
        let words = self.0.iter().flat_map(|(_, print)| print.words().map(u64::to_le_bytes));
        words.flatten().collect()
    }

    /// None if the bytes are not the fingerprints of the files of this manifest.
    pub(in crate::store) fn decode(
        manifest: &Manifest,
        arrangement: Arrangement,
        bytes: &[u8],
    ) -> Option<Self> {
        let (words, []) = bytes.as_chunks::<8>() else { return None };
        let words: Vec<_> = words.iter().copied().map(u64::from_le_bytes).collect();
        let (prints, []) = words.as_chunks::<WORDS>() else { return None };
        let files = arrangement.files(manifest);
        (prints.len() == files.len()).then(|| {
            let prints = prints.iter().copied().map(Fingerprint::of_words);
            Self(files.into_iter().zip(prints).collect())
        })
    }
}
