//! The files that a store keeps open. If there are too many, the least recently used is closed.

use std::{
    fs::File,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use lru::LruCache;
use shoal_common::{lock::Mutex, open_files};

use crate::store::arrangement::FileNumber;

/// Files that a store keeps open, over all contents, unless a quarter of those that the process may
/// have open are fewer.
const MAX_OPEN_FILES: usize = 256;

/// A content, and one of its files.
pub(super) type FileKey = (u64, FileNumber);

/// The open files of all contents of a store.
///
/// Invariant: files are closed after the lock is released, because some file systems write then.
pub(in crate::store) struct OpenFiles {
    files: Mutex<LruCache<FileKey, Arc<File>>>,
    next_content: AtomicU64,
}

impl Default for OpenFiles {
    fn default() -> Self {
        let most = MAX_OPEN_FILES.min(open_files::limit() / 4);
        let most = NonZeroUsize::new(most).unwrap_or(NonZeroUsize::MIN);
        Self { files: Mutex::new(LruCache::sparse(most)), next_content: AtomicU64::new(0) }
    }
}

impl OpenFiles {
    /// A key for the files of one more content.
    pub(super) fn new_content(&self) -> u64 {
        self.next_content.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn find(&self, key: FileKey) -> Option<Arc<File>> {
        self.files.lock().get(&key).cloned()
    }

    pub(super) fn insert(&self, key: FileKey, file: Arc<File>) {
        let _closed = self.files.lock().push(key, file);
    }

    pub(super) fn close_all_of(&self, content: u64) {
        let mut closed = Vec::new();
        self.files.lock().retain(|(owner, _), file| {
            let is_kept = *owner != content;
            if !is_kept {
                closed.push(file.clone());
            }
            is_kept
        });
    }
}

#[cfg(test)]
mod tests {
    use shoal_core::content::BlobNumber;

    use super::*;

    fn number(number: usize) -> FileNumber {
        FileNumber::of_blob(BlobNumber::new(number as u32))
    }

    #[test]
    fn the_least_recently_used_file_is_closed_when_there_are_too_many() {
        let open_files = OpenFiles::default();
        let file = Arc::new(tempfile::tempfile().unwrap());
        let (first, second) = (open_files.new_content(), open_files.new_content());
        for number in 0..MAX_OPEN_FILES {
            open_files.insert((first, self::number(number)), file.clone());
        }
        assert!(open_files.find((first, number(0))).is_some());
        open_files.insert((second, number(0)), file.clone());
        assert!(open_files.find((first, number(0))).is_some(), "it was just used");
        assert!(open_files.find((first, number(1))).is_none());
        assert_eq!(Arc::strong_count(&file), 1 + MAX_OPEN_FILES);
        open_files.close_all_of(first);
        assert!(open_files.find((second, number(0))).is_some());
        assert_eq!(Arc::strong_count(&file), 2);
    }
}
