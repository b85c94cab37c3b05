//! Room in the data directory for one more content.

use std::collections::BTreeSet;

use shoal_core::content::ContentId;
use tonic::Status;
use tracing::info;

use super::Daemon;
use crate::store::{Need, Reservation, StoreError};

/// Whether other contents are evicted for one that does not fit the quota.
pub(crate) enum Room {
    /// None.
    Free,
    /// The least recently used ones, except these.
    Made(BTreeSet<ContentId>),
}

impl Daemon {
    /// Evicts the least recently used contents until there is room, and leaves their swarms.
    pub(crate) async fn make_room(&self, bytes: u64) -> Result<Reservation, Status> {
        let (evicted, room) = self.on_disk(move |store| store.make_room(bytes)).await?;
        for id in evicted {
            info!(content_id = %id, "evicted");
            self.node.remove(id).await?;
        }
        Ok(room)
    }

    /// The same, from a thread that may block.
    pub(super) fn evict_for(
        &self,
        spared: &BTreeSet<ContentId>,
        need: Need,
    ) -> Result<Reservation, StoreError> {
        let (evicted, room) = self.store.make_room_beside(spared, need)?;
        for id in evicted {
            info!(content_id = %id, "evicted");
            let node = self.node.clone();
            tokio::spawn(async move { node.remove(id).await });
        }
        Ok(room)
    }
}
