//! The disk of a ring node: records, and the other state that has to survive a restart.
//!
//! Reads see committed state immediately. Writes are jobs that one thread runs in order; a job can
//! read before it writes, so conflicts between writers are decided there, in order.

mod data_dir;
mod database;
mod digest;
mod error;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod leaves;
mod node_state;
mod record;
mod row;
mod tables;
mod txn;
mod upgrade;
mod writer;

use std::{
    fmt,
    ops::ControlFlow,
    sync::Arc,
    thread::{self, JoinHandle},
};

use shoal_core::{
    Address,
    ring::{Configurations, KeyRange, NodeId, Stamp, Version},
};
use tokio::sync::watch;

use self::{
    database::{Database, ended, parse, scan},
    node_state::KNOWN_NODES,
    row::{Row, row_key},
    tables::{META, RECORDS},
    writer::{Job, Queue},
};

pub use self::{
    data_dir::DataDir,
    digest::{Digest, Usage},
    error::StoreError,
    leaves::split,
    record::{Key, MAX_KEY_BYTES, MAX_VALUE_BYTES, Record, SizeError, Value},
    txn::{Broken, Merged, Txn},
};

/// The store of a node. Clones are handles to one store.
///
/// Reads are calls into `redb` that wait for no write and take microseconds: an async handler may
/// make them. Reads of many records belong on a blocking thread, as their documentation says.
///
/// Dropping the last handle waits for the queued writes.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    /// None while it is dropped.
    queue: Option<Queue>,
    writer: Option<JoinHandle<()>>,
    database: Arc<Database>,
    configurations: watch::Receiver<Arc<Configurations>>,
    /// Last, so that the lock is held until the database is closed.
    data_dir: DataDir,
}

impl Store {
    /// Opens the store of a data directory. Reads all records once.
    pub fn open(data_dir: DataDir) -> Result<Self, StoreError> {
        let path = data_dir.database();
        let database = Arc::new(Database::open(&path)?);
        let (publish, configurations) = watch::channel(Arc::new(node_state::load_configurations(
            &database,
            data_dir.node_id(),
        )?));
        let (queue, writer) = writer::start(Arc::clone(&database), publish)
            .map_err(|error| StoreError::io("start the writer of", &path, error))?;
        let (queue, writer) = (Some(queue), Some(writer));
        Ok(Self { inner: Arc::new(Inner { queue, writer, database, configurations, data_dir }) })
    }

    /// The identity of this node, whatever its address.
    pub fn node_id(&self) -> NodeId {
        self.inner.data_dir.node_id()
    }

    /// Has the writer run a job, and waits until its writes are on disk.
    ///
    /// Jobs run in order, and each sees the effects of earlier ones: a job reads, decides, and
    /// writes. Its writes are kept whatever it returns. It should write a few MiB at most, because
    /// other jobs wait for it.
    ///
    /// Queued jobs are committed together or not at all: if one of them panics or the disk fails,
    /// each caller gets an error, and nothing is kept. (If only the fsync failed, it may be kept
    /// all the same.) A full disk refuses writes until there is room.
    ///
    /// The queue is bounded; this waits while it is full. If the caller gives up, the job either
    /// never runs or is kept.
    pub async fn write<R, F>(&self, job: F) -> Result<R, StoreError>
    where
        F: FnOnce(&mut Txn<'_>) -> Result<R, Broken> + Send + 'static,
        R: Send + 'static,
    {
        let (job, answer) = Job::new(job);
        let queue = self.inner.queue.as_ref().ok_or(StoreError::Closed)?;
        queue.send(Box::new(job)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// Returns when the writer thread has ended: all later writes fail.
    pub async fn writer_ended(&self) {
        if let Some(queue) = &self.inner.queue {
            queue.closed().await;
        }
    }

    /// The record of a key, which may be a tombstone or expired.
    pub fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        self.database().read(|transaction| {
            let row = transaction.open_table(RECORDS)?.get(&*row_key(key))?;
            row.map(|row| Ok(parse(row.value())?.to_record(key.clone()))).transpose()
        })
    }

    /// The agreed replica sets, as they are on disk.
    pub fn configurations(&self) -> Arc<Configurations> {
        self.inner.configurations.borrow().clone()
    }

    /// The value that [`Txn::put_meta`] stored under a name.
    pub fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.database().read(|transaction| {
            let bytes = transaction.open_table(META)?.get(name)?;
            Ok(bytes.map(|bytes| bytes.value().to_vec()))
        })
    }

    /// The addresses of the nodes that [`Txn::put_known_nodes`] stored.
    pub fn known_nodes(&self) -> Result<Vec<Address>, StoreError> {
        let bytes = self.meta(KNOWN_NODES)?.unwrap_or_default();
        Ok(node_state::parse_nodes(&bytes))
    }

    /// Totals of the store.
    pub fn usage(&self) -> Usage {
        self.database().tree().usage()
    }

    /// Records, tombstones and expired ones included.
    pub fn record_count(&self) -> u64 {
        self.usage().records
    }

    /// Records that hold a value, expired ones included.
    pub fn live_count(&self) -> u64 {
        let Usage { records, tombstones, .. } = self.usage();
        records - tombstones
    }

    /// The exact digest of the records of a range. Reads the records of up to two of the circle's
    /// 4,096 leaves; the others are already summed up.
    pub fn digest(&self, range: KeyRange) -> Result<Digest, StoreError> {
        self.database().digest(range)
    }

    /// Up to `max` keys of a range with their stamps, clockwise after `after`; empty if there are
    /// no more. Reads the records: for a blocking thread.
    pub fn stamps(
        &self,
        range: KeyRange,
        after: Option<&Key>,
        max: usize,
    ) -> Result<Vec<(Key, Stamp)>, StoreError> {
        let mut stamps = Vec::new();
        self.scan(range, after, |key, row| {
            if stamps.len() == max {
                return ControlFlow::Break(());
            }
            stamps.push((key, row.stamp));
            ControlFlow::Continue(())
        })?;
        Ok(stamps)
    }

    /// Records of a range, clockwise after `after`, until their keys and values reach `max_bytes`;
    /// empty if there are no more. For a blocking thread.
    pub fn records(
        &self,
        range: KeyRange,
        after: Option<&Key>,
        max_bytes: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let mut records = Vec::new();
        let mut bytes = 0;
        self.scan(range, after, |key, row| {
            bytes += key.as_bytes().len() + row.value.map_or(0, <[u8]>::len);
            records.push(row.to_record(key));
            if bytes < max_bytes { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(records)
    }

    /// Up to `max` tombstones of a range written before `before_ms`, and values that expired before
    /// it (milliseconds since the Unix epoch). [`Txn::purge`] removes them once every replica has
    /// them. They are returned leaf by leaf, clockwise, the oldest of each leaf first: replicas
    /// with the same records of the range get the same ones, whatever else they hold.
    pub fn purgeable(
        &self,
        range: KeyRange,
        before_ms: u64,
        max: usize,
    ) -> Result<Vec<(Key, Version)>, StoreError> {
        self.database().read(|transaction| ended(transaction, range, before_ms, max))
    }

    fn scan(
        &self,
        range: KeyRange,
        after: Option<&Key>,
        visit: impl FnMut(Key, Row<'_>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.database().read(|transaction| scan(transaction, range, after, visit))
    }

    fn database(&self) -> &Database {
        &self.inner.database
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("node_id", &self.node_id()).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue = None;
        let Some(writer) = self.writer.take() else { return };
        // A job may hold the last handle: the writer cannot wait for itself.
        if writer.thread().id() != thread::current().id() {
            // It catches panics.
            let _ = writer.join();
        }
    }
}
