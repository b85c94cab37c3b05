//! The replica on this node: its promises as a Paxos acceptor, and its records. Every change of
//! either is made here.
//!
//! A promise and a write of the same range are never reordered: both are jobs of the store's single
//! writer, which runs them in order and has them on disk before it answers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use shoal_common::lock::Mutex;
use shoal_core::ring::{
    Ballot, Configuration, Configurations, KeyRange, Leases, NodeId, Proposal, RangeMap, Refusal,
    ReplicaSet, Superseding, WriteRefusal,
};

use crate::storage::{Merged, Record, Store, StoreError, Usage};

/// How long a lease lasts. This is the longest time for which the range of a crashed primary is
/// unavailable because of leases; a live primary may lose three renewals in a row.
pub(crate) const LEASE: Duration = Duration::from_secs(2);

/// How long records that were copied in advance count as a copy of their source. Tombstones are
/// kept far longer: nothing can have been removed and purged in between.
const FRESH_FOR: Duration = Duration::from_secs(600);

/// Ranges copied in advance that are tracked. If there are more, all are copied again.
const MAX_COPIED: usize = 1024;

/// Records that are discarded or purged before other jobs have a turn.
const BATCH: usize = 1000;

/// The answer to a prepare request.
#[derive(Clone, Debug)]
pub(crate) enum Prepared {
    /// The node promises, and had accepted these proposals before.
    Promised(Vec<(KeyRange, Proposal)>),
    /// The node refuses.
    Refused(Refusal),
    /// The primary holds a lease for this long.
    Leased(Duration),
}

/// Records are transferred to members of the next set.
#[derive(Clone, Debug)]
pub(crate) struct Handover {
    pub(crate) range: KeyRange,
    pub(crate) present: ReplicaSet,
    /// The ballot that holds the promises of a majority; none for a copy in advance.
    pub(crate) ballot: Option<Ballot>,
}

/// Transferred records are refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SupplyError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The answer to a primary that renews its lease.
#[derive(Clone, Debug)]
pub(crate) enum Renewed {
    /// Granted.
    Granted(Renewal),
    /// The next set is being chosen.
    Sealed,
    /// There are later sets.
    Superseded(Superseding),
}

/// What a replica reports when it grants a lease.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Renewal {
    /// It has the same records as the primary.
    pub(crate) is_same: bool,
    /// It has used up its quota.
    pub(crate) is_full: bool,
}

/// The most that a node stores of what clients write. Records that it receives as a replica are not
/// limited by it: they were acknowledged elsewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quota {
    /// Approximate bytes on disk.
    pub(crate) bytes: u64,
    /// Records, tombstones included.
    pub(crate) keys: u64,
}

impl Quota {
    /// The setting that forbids a write which replaces `before` by `after`, if one does. Writes in
    /// progress are not counted, so a few more may pass.
    pub(crate) fn refuses(
        &self,
        usage: Usage,
        before: Option<&Record>,
        after: &Record,
    ) -> Option<&'static str> {
        let more = after.footprint().saturating_sub(before.map_or(0, Record::footprint));
        if more > 0 && usage.bytes.saturating_add(more) > self.bytes {
            Some("limits.quota")
        } else if before.is_none() && usage.records >= self.keys {
            Some("limits.keys")
        } else {
            None
        }
    }
}

/// The replica on this node. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct LocalReplica {
    pub(crate) me: NodeId,
    pub(crate) store: Store,
    pub(crate) quota: Quota,
    leases: Arc<Mutex<Leases>>,
    /// Since when the records of a range of which this node is no member are a full copy.
    copied: Arc<Mutex<RangeMap<Instant>>>,
}

impl LocalReplica {
    pub(crate) fn new(me: NodeId, store: Store, quota: Quota) -> Self {
        Self {
            me,
            store,
            quota,
            leases: Arc::new(Mutex::new(Leases::new(LEASE, Instant::now()))),
            copied: Arc::default(),
        }
    }

    /// The quota is used up.
    pub(crate) fn is_full(&self) -> bool {
        let usage = self.store.usage();
        usage.bytes >= self.quota.bytes || usage.records >= self.quota.keys
    }

    /// The agreed replica sets, as they are on disk.
    pub(crate) fn configurations(&self) -> Arc<Configurations> {
        self.store.configurations()
    }

    /// Promises, unless the primary holds a lease and has not agreed.
    pub(crate) async fn prepare(
        &self,
        range: KeyRange,
        present: ReplicaSet,
        ballot: Ballot,
        primary_agrees: bool,
    ) -> Result<Prepared, StoreError> {
        // A primary needs no lease from itself.
        let is_free = primary_agrees || present.primary().id == self.me;
        let leased = || {
            let wait = self.leases.lock().wait(Instant::now(), range);
            wait.filter(|_| !is_free)
        };
        if let Some(wait) = leased() {
            return Ok(Prepared::Leased(wait));
        }
        let promise =
            self.store.write(move |txn| Ok(txn.configurations().prepare(range, &present, ballot)));
        Ok(match promise.await? {
            // A lease granted in the meantime counts; a lease requested from now on is not granted.
            Ok(accepted) => match leased() {
                Some(wait) => Prepared::Leased(wait),
                None => Prepared::Promised(accepted),
            },
            Err(refusal) => Prepared::Refused(refusal),
        })
    }

    /// Accepts a proposal, unless a higher ballot was promised.
    pub(crate) async fn accept(
        &self,
        range: KeyRange,
        present: ReplicaSet,
        proposal: Proposal,
    ) -> Result<Result<(), Refusal>, StoreError> {
        self.store
            .write(move |txn| Ok(txn.configurations().accept(range, &present, &proposal)))
            .await
    }

    /// Learns a set that was chosen.
    pub(crate) async fn learn(
        &self,
        range: KeyRange,
        chosen: ReplicaSet,
    ) -> Result<Superseding, StoreError> {
        // Usually it is known already, and nothing has to be written.
        let known = self.configurations();
        let is_known = |known: Option<&Configuration>| {
            known.is_some_and(|known| !chosen.supersedes(&known.present))
        };
        if known.over(range).into_iter().all(|(_, known)| is_known(known)) {
            return Ok(Configurations::clone(&known).learn(range, &chosen));
        }
        self.store.write(move |txn| Ok(txn.configurations().learn(range, &chosen))).await
    }

    /// Learns sets that were chosen.
    pub(crate) async fn learn_all(&self, chosen: Superseding) -> Result<(), StoreError> {
        for (range, set) in chosen {
            self.learn(range, set).await?;
        }
        Ok(())
    }

    /// Grants the primary of `present` a lease, if that is the present set and takes writes.
    pub(crate) async fn renew(
        &self,
        range: KeyRange,
        present: ReplicaSet,
    ) -> Result<Result<(), WriteRefusal>, StoreError> {
        let is_member = present.holds(self.me);
        let newer = self.learn(range, present.clone()).await?;
        if !newer.is_empty() {
            return Ok(Err(WriteRefusal::Superseded(newer)));
        }
        if !is_member {
            return Ok(Err(WriteRefusal::NoMember));
        }
        self.leases.lock().grant(Instant::now(), range);
        // After the grant: a promise looks for leases once it is on disk.
        let configurations = self.configurations();
        let known = configurations.over(range).into_iter().map(|(_, known)| known);
        let (mut is_sealed, mut is_known) = (false, true);
        for known in known {
            is_sealed |= known.is_none_or(Configuration::is_sealed);
            is_known &= known.is_some_and(|known| !present.supersedes(&known.present));
        }
        Ok(match (is_known, is_sealed) {
            (false, _) => Err(WriteRefusal::TooManyRanges),
            (true, true) => Err(WriteRefusal::Sealed),
            (true, false) => Ok(()),
        })
    }

    /// Stores what the primary writes under `set`, unless a newer record is there. Returns the
    /// newer ones.
    pub(crate) async fn replicate(
        &self,
        range: KeyRange,
        set: ReplicaSet,
        records: Vec<Record>,
    ) -> Result<Result<Vec<Record>, WriteRefusal>, StoreError> {
        let stored = self.store.write(move |txn| {
            let mut newer = Vec::new();
            for record in &records {
                if let Err(refusal) = txn.configurations().write(record.key.position(), range, &set)
                {
                    return Ok(Err(refusal));
                }
                if let Merged::Older(_) = txn.merge(record)? {
                    newer.extend(txn.get(&record.key)?);
                }
            }
            Ok(Ok(newer))
        });
        stored.await
    }

    /// Stores records that are transferred for the next set, where they are newer. Records that
    /// this node kept as a former member are discarded first.
    pub(crate) async fn supply(
        &self,
        handover: &Handover,
        records: Vec<Record>,
    ) -> Result<(), SupplyError> {
        let Handover { range, present, ballot } = handover.clone();
        self.discard(range).await?;
        let copied = Arc::clone(&self.copied);
        let supply = self.store.write(move |txn| {
            let discardable = match ballot {
                Some(ballot) => txn.configurations().supply(range, &present, ballot),
                None => txn.configurations().copy(range, &present),
            };
            let discardable = match discardable {
                Ok(discardable) => discardable,
                Err(refusal) => return Ok(Err(refusal)),
            };
            for stale in discardable.iter().flat_map(|range| stale(&copied, *range)) {
                txn.discard(stale, usize::MAX)?;
            }
            let is_wanted = |record: &Record| {
                let position = record.key.position();
                ballot.is_some() || discardable.iter().any(|range| range.contains(position))
            };
            for record in records.iter().filter(|record| is_wanted(record)) {
                txn.merge(record)?;
            }
            Ok(Ok(discardable))
        });
        let now = Instant::now();
        let copies = supply.await??;
        let mut copied = self.copied.lock();
        if copied.count() >= MAX_COPIED {
            copied.update(KeyRange::whole(range.last), |since| {
                *since = since.filter(|since| since.elapsed() < FRESH_FOR);
            });
            if copied.count() >= MAX_COPIED {
                *copied = RangeMap::default();
            }
        }
        for range in copies {
            copied.update(range, |since| {
                *since = since.filter(|since| since.elapsed() < FRESH_FOR).or(Some(now));
            });
        }
        Ok(())
    }

    /// Discards records of a range that this node kept as a former member and that no attempt
    /// needs.
    pub(crate) async fn discard(&self, range: KeyRange) -> Result<(), StoreError> {
        loop {
            let discardable = self.configurations().discardable(range).into_iter();
            let mut stale_parts = discardable.flat_map(|part| stale(&self.copied, part));
            let is_empty = |part| Ok(self.store.digest(part)?.count == 0);
            if stale_parts.try_fold(true, |all, part| Ok(all && is_empty(part)?))? {
                return Ok(());
            }
            let copied = Arc::clone(&self.copied);
            let discarded = self.store.write(move |txn| {
                let discardable = txn.configurations().discardable(range).into_iter();
                let mut discarded = 0;
                for stale in discardable.flat_map(|part| stale(&copied, part)) {
                    discarded += txn.discard(stale, BATCH - discarded)?;
                }
                Ok(discarded)
            });
            if discarded.await? < BATCH {
                return Ok(());
            }
        }
    }

    /// Purges a batch of tombstones and expired values of a range that are older than `before_ms`:
    /// every replica has them, and purges the same ones for the same request.
    pub(crate) async fn purge(&self, range: KeyRange, before_ms: u64) -> Result<(), StoreError> {
        let purged = self.store.purgeable(range, before_ms, BATCH)?;
        if purged.is_empty() {
            return Ok(());
        }
        let purge = self.store.write(move |txn| {
            for (key, version) in &purged {
                txn.purge(key, *version)?;
            }
            Ok(())
        });
        purge.await
    }

    /// The records of a range from a ring that was founded separately have been merged into this
    /// one.
    pub(crate) async fn merged(
        &self,
        range: KeyRange,
        present: ReplicaSet,
    ) -> Result<(), StoreError> {
        let merged = self.store.write(move |txn| {
            txn.configurations().merged(range, &present);
            Ok(())
        });
        merged.await
    }
}

/// The parts of a range with records that are not a fresh copy.
fn stale(copied: &Mutex<RangeMap<Instant>>, range: KeyRange) -> Vec<KeyRange> {
    let copied = copied.lock();
    let parts = copied.over(range).into_iter();
    let stale = parts.filter(|(_, since)| since.is_none_or(|since| since.elapsed() >= FRESH_FOR));
    stale.map(|(part, _)| part).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use shoal_core::ring::{Position, Stamp, Version};

    use super::*;
    use crate::storage::{DataDir, Key};

    #[tokio::test]
    async fn a_range_is_purged_although_another_may_not_be_purged() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = DataDir::open(directory.path()).and_then(Store::open).expect("it is empty");
        let quota = Quota { bytes: u64::MAX, keys: u64::MAX };
        let local = LocalReplica::new(store.node_id(), store, quota);
        let half = Position::from_u128(1 << 127);
        let blocked = KeyRange { after: Position::from_u128(u128::MAX), last: half };
        let purged = KeyRange { after: half, last: blocked.after };
        let tombstone = |number: u64| {
            let key = Key::try_from(Bytes::from(number.to_string())).expect("it is short");
            // The older ones are those of the blocked range.
            let wall_ms = if blocked.contains(key.position()) { 1 } else { 2 };
            let version = Version { epoch: 1, wall_ms, counter: 0, node: local.me };
            Record { key, stamp: Stamp::of(version), value: None, expires_ms: None }
        };
        let tombstones: Vec<_> = (0..3 * BATCH as u64).map(tombstone).collect();
        let stored = local.store.write(move |txn| {
            tombstones.iter().try_for_each(|tombstone| txn.merge(tombstone).map(drop))
        });
        stored.await.expect("the disk has room");
        let count = |range| local.store.digest(range).expect("it is readable").count;
        let (stay, go) = (count(blocked), count(purged));
        assert!(stay > BATCH as u64 && go > BATCH as u64, "{stay} and {go}");

        local.purge(purged, 3).await.expect("the disk has room");
        assert_eq!((count(blocked), count(purged)), (stay, go - BATCH as u64), "a batch");
        local.purge(purged, 3).await.expect("the disk has room");
        assert_eq!((count(blocked), count(purged)), (stay, 0));
    }
}
