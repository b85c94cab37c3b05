//! A batch of writes before it is committed, as a job sees it.

use std::{cmp::Ordering, sync::Arc};

use redb::{ReadableTable as _, Table, WriteTransaction};
use shoal_core::ring::{Configurations, Contact, KeyRange, Stamp, Version};

use super::{
    Key, Record, StoreError,
    database::{Database, as_slice, bounds_of, parse},
    digest::Change,
    error::Fault,
    leaves::{leaf_of, spans},
    node_state::{self, CONFIGURATIONS, KNOWN_NODES},
    row::{Row, RowInfo, end_of, parse_row_key, row_key},
    tables::{BATCH, ENDS, META, RECORDS},
};

/// The batch cannot be committed: the job gives up, and all callers of the batch get the reason.
#[derive(Debug)]
pub struct Broken(());

/// The outcome of storing a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged {
    /// It is the last write of its key, and was stored.
    Stored,
    /// The store holds a later write, with this stamp.
    Older(Stamp),
    /// The store holds this very write.
    Same,
}

/// A batch of writes. A job sees the effects of earlier jobs, committed or not.
pub struct Txn<'t> {
    database: &'t Database,
    transaction: &'t WriteTransaction,
    records: Table<'t, &'static [u8], &'static [u8]>,
    ends: Table<'t, &'static [u8], &'static [u8; Version::BYTES]>,
    meta: Table<'t, &'static str, &'static [u8]>,
    /// As it was before the batch.
    configurations_before: Arc<Configurations>,
    configurations: Arc<Configurations>,
    written: Written,
    is_changed: bool,
    failure: Option<StoreError>,
}

/// The changes of a batch.
#[derive(Default)]
pub(super) struct Written {
    pub(super) changes: Vec<Change>,
    pub(super) records: u64,
    pub(super) bytes: usize,
    /// The agreed replica sets, if they changed.
    pub(super) configurations: Option<Arc<Configurations>>,
}

impl<'t> Txn<'t> {
    pub(super) fn begin(
        database: &'t Database,
        transaction: &'t WriteTransaction,
        configurations: Arc<Configurations>,
    ) -> Result<Self, Fault> {
        Ok(Self {
            database,
            transaction,
            records: transaction.open_table(RECORDS)?,
            ends: transaction.open_table(ENDS)?,
            meta: transaction.open_table(META)?,
            configurations_before: configurations.clone(),
            configurations,
            written: Written::default(),
            is_changed: false,
            failure: None,
        })
    }

    /// Bytes written so far.
    pub(super) const fn bytes(&self) -> usize {
        self.written.bytes
    }

    /// The jobs are finished: returns their changes, if there are any and nothing failed.
    pub(super) fn finish(mut self) -> Result<Option<Written>, StoreError> {
        if self.configurations != self.configurations_before {
            let bytes = node_state::encode_configurations(&self.configurations);
            let _ = self.put_meta(CONFIGURATIONS, &bytes);
            self.written.configurations = Some(self.configurations.clone());
        }
        if self.is_changed {
            let batch = self.database.tree().batch() + 1;
            let _ = self.attempt(|txn| {
                txn.transaction.open_table(BATCH)?.insert((), batch)?;
                Ok(())
            });
        }
        match self.failure {
            Some(failure) => Err(failure),
            None => Ok(self.is_changed.then_some(self.written)),
        }
    }

    /// Whether something failed.
    pub(super) const fn is_broken(&self) -> bool {
        self.failure.is_some()
    }

    /// The agreed replica sets, to read and to change.
    pub fn configurations(&mut self) -> &mut Configurations {
        Arc::make_mut(&mut self.configurations)
    }

    /// The record of a key, which may be a tombstone or expired.
    pub fn get(&mut self, key: &Key) -> Result<Option<Record>, Broken> {
        self.attempt(|txn| {
            let Some(row) = txn.records.get(&*row_key(key))? else { return Ok(None) };
            Ok(Some(parse(row.value())?.to_record(key.clone())))
        })
    }

    /// Stores a record if it is newer than the present one: the last writer wins.
    pub fn merge(&mut self, record: &Record) -> Result<Merged, Broken> {
        self.attempt(|txn| {
            let at = row_key(&record.key);
            let before = txn.before(&at)?;
            if let Some(before) = before {
                match record.stamp.cmp(&before.stamp) {
                    Ordering::Less => return Ok(Merged::Older(before.stamp)),
                    Ordering::Equal => return Ok(Merged::Same),
                    Ordering::Greater => {}
                }
            }
            txn.replace(&record.key, &at, before, Some(record.row()))?;
            txn.written.records += 1;
            Ok(Merged::Stored)
        })
    }

    /// Purges a key, if its last write still has this version: a tombstone or an expired value that
    /// every replica has. Returns whether it was purged.
    pub fn purge(&mut self, key: &Key, version: Version) -> Result<bool, Broken> {
        self.attempt(|txn| {
            let at = row_key(key);
            let before = txn.before(&at)?;
            let is_there = before.is_some_and(|before| before.stamp.version == version);
            if is_there {
                txn.replace(key, &at, before, None)?;
            }
            Ok(is_there)
        })
    }

    /// Discards up to `max` records of a range that this node no longer keeps, and returns how
    /// many: fewer than `max` if none is left. A long range is discarded by several jobs, so that
    /// others have a turn.
    pub fn discard(&mut self, range: KeyRange, max: usize) -> Result<usize, Broken> {
        self.attempt(|txn| {
            let mut row_keys = Vec::new();
            for span in spans(range) {
                let (from, to) = bounds_of(span);
                let left = max - row_keys.len();
                let found = txn.records.range::<&[u8]>((as_slice(&from), as_slice(&to)))?;
                for entry in found.take(left) {
                    row_keys.push(entry?.0.value().to_vec());
                }
            }
            for at in &row_keys {
                let before = txn.before(at)?;
                let (_, key) = parse_row_key(at).ok_or(Fault::UNREADABLE_KEY)?;
                txn.replace(&key, at, before, None)?;
            }
            Ok(row_keys.len())
        })
    }

    /// The value stored under a name.
    pub fn meta(&mut self, name: &str) -> Result<Option<Vec<u8>>, Broken> {
        self.attempt(|txn| Ok(txn.meta.get(name)?.map(|bytes| bytes.value().to_vec())))
    }

    /// Stores a small value under a name, replacing the present one.
    pub fn put_meta(&mut self, name: &str, bytes: &[u8]) -> Result<(), Broken> {
        self.attempt(|txn| {
            txn.meta.insert(name, bytes)?;
            txn.written.bytes += name.len() + bytes.len();
            txn.is_changed = true;
            Ok(())
        })
    }

    /// Stores the nodes through which this node rejoins the ring, replacing those stored before.
    pub fn put_known_nodes(&mut self, nodes: &[Contact]) -> Result<(), Broken> {
        self.put_meta(KNOWN_NODES, &node_state::encode_nodes(nodes))
    }

    fn attempt<T>(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<T, Fault>,
    ) -> Result<T, Broken> {
        if self.failure.is_some() {
            return Err(Broken(()));
        }
        step(self).map_err(|fault| {
            self.failure = Some(StoreError::database(self.database.path(), fault));
            Broken(())
        })
    }

    /// The record of a row key.
    fn before(&self, row_key: &[u8]) -> Result<Option<RowInfo>, Fault> {
        let row = self.records.get(row_key)?;
        row.map(|row| Ok(parse(row.value())?.info())).transpose()
    }

    fn replace(
        &mut self,
        key: &Key,
        row_key: &[u8],
        before: Option<RowInfo>,
        after: Option<Row<'_>>,
    ) -> Result<(), Fault> {
        let leaf = leaf_of(key.position().to_u128());
        if let Some(ends_ms) = before.and_then(|before| before.ends_ms) {
            self.ends.remove(&*end_of(leaf, ends_ms, row_key))?;
        }
        let info = after.map(|row| row.info());
        if let Some(RowInfo { stamp, ends_ms: Some(ends_ms), .. }) = info {
            self.ends.insert(&*end_of(leaf, ends_ms, row_key), &stamp.version.to_bytes())?;
        }
        let row = after.map(|row| row.encode());
        match &row {
            Some(row) => drop(self.records.insert(row_key, &**row)?),
            None => drop(self.records.remove(row_key)?),
        }
        self.written.bytes += row_key.len() + row.map_or(0, |row| row.len());
        self.written.changes.push(Change::new(key, before, info));
        self.is_changed = true;
        Ok(())
    }
}
