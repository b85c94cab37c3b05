//! The records of a node in one `redb` file, and their sums.

use std::{
    fs::File,
    mem,
    ops::{Bound, ControlFlow},
    path::{Path, PathBuf},
};

use redb::{
    ReadTransaction, ReadableDatabase as _, ReadableTable as _, TableError, WriteTransaction,
};
use rustix::fs::Advice;
use shoal_common::lock::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use shoal_core::ring::{KeyRange, Version};

use super::{
    StoreError,
    digest::{Digest, Tree},
    error::Fault,
    leaves::{Span, cover, leaf_of, spans},
    record::Key,
    row::{POSITION_BYTES, Row, end_of, parse_end, parse_row_key, row_key},
    tables::{BATCH, ENDS, META, RECORDS},
    upgrade,
};

/// redb would use 1 GiB.
const CACHE_BYTES: usize = 8 << 20;

/// A bound among row keys.
type RowKeyBound = Bound<Vec<u8>>;

/// The database and its sums. A disk error closes redb permanently: it is then reopened, and is
/// unavailable until then.
pub(super) struct Database {
    path: PathBuf,
    redb: RwLock<Result<redb::Database, StoreError>>,
    tree: RwLock<Tree>,
}

impl Database {
    /// Opens or creates the file, and sums it up.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let (redb, tree) = open(path).map_err(|fault| StoreError::database(path, fault))?;
        Ok(Self { path: path.to_owned(), redb: RwLock::new(Ok(redb)), tree: RwLock::new(tree) })
    }

    /// Reopens and sums up the file: only this tells what is committed. Readers are told to try
    /// again in the meantime.
    pub(super) fn reopen(&self) -> Result<(), StoreError> {
        let closed = Err(StoreError::Reopening(self.path.clone()));
        let old = mem::replace(&mut *self.redb.write(), closed);
        drop(old);
        forget_cached(&self.path);
        match open(&self.path) {
            Ok((redb, tree)) => {
                *self.tree.write() = tree;
                *self.redb.write() = Ok(redb);
                Ok(())
            }
            Err(fault) => {
                let error = StoreError::database(&self.path, fault);
                *self.redb.write() = Err(error.clone());
                Err(error)
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn tree(&self) -> RwLockReadGuard<'_, Tree> {
        self.tree.read()
    }

    pub(super) fn tree_mut(&self) -> RwLockWriteGuard<'_, Tree> {
        self.tree.write()
    }

    /// Begins a write transaction. For one thread.
    pub(super) fn begin_write(&self) -> Result<WriteTransaction, StoreError> {
        let redb = self.redb.read();
        let redb = redb.as_ref().map_err(Clone::clone)?;
        redb.begin_write().map_err(|error| StoreError::database(&self.path, error))
    }

    /// Reads committed state.
    pub(super) fn read<T>(
        &self,
        look: impl FnOnce(&ReadTransaction) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let begun = self.redb.read().as_ref().map_err(Clone::clone)?.begin_read();
        let looked = begun.map_err(Fault::from).and_then(|transaction| look(&transaction));
        looked.map_err(|fault| StoreError::database(&self.path, fault))
    }

    /// The digest of the records of a range.
    pub(super) fn digest(&self, range: KeyRange) -> Result<Digest, StoreError> {
        loop {
            // Repeated only if a batch was committed between the first two steps of a digest.
            if let Some(sum) = self.read(|transaction| self.sum(transaction, range))? {
                return Ok(sum);
            }
        }
    }

    fn sum(&self, transaction: &ReadTransaction, range: KeyRange) -> Result<Option<Digest>, Fault> {
        let batch = batch_of(transaction)?;
        let mut sum = Digest::default();
        let mut ends = Vec::new();
        let tree = self.tree();
        for span in spans(range) {
            let (leaves, rest) = cover(span);
            let Some(whole) = tree.sum(leaves, batch) else { return Ok(None) };
            sum += whole;
            ends.extend(rest);
        }
        drop(tree);
        for end in ends {
            walk(transaction, [bounds_of(end)], |key, row| {
                let (_, key) = key.split_at_checked(POSITION_BYTES).ok_or(Fault::UNREADABLE_KEY)?;
                sum += Digest::of(key, row.stamp);
                Ok(ControlFlow::Continue(()))
            })?;
        }
        Ok(Some(sum))
    }
}

/// Visits the records of a range, clockwise after `after`. A key outside the range is ignored.
pub(super) fn scan(
    transaction: &ReadTransaction,
    range: KeyRange,
    after: Option<&Key>,
    mut visit: impl FnMut(Key, Row<'_>) -> ControlFlow<()>,
) -> Result<(), Fault> {
    let mut bounds: Vec<_> = spans(range).map(bounds_of).collect();
    if let Some(after) = after {
        let position = after.position();
        if let Some(begun) = spans(range).position(|span| span.contains(position)) {
            bounds.drain(..begun);
            bounds[0].0 = Bound::Excluded(row_key(after));
        }
    }
    walk(transaction, bounds, |key, row| {
        let (_, key) = parse_row_key(key).ok_or(Fault::UNREADABLE_KEY)?;
        Ok(visit(key, row))
    })
}

fn walk(
    transaction: &ReadTransaction,
    bounds: impl IntoIterator<Item = (RowKeyBound, RowKeyBound)>,
    mut visit: impl FnMut(&[u8], Row<'_>) -> Result<ControlFlow<()>, Fault>,
) -> Result<(), Fault> {
    let table = transaction.open_table(RECORDS)?;
    for (from, to) in bounds {
        for entry in table.range::<&[u8]>((as_slice(&from), as_slice(&to)))? {
            let (key, row) = entry?;
            if visit(key.value(), parse(row.value())?)?.is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Records of a range that ended before `before_ms`, at most `max`, leaf by leaf.
pub(super) fn ended(
    transaction: &ReadTransaction,
    range: KeyRange,
    before_ms: u64,
    max: usize,
) -> Result<Vec<(Key, Version)>, Fault> {
    let ends = transaction.open_table(ENDS)?;
    let mut found = Vec::new();
    for span in spans(range) {
        let mut leaf = leaf_of(span.first);
        // Leaves without ends cost nothing.
        while let Some(next) = ends.range::<&[u8]>(&*end_of(leaf, 0, &[])..)?.next() {
            let (next_leaf, ..) = parse_end(next?.0.value()).ok_or(Fault::UNREADABLE_KEY)?;
            leaf = next_leaf;
            if leaf > leaf_of(span.last) {
                break;
            }
            let (from, to) = (end_of(leaf, 0, &[]), end_of(leaf, before_ms, &[]));
            for entry in ends.range::<&[u8]>(&*from..&*to)? {
                if found.len() == max {
                    return Ok(found);
                }
                let (end, version) = entry?;
                let (_, position, key) = parse_end(end.value()).ok_or(Fault::UNREADABLE_KEY)?;
                if span.contains(position) {
                    found.push((key, Version::from_bytes(version.value())));
                }
            }
            leaf += 1;
        }
    }
    Ok(found)
}

/// The row keys of a span.
pub(super) fn bounds_of(span: Span) -> (RowKeyBound, RowKeyBound) {
    let to = span.last.checked_add(1);
    let first = |position: u128| position.to_be_bytes().to_vec();
    let to = to.map_or(Bound::Unbounded, |to| Bound::Excluded(first(to)));
    (Bound::Included(first(span.first)), to)
}

pub(super) fn as_slice(bound: &RowKeyBound) -> Bound<&[u8]> {
    bound.as_ref().map(Vec::as_slice)
}

pub(super) fn parse(row: &[u8]) -> Result<Row<'_>, Fault> {
    Row::parse(row).ok_or(Fault::UNREADABLE_RECORD)
}

fn batch_of(transaction: &ReadTransaction) -> Result<u64, Fault> {
    let batch = transaction.open_table(BATCH)?.get(())?;
    batch.map(|batch| batch.value()).ok_or(Fault::Damaged("no number of the last batch"))
}

fn open(path: &Path) -> Result<(redb::Database, Tree), Fault> {
    let redb = redb::Builder::new().set_cache_size(CACHE_BYTES).create(path)?;
    // Not at every start: otherwise a full disk could not be opened.
    if let Err(TableError::TableDoesNotExist(_)) = redb.begin_read()?.open_table(BATCH) {
        create_tables(&redb)?;
    }
    upgrade::upgrade(&redb)?;
    let tree = sum_up(&redb.begin_read()?)?;
    Ok((redb, tree))
}

fn create_tables(redb: &redb::Database) -> Result<(), Fault> {
    let transaction = redb.begin_write()?;
    transaction.open_table(RECORDS)?;
    transaction.open_table(ENDS)?;
    transaction.open_table(META)?;
    transaction.open_table(BATCH)?.insert((), 0)?;
    Ok(transaction.commit()?)
}

fn sum_up(transaction: &ReadTransaction) -> Result<Tree, Fault> {
    let mut tree = Tree::new(batch_of(transaction)?);
    for entry in transaction.open_table(RECORDS)?.iter()? {
        let (key, row) = entry?;
        let (position, key) = parse_row_key(key.value()).ok_or(Fault::UNREADABLE_KEY)?;
        tree.count(position, &key, parse(row.value())?.info());
    }
    Ok(tree)
}

/// Makes the next reads go to the disk. Pages that an fsync failed to write may still be in memory,
/// as if they had been written (Rebello et al., "Can Applications Recover from fsync Failures?",
/// ATC 2020).
fn forget_cached(path: &Path) {
    // If that is not possible, memory is the only source.
    let _ = File::open(path).map(|file| rustix::fs::fadvise(file, 0, None, Advice::DontNeed));
}
