//! Digests: two nodes compare them to find where their records differ, without sending the records.
//!
//! The records of a leaf are summed up in memory by an operation whose order does not matter, so
//! that a write changes one sum. Parts of a leaf are summed up from the database.

use std::{
    mem::take,
    ops::{AddAssign, Range},
};

use shoal_core::ring::{Position, Stamp};

use super::{
    leaves::{LEAVES, leaf_of},
    record::Key,
    row::{RowInfo, footprint},
};

/// The digest of a set of records: two nodes that hold the same keys with the same stamps have the
/// same digest, in whatever order they received them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// The XOR, over all records, of the first 128 bits of BLAKE3(epoch, version, key). The epoch
    /// has 8 bytes, big-endian, and the version is
    /// [`Version::to_bytes`](shoal_core::ring::Version::to_bytes).
    pub hash: u128,
    /// Records, tombstones and expired ones included.
    pub count: u64,
}

impl Digest {
    /// The digest of one record.
    pub(super) fn of(key: &[u8], Stamp { epoch, version }: Stamp) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&epoch.to_be_bytes()).update(&version.to_bytes()).update(key);
        let hash = hasher.finalize();
        let (first, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
        Self { hash: u128::from_be_bytes(*first), count: 1 }
    }
}

impl AddAssign for Digest {
    fn add_assign(&mut self, other: Self) {
        self.hash ^= other.hash;
        self.count += other.count;
    }
}

/// The change that a write made to one leaf.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    leaf: u16,
    /// The XOR of the removed and the added record.
    hash: u128,
    records: i64,
    tombstones: i64,
    bytes: i64,
}

/// Totals of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Records, tombstones and expired ones included.
    pub records: u64,
    /// Of those, tombstones.
    pub tombstones: u64,
    /// Approximate bytes on disk: [`Record::footprint`](super::Record::footprint) of all records.
    pub bytes: u64,
}

impl Change {
    /// A record was added, removed or replaced.
    pub(super) fn new(key: &Key, before: Option<RowInfo>, after: Option<RowInfo>) -> Self {
        let hash = |info: Option<RowInfo>| {
            info.map_or(0, |info| Digest::of(key.as_bytes(), info.stamp).hash)
        };
        let records = |info: Option<RowInfo>| i64::from(info.is_some());
        let tombstones =
            |info: Option<RowInfo>| i64::from(info.is_some_and(|info| info.is_tombstone));
        let bytes = |info: Option<RowInfo>| {
            info.map_or(0, |info| footprint(key.as_bytes().len(), info.row_bytes).cast_signed())
        };
        Self {
            leaf: leaf_of(key.position().to_u128()) as u16,
            hash: hash(before) ^ hash(after),
            records: records(after) - records(before),
            tombstones: tombstones(after) - tombstones(before),
            bytes: bytes(after) - bytes(before),
        }
    }
}

/// The sums of all leaves after a batch of writes.
pub(super) struct Tree {
    leaves: Vec<Digest>,
    usage: Usage,
    /// The last batch that is included.
    batch: u64,
    /// The changes of the next batch, which may be committed already, or never.
    pending: Vec<Change>,
}

impl Tree {
    /// Without records.
    pub(super) fn new(batch: u64) -> Self {
        let leaves = vec![Digest::default(); LEAVES];
        Self { leaves, usage: Usage::default(), batch, pending: Vec::new() }
    }

    /// Adds an existing record.
    pub(super) fn count(&mut self, position: Position, key: &Key, info: RowInfo) {
        self.leaves[leaf_of(position.to_u128())] += Digest::of(key.as_bytes(), info.stamp);
        self.usage.records += 1;
        self.usage.tombstones += u64::from(info.is_tombstone);
        self.usage.bytes += footprint(key.as_bytes().len(), info.row_bytes);
    }

    /// The last batch that is included.
    pub(super) const fn batch(&self) -> u64 {
        self.batch
    }

    /// The totals.
    pub(super) const fn usage(&self) -> Usage {
        self.usage
    }

    /// Records the changes of the next batch before it is committed.
    pub(super) fn prepare(&mut self, changes: Vec<Change>) {
        self.pending = changes;
    }

    /// The prepared batch was committed.
    pub(super) fn apply(&mut self) {
        for change in take(&mut self.pending) {
            let leaf = &mut self.leaves[usize::from(change.leaf)];
            leaf.hash ^= change.hash;
            leaf.count = added(leaf.count, change.records);
            let Usage { records, tombstones, bytes } = &mut self.usage;
            *records = added(*records, change.records);
            *tombstones = added(*tombstones, change.tombstones);
            *bytes = added(*bytes, change.bytes);
        }
        self.batch += 1;
    }

    /// The sum of some leaves after a batch; none if that batch is too old.
    pub(super) fn sum(&self, leaves: Range<usize>, batch: u64) -> Option<Digest> {
        let pending = match batch.checked_sub(self.batch)? {
            0 => &[][..],
            // A reader sees the commit a moment before the writer applies it.
            _ => &self.pending,
        };
        let mut sum = Digest::default();
        self.leaves[leaves.clone()].iter().for_each(|leaf| sum += *leaf);
        for change in pending.iter().filter(|change| leaves.contains(&usize::from(change.leaf))) {
            sum.hash ^= change.hash;
            sum.count = added(sum.count, change.records);
        }
        Some(sum)
    }
}

fn added(count: u64, change: i64) -> u64 {
    count.checked_add_signed(change).expect("no more records go than are there")
}
