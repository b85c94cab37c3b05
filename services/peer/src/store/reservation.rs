//! Room in the quota: counted and promised in one step, so that two who ask at once do not both get it.

use std::sync::Arc;

use shoal_common::lock::Mutex;

use super::{StoreError, data_dir::Index};

/// Bytes of a store's quota that are promised to one content. Given back when dropped.
#[derive(Debug)]
#[must_use]
pub struct Reservation {
    index: Arc<Mutex<Index>>,
    bytes: u64,
}

impl Reservation {
    /// Promises bytes if they fit into the quota beside all that is there and promised.
    pub(super) fn within(
        quota: Option<u64>,
        index: &Arc<Mutex<Index>>,
        bytes: u64,
    ) -> Result<Self, StoreError> {
        let mut known = index.lock();
        if let Some(quota) = quota {
            let missing = known.taken().saturating_add(bytes).saturating_sub(quota);
            if missing > 0 {
                return Err(StoreError::QuotaExceeded { needed: bytes, missing, quota });
            }
        }
        Ok(Self::of(index, &mut known, bytes))
    }

    /// Counts bytes as promised, whatever the quota: they are on the disk.
    pub(super) fn of(index: &Arc<Mutex<Index>>, known: &mut Index, bytes: u64) -> Self {
        // What does not fit is not counted, and so not given back.
        let bytes = bytes.min(u64::MAX - known.reserved);
        known.reserved += bytes;
        Self { index: index.clone(), bytes }
    }

    /// The content counts by itself from now on.
    pub(super) fn redeem(mut self, known: &mut Index) {
        known.reserved -= std::mem::take(&mut self.bytes);
        // Dropped with nothing to give back: the lock is not taken again.
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.index.lock().reserved -= self.bytes;
        }
    }
}
