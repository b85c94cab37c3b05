//! One lock per content.

use std::collections::BTreeSet;

use shoal_common::lock::{Condvar, Mutex};
use shoal_core::content::ContentId;

/// The contents that are being added, opened or removed, each by one thread. Another thread that
/// needs the same content waits; threads with other contents continue.
#[derive(Default)]
pub(super) struct ContentLocks {
    locked: Mutex<BTreeSet<ContentId>>,
    released: Condvar,
}

/// Releases the lock when dropped.
pub(super) struct ContentLock<'a> {
    locks: &'a ContentLocks,
    id: ContentId,
}

impl ContentLocks {
    pub(super) fn lock(&self, id: ContentId) -> ContentLock<'_> {
        let mut locked = self.locked.lock();
        while !locked.insert(id) {
            locked = self.released.wait(locked);
        }
        ContentLock { locks: self, id }
    }
}

impl Drop for ContentLock<'_> {
    fn drop(&mut self) {
        self.locks.locked.lock().remove(&self.id);
        self.locks.released.notify_all();
    }
}
