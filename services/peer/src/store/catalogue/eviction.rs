//! Makes room in the quota by evicting contents.

use std::collections::BTreeSet;

use shoal_core::content::ContentId;

use super::{Need, Store, index::Entry, reservation::Reservation};
use crate::store::{StoreError, content::held_log, file_system::settle_deletions};

impl Store {
    /// Evicts the least recently used contents until `bytes` more fit into the quota and on the file
    /// system, and reserves these. Returns the evicted contents, which are complete and neither pinned nor in place. If
    /// they would not be enough, none is evicted.
    ///
    /// Called before a content is added or imported, which fails without room: so the caller knows
    /// which swarms to leave.
    pub fn make_room(&self, bytes: u64) -> Result<(Vec<ContentId>, Reservation), StoreError> {
        self.make_room_beside(&BTreeSet::new(), Need::all(bytes))
    }

    /// Like [`Store::make_room`], without evicting the `spared` contents.
    pub fn make_room_beside(
        &self,
        spared: &BTreeSet<ContentId>,
        need: Need,
    ) -> Result<(Vec<ContentId>, Reservation), StoreError> {
        let _evicting = self.evicting.lock();
        let mut evicted = Vec::new();
        let mut was_space_made = false;
        loop {
            let refused = match self.reserve(need) {
                Ok(room) => return Ok((evicted, room)),
                Err(refused) => refused,
            };
            let missing = match refused {
                // Repeated: a caller that needs no eviction may have reserved the evicted bytes.
                StoreError::QuotaExceeded { missing, .. } => missing,
                // Not repeated: files that another program has open, or an export shares, leave no
                // space when they are deleted, however many are.
                StoreError::NoSpace { missing, .. } if !was_space_made => {
                    was_space_made = true;
                    missing
                }
                _ => return Err(refused),
            };
            for id in self.evictable(spared, missing).map_err(|lacking| lacks(refused, lacking))? {
                match self.remove(id) {
                    // Another thread has removed it, which makes as much room.
                    Err(StoreError::Unknown(_)) => {}
                    removed => removed?,
                }
                evicted.push(id);
            }
            if was_space_made {
                settle_deletions(self.directory.path());
            }
        }
    }

    /// Contents whose eviction makes `missing` bytes of room, the least recently used first; or the
    /// bytes that all of them would not make.
    fn evictable(
        &self,
        spared: &BTreeSet<ContentId>,
        mut missing: u64,
    ) -> Result<Vec<ContentId>, u64> {
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
        if missing > 0 { Err(missing) } else { Ok(evicted) }
    }

    pub(super) fn is_whole_and_ours(&self, id: ContentId, entry: &Entry) -> bool {
        entry.in_place.is_none()
            && match self.opened(id) {
                Some(stored) => stored.is_complete(),
                None => held_log::read(&self.directory.content(id).log(), entry.piece_count)
                    .is_ok_and(|log| log.held.is_full()),
            }
    }
}

/// The refusal, with the bytes that are missing although all that may be evicted would be.
const fn lacks(mut refused: StoreError, lacking: u64) -> StoreError {
    if let StoreError::QuotaExceeded { missing, .. } | StoreError::NoSpace { missing, .. } =
        &mut refused
    {
        *missing = lacking;
    }
    refused
}
