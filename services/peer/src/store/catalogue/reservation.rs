//! Room in the quota: checked and reserved in one step, so that two callers do not both get it.

use std::sync::Arc;

use shoal_common::lock::Mutex;

use super::{index::Index, room::Need};
use crate::store::StoreError;

/// Bytes of a store's quota that are reserved for one content. Released when dropped.
#[derive(Debug)]
#[must_use]
pub struct Reservation {
    index: Arc<Mutex<Index>>,
    bytes: u64,
    /// Of these, bytes that are not on the disk yet.
    unwritten: u64,
}

impl Reservation {
    /// Reserves bytes if they fit into the quota beside all contents and reservations.
    pub(super) fn within(
        quota: Option<u64>,
        index: &Arc<Mutex<Index>>,
        need: Need,
    ) -> Result<Self, StoreError> {
        let bytes = need.bytes;
        let mut locked = index.lock();
        if let Some(quota) = quota {
            let missing = locked.used_bytes().saturating_add(bytes).saturating_sub(quota);
            if missing > 0 {
                return Err(StoreError::QuotaExceeded { needed: bytes, missing, quota });
            }
        }
        let mut room = Self::unchecked(index, &mut locked, bytes);
        room.unwritten = room.bytes.min(need.written);
        locked.unwritten += room.unwritten;
        Ok(room)
    }

    /// So many of the bytes have been written: the file system counts them from now on.
    pub(in crate::store) fn wrote(&mut self, bytes: u64) {
        let written = bytes.min(self.unwritten);
        self.unwritten -= written;
        self.index.lock().unwritten -= written;
    }

    /// Reserves bytes that are on the disk already, whatever the quota.
    pub(super) fn unchecked(index: &Arc<Mutex<Index>>, locked: &mut Index, bytes: u64) -> Self {
        // Bytes that would overflow the sum are not counted, and so not released.
        let bytes = bytes.min(u64::MAX - locked.reserved);
        locked.reserved += bytes;
        Self { index: index.clone(), bytes, unwritten: 0 }
    }

    /// Releases the bytes when the index counts the content itself.
    pub(super) fn redeem(mut self, locked: &mut Index) {
        locked.reserved -= std::mem::take(&mut self.bytes);
        locked.unwritten -= std::mem::take(&mut self.unwritten);
        // Nothing is left to release, so that dropping it does not lock the index again.
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            let mut index = self.index.lock();
            index.reserved -= self.bytes;
            index.unwritten -= self.unwritten;
        }
    }
}
