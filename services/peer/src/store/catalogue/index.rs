//! The contents of a store, in memory.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Weak},
};

use shoal_common::clock::unix_ms;
use shoal_core::content::{ContentId, Descriptor};

use crate::store::content::Stored;

/// What a store knows about a content without opening it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: Vec<u8>,
    /// Bytes of its blobs.
    pub total_bytes: u64,
    /// Bytes that it takes on disk when it is complete.
    pub stored_bytes: u64,
    /// Pieces of its manifest and its blobs.
    pub piece_count: u32,
    /// It is never evicted.
    pub pinned: bool,
    /// Milliseconds since 1970 when it was added.
    pub added_unix_ms: u64,
    /// Milliseconds since 1970 when it was last read or written.
    pub last_used_unix_ms: u64,
    /// The path of its files, if they belong to others.
    pub in_place: Option<PathBuf>,
}

impl Entry {
    /// The entry of a content that is being added.
    pub(super) fn new(descriptor: &Descriptor, in_place: Option<PathBuf>) -> Self {
        let now = unix_ms();
        Self {
            name: descriptor.name().to_vec(),
            total_bytes: descriptor.blob_bytes(),
            stored_bytes: descriptor.disk_bytes(),
            piece_count: descriptor.piece_count(),
            pinned: false,
            added_unix_ms: now,
            last_used_unix_ms: now,
            in_place,
        }
    }
}

/// The contents of a store, those that are open, and the reserved bytes.
#[derive(Debug, Default)]
pub(in crate::store) struct Index {
    pub(super) entries: BTreeMap<ContentId, Entry>,
    pub(super) opened: BTreeMap<ContentId, Weak<Stored>>,
    /// Bytes of all reservations.
    pub(super) reserved: u64,
    /// Of these, bytes that are not on the disk yet.
    pub(super) unwritten: u64,
}

impl Index {
    pub(super) fn new(entries: BTreeMap<ContentId, Entry>) -> Self {
        Self { entries, ..Self::default() }
    }

    pub(super) fn entry(&self, id: ContentId) -> Option<Entry> {
        self.entries.get(&id).cloned()
    }

    /// The content, if it is open.
    pub(super) fn opened(&self, id: ContentId) -> Option<Arc<Stored>> {
        self.opened.get(&id).and_then(Weak::upgrade)
    }

    pub(super) fn insert(&mut self, id: ContentId, entry: Entry, stored: &Arc<Stored>) {
        self.entries.insert(id, entry);
        self.opened.insert(id, Arc::downgrade(stored));
    }

    /// Removes a content, and returns it if it is open.
    pub(super) fn remove(&mut self, id: ContentId) -> Option<Arc<Stored>> {
        self.entries.remove(&id);
        self.opened.remove(&id).and_then(|opened| opened.upgrade())
    }

    /// Bytes that count towards the quota. Strangers choose the sizes, so that their sum may
    /// overflow.
    pub(super) fn used_bytes(&self) -> u64 {
        let ours = self.entries.values().filter(|entry| entry.in_place.is_none());
        ours.map(|entry| entry.stored_bytes).fold(self.reserved, u64::saturating_add)
    }
}
