//! Bringing two nodes' records of a range together: Merkle-style, so that what is equal costs one
//! digest, and what differs is found in a few round trips.

use std::collections::HashMap;

use shoal_core::ring::{Contact, KeyRange, Version};
use tracing::debug;

use crate::{
    calls::{CallError, Calls},
    keeper::Keeper,
    store::{Key, Record, StoreError, split},
};

/// Ranges compared in one call.
const RANGES: usize = 64;
/// A range with so few records on both sides is compared key by key.
const FEW: u64 = 256;
/// Keys asked for in one call.
const KEYS: usize = 1000;
/// Bytes of records sent in one call, at most.
const BATCH_BYTES: usize = 1 << 20;

/// Two nodes could not be brought together.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SyncError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What differs between this node and another.
#[derive(Debug, Default)]
struct Difference {
    /// Keys of which the other has something newer.
    lacking_here: Vec<Key>,
    /// Keys of which this node has something newer.
    lacking_there: Vec<Key>,
}

/// Brings records from node to node.
#[derive(Clone, Debug)]
pub(crate) struct Sync {
    pub(crate) keeper: Keeper,
    pub(crate) calls: Calls,
}

impl Sync {
    /// Takes over what `from` has newer. Returns how many records that were.
    pub(crate) async fn pull(&self, range: KeyRange, from: &Contact) -> Result<usize, SyncError> {
        let lacking = self.compare(range, from).await?.lacking_here;
        let mut left = &lacking[..];
        let mut taken = 0;
        while let Some(records) = self.read(&mut left, from).await? {
            taken += records.len();
            self.keeper.supply(range, records).await?;
        }
        debug!(from = %from.address, records = taken, "took over records");
        Ok(taken)
    }

    /// What `from` has newer, not stored yet.
    pub(crate) async fn newer(
        &self,
        range: KeyRange,
        from: &Contact,
    ) -> Result<Vec<Record>, SyncError> {
        let lacking = self.compare(range, from).await?.lacking_here;
        let mut left = &lacking[..];
        let mut newer = Vec::new();
        while let Some(records) = self.read(&mut left, from).await? {
            newer.extend(records);
        }
        Ok(newer)
    }

    /// Gives `to` what this node has newer. Returns how many records that were.
    pub(crate) async fn push(&self, range: KeyRange, to: &Contact) -> Result<usize, SyncError> {
        let lacking = self.compare(range, to).await?.lacking_there;
        let mut batch = Vec::new();
        let mut bytes = 0;
        for key in &lacking {
            let Some(record) = self.keeper.store.get(key)? else { continue };
            let size = record.size();
            if bytes + size > BATCH_BYTES {
                self.calls.supply(range, &batch, to).await?;
                batch.clear();
                bytes = 0;
            }
            bytes += size;
            batch.push(record);
        }
        // Sent even if it is empty: who is supplied keeps the range until the set is agreed.
        self.calls.supply(range, &batch, to).await?;
        debug!(to = %to.address, records = lacking.len(), "handed over records");
        Ok(lacking.len())
    }

    /// The next records of the keys that are left, as many as fit into a message; none if no key is
    /// left.
    async fn read(
        &self,
        left: &mut &[Key],
        from: &Contact,
    ) -> Result<Option<Vec<Record>>, SyncError> {
        if left.is_empty() {
            return Ok(None);
        }
        let asked = &left[..left.len().min(KEYS)];
        let records = self.calls.records(asked, from).await?;
        // They come in the order asked for. A record that is gone meanwhile is left out.
        let last = records.last().and_then(|last| asked.iter().position(|key| *key == last.key));
        *left = &left[last.map_or(asked.len(), |last| last + 1)..];
        Ok(Some(records))
    }

    async fn compare(&self, range: KeyRange, with: &Contact) -> Result<Difference, SyncError> {
        let mut difference = Difference::default();
        let mut open = vec![range];
        while !open.is_empty() {
            let asked: Vec<_> = open.drain(..open.len().min(RANGES)).collect();
            let theirs = self.calls.summarize(&asked, with).await?;
            for (range, theirs) in asked.into_iter().zip(theirs) {
                let ours = self.keeper.store.summary(range)?;
                if ours == theirs {
                    continue;
                }
                let parts = split(range);
                if ours.count.max(theirs.count) <= FEW || parts.len() < 2 {
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
    ) -> Result<(), SyncError> {
        let mut theirs: HashMap<Key, Version> = HashMap::new();
        let mut after = None;
        loop {
            let (versions, more) = self.calls.versions(range, after.as_ref(), with).await?;
            after = versions.last().map(|(key, _)| key.clone());
            theirs.extend(versions);
            if !more || after.is_none() {
                break;
            }
        }
        let ours = self.keeper.store.versions(range, None, usize::MAX)?;
        for (key, ours) in ours {
            match theirs.remove(&key) {
                Some(version) if version == ours => {}
                Some(version) if version > ours => difference.lacking_here.push(key),
                _ => difference.lacking_there.push(key),
            }
        }
        difference.lacking_here.extend(theirs.into_keys());
        Ok(())
    }
}
