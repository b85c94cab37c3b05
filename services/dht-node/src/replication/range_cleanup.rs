//! Sees to what this node has of other nodes' ranges: what it keeps and does not own, it tells the owner
//! of; what it kept in a ring that was founded apart, it hands in; what it no longer keeps, it discards.

use std::time::Duration;

use shoal_core::ring::{Contact, KeyRange, ReplicaSet};
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::{
    replication::anti_entropy::AntiEntropy, routing::lookup::Lookups, storage::StoreError,
};

/// How often it is seen to.
const SETTLE_EVERY: Duration = Duration::from_secs(1);

/// Settles what one node has of others' ranges.
pub(crate) struct RangeCleanup {
    pub(crate) me: Contact,
    pub(crate) anti_entropy: AntiEntropy,
    pub(crate) lookups: Lookups,
}

impl RangeCleanup {
    /// Sees to it again and again for as long as it is polled.
    pub(crate) async fn run(self) {
        loop {
            if let Err(error) = self.settle().await {
                warn!(%error, "ranges are not settled: the disk fails");
            }
            sleep(SETTLE_EVERY).await;
        }
    }

    async fn settle(&self) -> Result<(), StoreError> {
        let custody = self.anti_entropy.local.custody();
        for (range, known) in custody.known() {
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

    /// Tells the owner of a range that this node keeps who keeps it: it may know nothing of it, or
    /// come from a ring that was founded apart.
    async fn tell_owner(&self, range: KeyRange, present: &ReplicaSet) -> Result<(), StoreError> {
        let owned = self.lookups.view.borrow().view.state.owned();
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

    /// Gives the primary what this node kept in a ring that was founded apart and is now part of the
    /// primary's.
    async fn hand_in(&self, range: KeyRange, present: &ReplicaSet) -> Result<(), StoreError> {
        if let Err(error) = self.anti_entropy.hand_in(range, present.primary()).await {
            debug!(%range, %error, "records of another ring are not handed in yet");
            return Ok(());
        }
        self.anti_entropy.local.settle(range, present.clone()).await
    }

    /// Asks what became of an attempt for which records were handed over to this node.
    async fn ask_whether_chosen(
        &self,
        range: KeyRange,
        present: &ReplicaSet,
    ) -> Result<(), StoreError> {
        for member in &present.members {
            if let Ok(agreements) = self.anti_entropy.calls.agreements(range, member).await {
                self.anti_entropy.local.learn_all(agreements).await?;
            }
        }
        Ok(())
    }
}
