//! Everything of a ring node that touches the disk: records, and what else a node has to remember.
//!
//! Reads see what is committed, at once. Writes are jobs that one thread runs in turn; a job may look
//! before it writes, so it is also where is decided, in order, who may write what.

mod custody;
mod data_dir;
mod database;
mod digest;
mod error;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod record;
mod txn;
mod writer;

use std::{
    fmt,
    ops::ControlFlow,
    sync::Arc,
    thread::{self, JoinHandle},
};

use shoal_core::ring::{Custody, KeyRange, NodeId, Stamp, Version};
use tokio::sync::watch;

use self::{
    database::{Database, META, RECORDS, ended, parse, scan},
    error::cannot,
    record::place_of,
    writer::{Job, Queue},
};

pub use self::{
    data_dir::DataDir,
    digest::{Digest, Usage, split},
    error::StoreError,
    record::{Key, MAX_KEY_BYTES, MAX_VALUE_BYTES, Record, SizeError, Value},
    txn::{Broken, Merged, Txn},
};

/// The store of a node. Clones are handles to one store.
///
/// Reads are calls into `redb` that wait for no write, and take microseconds: an async handler may
/// make them. Those of many records, as it is said there, belong on a blocking thread.
///
/// The last handle to be dropped waits for the writes that are queued.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    /// None while it is dropped.
    queue: Option<Queue>,
    writer: Option<JoinHandle<()>>,
    database: Arc<Database>,
    custody: watch::Receiver<Arc<Custody>>,
    /// Last, so that the lock is held until the database is closed.
    data_dir: DataDir,
}

impl Store {
    /// Opens the store of a data directory. Reads all records once.
    pub fn open(data_dir: DataDir) -> Result<Self, StoreError> {
        let path = data_dir.database();
        let database = Arc::new(Database::open(&path)?);
        let (publish, custody) =
            watch::channel(Arc::new(custody::load(&database, data_dir.node_id())?));
        let (queue, writer) = writer::start(Arc::clone(&database), publish)
            .map_err(cannot("start the writer of", &path))?;
        let (queue, writer) = (Some(queue), Some(writer));
        Ok(Self { inner: Arc::new(Inner { queue, writer, database, custody, data_dir }) })
    }

    /// The identity of this node, whatever its address.
    pub fn node_id(&self) -> NodeId {
        self.inner.data_dir.node_id()
    }

    /// Has the writer run a job, and waits until what it wrote is on disk.
    ///
    /// Jobs run in turn, each seeing what those before it did: a job looks, decides, writes. What it
    /// wrote is kept whatever it answers. It writes a few MiB at most, since others wait for it.
    ///
    /// Jobs that queue up are committed together or not at all: if one of them panics or the disk
    /// fails, each caller is told, and nothing counts. (If nothing but the fsync failed, it may count
    /// all the same.) A full disk refuses writes until there is room.
    ///
    /// The queue is bounded; while it is full this waits. Of a caller that gives up, the job either
    /// never runs or counts.
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

    /// Returns when the thread that writes is gone: from then on every write fails.
    pub async fn writer_ended(&self) {
        if let Some(queue) = &self.inner.queue {
            queue.closed().await;
        }
    }

    /// What is kept under a key, tombstones and expired records included.
    pub fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        self.database().read(|transaction| {
            let row = transaction.open_table(RECORDS)?.get(&*place_of(key))?;
            row.map(|row| Ok(parse(row.value())?.to_record(key.clone()))).transpose()
        })
    }

    /// What is agreed about who keeps what, as it is on disk.
    pub fn custody(&self) -> Arc<Custody> {
        self.inner.custody.borrow().clone()
    }

    /// What [`Txn::put_meta`] remembered under a name.
    pub fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.database().read(|transaction| {
            let bytes = transaction.open_table(META)?.get(name)?;
            Ok(bytes.map(|bytes| bytes.value().to_vec()))
        })
    }

    /// What is kept in all.
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

    /// What the records of a range amount to, exactly. Reads those of up to two leaves of the
    /// circle's 4,096; the others are summed up already.
    pub fn summary(&self, range: KeyRange) -> Result<Digest, StoreError> {
        self.database().summary(range)
    }

    /// Up to `max` keys of a range and their stamps, clockwise, from the one after `after` on. None
    /// if there are no more. Reads the records: for a blocking thread.
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

    /// Records of a range, clockwise, from the one after `after` on, whose keys and values have about
    /// `max_bytes`: the last may exceed them. None if there are no more. For a blocking thread.
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

    /// Up to `max` tombstones of a range written, and values expired, before `before_ms` (milliseconds
    /// since the Unix epoch): to be purged, by [`Txn::purge`], if no replica can be without them any
    /// more. They come leaf by leaf, clockwise, the oldest of each leaf first: replicas with the same
    /// records of the range get the same, whatever else they hold.
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
        visit: impl FnMut(Key, record::Row<'_>) -> ControlFlow<()>,
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
