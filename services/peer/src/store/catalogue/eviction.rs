//! Makes room in the quota by evicting contents.

use std::collections::BTreeSet;

use shoal_core::content::ContentId;

use super::{Store, index::Entry, reservation::Reservation};
use crate::store::{StoreError, content::held_log};

impl Store {
    /// Evicts the least recently used contents until `bytes` more fit into the quota, and reserves
    /// these. Returns the evicted contents, which are complete and neither pinned nor in place. If
    /// they would not be enough, none is evicted.
    ///
    /// Called before a content is added or imported, which fails without room: so the caller knows
    /// which swarms to leave.
    pub fn make_room(&self, bytes: u64) -> Result<(Vec<ContentId>, Reservation), StoreError> {
        self.make_room_beside(&BTreeSet::new(), bytes)
    }

    /// Like [`Store::make_room`], without evicting the `spared` contents.
    pub fn make_room_beside(
        &self,
        spared: &BTreeSet<ContentId>,
        bytes: u64,
    ) -> Result<(Vec<ContentId>, Reservation), StoreError> {
        let _evicting = self.evicting.lock();
        let mut evicted = Vec::new();
        loop {
            match self.reserve(bytes) {
                Ok(room) => return Ok((evicted, room)),
                // Repeated: a caller that needs no eviction may have reserved the evicted bytes.
                Err(StoreError::QuotaExceeded { needed, missing, quota }) => {
                    for id in self.evictable(spared, needed, missing, quota)? {
                        match self.remove(id) {
                            // Another thread has removed it, which makes as much room.
                            Err(StoreError::Unknown(_)) => {}
                            removed => removed?,
                        }
                        evicted.push(id);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Contents whose eviction makes `missing` bytes of room, the least recently used first.
    fn evictable(
        &self,
        spared: &BTreeSet<ContentId>,
        needed: u64,
        mut missing: u64,
        quota: u64,
    ) -> Result<Vec<ContentId>, StoreError> {
        let mut evictable: Vec<_> = self
            .contents()
            .into_iter()
            .filter(|(id, entry)| !entry.pinned && !spared.contains(id))
            .filter(|(id, entry)| self.is_whole_and_ours(*id, entry))
            .collect();
        evictable.sort_by_key(|(_, entry)| entry.last_used_unix_ms);
        let mut evicted = Vec::new();
        for (id, entry) in evictable {
            if missing == 0 {
                break;
            }
            missing = missing.saturating_sub(entry.stored_bytes);
            evicted.push(id);
        }
        if missing > 0 {
            return Err(StoreError::QuotaExceeded { needed, missing, quota });
        }
        Ok(evicted)
    }

    fn is_whole_and_ours(&self, id: ContentId, entry: &Entry) -> bool {
        entry.in_place.is_none()
            && match self.opened(id) {
                Some(stored) => stored.is_complete(),
                None => held_log::read(&self.directory.content(id).log(), entry.piece_count)
                    .is_ok_and(|log| log.held.is_full()),
            }
    }
}
