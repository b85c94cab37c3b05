//! Cleans up what this node holds of other nodes' ranges: it tells the owner about ranges that this
//! node holds and does not own, merges records of a ring that was founded separately, and discards
//! records that it no longer has to keep.

use std::time::Duration;

use shoal_core::ring::{Contact, KeyRange, ReplicaSet};
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::{
    replication::anti_entropy::AntiEntropy, routing::lookup::Lookups, storage::StoreError,
};

/// How often the ranges are checked.
const CLEAN_EVERY: Duration = Duration::from_secs(1);

/// Cleans up the ranges of one node.
pub(crate) struct RangeCleanup {
    pub(crate) me: Contact,
    pub(crate) anti_entropy: AntiEntropy,
    pub(crate) lookups: Lookups,
}

impl RangeCleanup {
    /// Checks the ranges periodically while it is polled.
    pub(crate) async fn run(self) {
        loop {
            if let Err(error) = self.clean_up().await {
                warn!(%error, "ranges are not cleaned up: the disk fails");
            }
            sleep(CLEAN_EVERY).await;
        }
    }

    async fn clean_up(&self) -> Result<(), StoreError> {
        let configurations = self.anti_entropy.local.configurations();
        for (range, known) in configurations.known() {
            if known.displaced.is_some() {
                self.hand_in(range, &known.present).await?;
            } else if known.present.holds(self.me.id) {
                self.tell_owner(range, &known.present).await?;
            } else if known.supplied {
                self.ask_whether_chosen(range, &known.present).await?;
            }
        }
        self.anti_entropy.local.discard(KeyRange::whole(self.me.position)).await
    }

    /// Tells the owner of a range that this node holds which set keeps it: the owner may not know,
    /// or may come from a ring that was founded separately.
    async fn tell_owner(&self, range: KeyRange, present: &ReplicaSet) -> Result<(), StoreError> {
        let owned = self.lookups.snapshot.borrow().routing.state.owned();
        if owned.is_some_and(|owned| owned.contains(range.last)) {
            return Ok(());
        }
        let Ok(owner) = self.lookups.owner(range.last).await else { return Ok(()) };
        if owner.id == present.primary().id {
            return Ok(());
        }
        match self.anti_entropy.calls.learn((range, present), &owner).await {
            Ok(newer) => self.anti_entropy.local.learn_all(newer).await?,
            Err(error) => debug!(%range, %error, "an owner is not told of its range"),
        }
        Ok(())
    }

    /// Sends the primary the records that this node kept in a ring that was founded separately and
    /// is now merged into the primary's ring.
    async fn hand_in(&self, range: KeyRange, present: &ReplicaSet) -> Result<(), StoreError> {
        if let Err(error) = self.anti_entropy.hand_in(range, present.primary()).await {
            debug!(%range, %error, "records of another ring are not handed in yet");
            return Ok(());
        }
        self.anti_entropy.local.merged(range, present.clone()).await
    }

    /// Asks for the outcome of an attempt for which records were transferred to this node.
    async fn ask_whether_chosen(
        &self,
        range: KeyRange,
        present: &ReplicaSet,
    ) -> Result<(), StoreError> {
        for member in &present.members {
            if let Ok(sets) = self.anti_entropy.calls.replica_sets(range, member).await {
                self.anti_entropy.local.learn_all(sets).await?;
            }
        }
        Ok(())
    }
}
