//! Writes whose outcome nobody knows: docs/adr/0008.
//!
//! Such a write may be on the disk of a replica that did not answer, and come to light. It is kept
//! until it is settled: written again, or left to the takeover that began a later term. A write that
//! would find no room here if its outcome were unknown is not begun.

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

/// Bytes of the writes of a process that are under way or in write, at most. One write of each lane,
/// with the largest value, takes a fourth of it.
const ROOM_BYTES: usize = 16 << 20;

/// Bytes that a write takes beside its key and value: so there are 32,768 writes at most.
const ENTRY_BYTES: usize = 512;

/// The room that all lanes of a process share.
#[derive(Clone, Debug)]
pub(crate) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self::new(ROOM_BYTES)
    }
}

impl Room {
    /// Room for so many bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes)))
    }

    /// Sets room aside for a write of so many bytes of key and value, if there is enough.
    pub(crate) fn for_write(&self, bytes: usize) -> Option<Reserved> {
        let bytes = u32::try_from(bytes + ENTRY_BYTES).ok()?;
        self.0.clone().try_acquire_many_owned(bytes).ok().map(Reserved)
    }
}

/// Room for one write, free again once this is dropped.
#[derive(Debug)]
pub(crate) struct Reserved(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// A write in write.
#[derive(Debug)]
struct IndeterminateWrite {
    record: Record,
    /// Under which it was made.
    term: Term,
    _room: Reserved,
}

/// The writes of one lane that are in write, one of a key at most: no other is begun before.
#[derive(Debug, Default)]
pub(crate) struct IndeterminateWrites {
    by_key: BTreeMap<Key, IndeterminateWrite>,
    /// The one that was looked at last.
    last: Option<Key>,
}

impl IndeterminateWrites {
    /// There are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// A write has become one in write.
    pub(crate) fn insert(&mut self, record: Record, term: Term, room: Reserved) {
        self.by_key.insert(record.key.clone(), IndeterminateWrite { record, term, _room: room });
        gauge().increment(1);
    }

    /// What is in doubt of a key, and under which term it was written.
    pub(crate) fn of(&self, key: &Key) -> Option<(&Record, Term)> {
        self.by_key.get(key).map(|write| (&write.record, write.term))
    }

    /// A key's write is settled.
    pub(crate) fn settled(&mut self, key: &Key) {
        if self.by_key.remove(key).is_some() {
            gauge().decrement(1);
        }
    }

    /// One key after another, each in its turn.
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
    metrics::gauge!("shoal_dht_writes_in_doubt")
}
