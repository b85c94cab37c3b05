//! Writes with an unknown outcome: docs/adr/0008.
//!
//! Such a write may be on the disk of a replica that did not answer, and may become visible later.
//! It is kept until it is resolved: written again, or left to the reconfiguration that began a
//! later term. A write for which there would be no memory here, if its outcome stayed unknown, is
//! not started.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    replication::primary::Term,
    storage::{Key, Record},
};

/// Bytes of all writes of a process that are in progress or indeterminate. One write of each queue
/// with the largest value takes a fourth of it.
const MEMORY_BYTES: usize = 16 << 20;

/// Bytes that a write takes in addition to its key and value: 32,768 writes at most.
const ENTRY_BYTES: usize = 512;

/// The memory that all queues of a process share.
#[derive(Clone, Debug)]
pub(crate) struct WriteMemory(Arc<Semaphore>);

impl Default for WriteMemory {
    fn default() -> Self {
        Self::new(MEMORY_BYTES)
    }
}

impl WriteMemory {
    /// This many bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes)))
    }

    /// Reserves memory for a write with this many bytes of key and value, if there is enough.
    pub(crate) fn reserve(&self, bytes: usize) -> Option<Reserved> {
        let bytes = u32::try_from(bytes + ENTRY_BYTES).ok()?;
        self.0.clone().try_acquire_many_owned(bytes).ok().map(Reserved)
    }
}

/// Memory for one write, released when this is dropped.
#[derive(Debug)]
pub(crate) struct Reserved(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// A write with an unknown outcome.
#[derive(Debug)]
struct IndeterminateWrite {
    record: Record,
    /// The term in which it was started.
    term: Term,
    _memory: Reserved,
}

/// The indeterminate writes of one queue, at most one per key: no other is started before.
#[derive(Debug, Default)]
pub(crate) struct IndeterminateWrites {
    by_key: BTreeMap<Key, IndeterminateWrite>,
    /// The key that was returned last.
    last: Option<Key>,
}

impl IndeterminateWrites {
    /// There are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// The outcome of a write is unknown.
    pub(crate) fn insert(&mut self, record: Record, term: Term, memory: Reserved) {
        self.by_key
            .insert(record.key.clone(), IndeterminateWrite { record, term, _memory: memory });
        gauge().increment(1);
    }

    /// The indeterminate write of a key, and the term in which it was started.
    pub(crate) fn of(&self, key: &Key) -> Option<(&Record, Term)> {
        self.by_key.get(key).map(|write| (&write.record, write.term))
    }

    /// The write of a key is resolved.
    pub(crate) fn resolved(&mut self, key: &Key) {
        if self.by_key.remove(key).is_some() {
            gauge().decrement(1);
        }
    }

    /// The keys in turn.
    pub(crate) fn next(&mut self) -> Option<Key> {
        let last = self.last.take();
        let after = last.as_ref().map_or(Unbounded, Excluded);
        let mut following = self.by_key.range((after, Unbounded));
        let next = following.next().or_else(|| self.by_key.first_key_value());
        self.last = next.map(|(key, _)| key.clone());
        self.last.clone()
    }
}

fn gauge() -> metrics::Gauge {
    metrics::gauge!("shoal_dht_indeterminate_writes")
}
