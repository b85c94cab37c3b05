//! Anti-entropy: synchronises the records of a range between two nodes. A Merkle-style comparison
//! costs one digest if they are equal, and finds what differs in a few round trips.

use std::collections::HashMap;

use shoal_core::ring::{Contact, KeyRange, Refusal, ReplicaSet, Stamp};
use tracing::debug;

use crate::{
    network::calls::{CallError, Calls},
    replication::local_replica::{Handover, LocalReplica, SupplyError},
    storage::{Key, Record, StoreError, split},
};

/// Ranges compared in one call.
const RANGES: usize = 64;
/// A range with at most this many records on this node is compared key by key. The other node's
/// count does not decide how deep the comparison goes.
const FEW: u64 = 256;
/// Keys requested in one call.
const KEYS: usize = 1000;
/// Bytes of records sent in one call, at most.
const BATCH_BYTES: usize = 1 << 20;

/// Two nodes could not be synchronised.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AntiEntropyError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Refused(Refusal),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<SupplyError> for AntiEntropyError {
    fn from(error: SupplyError) -> Self {
        match error {
            SupplyError::Refused(refusal) => Self::Refused(refusal),
            SupplyError::Store(error) => Self::Store(error),
        }
    }
}

/// How the records of this node and another differ.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    /// Keys for which the other node has a newer record.
    pub(crate) lacking_here: Vec<Key>,
    /// Keys for which this node has a newer record.
    pub(crate) lacking_there: Vec<Key>,
}

/// Transfers records between nodes.
#[derive(Clone, Debug)]
pub(crate) struct AntiEntropy {
    pub(crate) local: LocalReplica,
    pub(crate) calls: Calls,
}

impl AntiEntropy {
    /// Fetches, for the next set, the records that are newer on `from`. Returns what differed.
    pub(crate) async fn pull(
        &self,
        handover: &Handover,
        from: &Contact,
    ) -> Result<Difference, AntiEntropyError> {
        let difference = self.compare(handover.range, from).await?;
        let mut left = &difference.lacking_here[..];
        let mut taken = 0;
        while let Some(records) = self.read(&mut left, from).await? {
            taken += records.len();
            self.local.supply(handover, records).await?;
        }
        debug!(from = %from.address, records = taken, "took over records");
        Ok(difference)
    }

    /// The records that are newer on `from`, not stored yet.
    pub(crate) async fn newer(
        &self,
        range: KeyRange,
        from: &Contact,
    ) -> Result<Vec<Record>, AntiEntropyError> {
        let lacking = self.compare(range, from).await?.lacking_here;
        let mut left = &lacking[..];
        let mut newer = Vec::new();
        while let Some(records) = self.read(&mut left, from).await? {
            newer.extend(records);
        }
        Ok(newer)
    }

    /// Sends, for the next set, the records that are newer on this node to `to`. Returns how many
    /// there were.
    pub(crate) async fn push(
        &self,
        handover: &Handover,
        to: &Contact,
    ) -> Result<usize, AntiEntropyError> {
        // Records that it kept as a former member are discarded first.
        self.supply(handover, &[], to).await?;
        let lacking = self.compare(handover.range, to).await?.lacking_there;
        for batch in self.batches(&lacking) {
            self.supply(handover, &batch?, to).await?;
        }
        debug!(to = %to.address, records = lacking.len(), "handed over records");
        Ok(lacking.len())
    }

    async fn supply(
        &self,
        handover: &Handover,
        records: &[Record],
        to: &Contact,
    ) -> Result<(), AntiEntropyError> {
        self.calls.supply(handover, records, to).await?.map_err(AntiEntropyError::Refused)
    }

    /// Writes the records that are newer on this node, the primary, to a replica again. Returns how
    /// many there were.
    pub(crate) async fn restore(
        &self,
        (range, set): (KeyRange, &ReplicaSet),
        to: &Contact,
    ) -> Result<usize, AntiEntropyError> {
        let lacking = self.compare(range, to).await?.lacking_there;
        let mut stored = 0;
        for batch in self.batches(&lacking) {
            let batch = batch?;
            let Ok(newer) = self.calls.replicate((range, set), &batch, to).await? else { break };
            stored += batch.len().saturating_sub(newer.len());
        }
        Ok(stored)
    }

    /// Sends the primary of a range all records that this node kept of it in a ring that was
    /// founded separately.
    pub(crate) async fn hand_in(
        &self,
        range: KeyRange,
        to: &Contact,
    ) -> Result<(), AntiEntropyError> {
        let mut after = None;
        loop {
            let records = self.local.store.records(range, after.as_ref(), BATCH_BYTES)?;
            let Some(last) = records.last() else { return Ok(()) };
            after = Some(last.key.clone());
            self.calls.hand_in(&records, to).await?;
        }
    }

    /// This node's records of some keys, in batches that fit into a message.
    pub(crate) fn batches(
        &self,
        keys: &[Key],
    ) -> impl Iterator<Item = Result<Vec<Record>, StoreError>> {
        let mut left = keys.iter();
        std::iter::from_fn(move || {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            while bytes < BATCH_BYTES
                && let Some(key) = left.next()
            {
                match self.local.store.get(key) {
                    Ok(None) => {}
                    Ok(Some(record)) => {
                        bytes += record.size();
                        batch.push(record);
                    }
                    Err(error) => return Some(Err(error)),
                }
            }
            (!batch.is_empty()).then_some(Ok(batch))
        })
    }

    /// The next records of the remaining keys, as many as fit into a message; none if no key
    /// remains.
    async fn read(
        &self,
        left: &mut &[Key],
        from: &Contact,
    ) -> Result<Option<Vec<Record>>, AntiEntropyError> {
        if left.is_empty() {
            return Ok(None);
        }
        let asked = &left[..left.len().min(KEYS)];
        let records = self.calls.records(asked, from).await?;
        // They are returned in the order of the request. A record that no longer exists is left
        // out.
        let last = records.last().and_then(|last| asked.iter().position(|key| *key == last.key));
        *left = &left[last.map_or(asked.len(), |last| last + 1)..];
        Ok(Some(records))
    }

    async fn compare(
        &self,
        range: KeyRange,
        with: &Contact,
    ) -> Result<Difference, AntiEntropyError> {
        let mut difference = Difference::default();
        let mut open = vec![range];
        while !open.is_empty() {
            let asked: Vec<_> = open.drain(..open.len().min(RANGES)).collect();
            let theirs = self.calls.summarize(&asked, with).await?;
            for (range, theirs) in asked.into_iter().zip(theirs) {
                let ours = self.local.store.digest(range)?;
                if ours == theirs {
                    continue;
                }
                let parts = split(range);
                if ours.count <= FEW || parts.len() < 2 {
                    self.compare_keys(range, with, &mut difference).await?;
                } else {
                    open.extend(parts);
                }
            }
        }
        Ok(difference)
    }

    async fn compare_keys(
        &self,
        range: KeyRange,
        with: &Contact,
        difference: &mut Difference,
    ) -> Result<(), AntiEntropyError> {
        let mut theirs: HashMap<Key, Stamp> = HashMap::new();
        let mut after = None;
        loop {
            let (stamps, more) = self.calls.stamps(range, after.as_ref(), with).await?;
            after = stamps.last().map(|(key, _)| key.clone());
            theirs.extend(stamps);
            if !more || after.is_none() {
                break;
            }
        }
        let ours = self.local.store.stamps(range, None, usize::MAX)?;
        for (key, ours) in ours {
            match theirs.remove(&key) {
                Some(stamp) if stamp == ours => {}
                Some(stamp) if stamp > ours => difference.lacking_here.push(key),
                _ => difference.lacking_there.push(key),
            }
        }
        difference.lacking_here.extend(theirs.into_keys());
        Ok(())
    }
}
