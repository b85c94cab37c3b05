//! Room in the quota: checked and reserved in one step, so that two callers do not both get it.

use std::sync::Arc;

use shoal_common::lock::Mutex;

use super::index::Index;
use crate::store::StoreError;

/// Bytes of a store's quota that are reserved for one content. Released when dropped.
#[derive(Debug)]
#[must_use]
pub struct Reservation {
    index: Arc<Mutex<Index>>,
    bytes: u64,
}

impl Reservation {
    /// Reserves bytes if they fit into the quota beside all contents and reservations.
    pub(super) fn within(
        quota: Option<u64>,
        index: &Arc<Mutex<Index>>,
        bytes: u64,
    ) -> Result<Self, StoreError> {
        let mut locked = index.lock();
        if let Some(quota) = quota {
            let missing = locked.used_bytes().saturating_add(bytes).saturating_sub(quota);
            if missing > 0 {
                return Err(StoreError::QuotaExceeded { needed: bytes, missing, quota });
            }
        }
        Ok(Self::unchecked(index, &mut locked, bytes))
    }

    /// Reserves bytes that are on the disk already, whatever the quota.
    pub(super) fn unchecked(index: &Arc<Mutex<Index>>, locked: &mut Index, bytes: u64) -> Self {
        // Bytes that would overflow the sum are not counted, and so not released.
        let bytes = bytes.min(u64::MAX - locked.reserved);
        locked.reserved += bytes;
        Self { index: index.clone(), bytes }
    }

    /// Releases the bytes when the index counts the content itself.
    pub(super) fn redeem(mut self, locked: &mut Index) {
        locked.reserved -= std::mem::take(&mut self.bytes);
        // Nothing is left to release, so that dropping it does not lock the index again.
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.index.lock().reserved -= self.bytes;
        }
    }
}
