//! The single writer: an OS thread that runs jobs in order and commits many at once.
//!
//! A commit costs an fsync, whatever its size. Jobs that queue up during a commit share the next
//! one. A caller is answered when the commit of its job is on disk.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use redb::WriteTransaction;
use shoal_core::ring::Configurations;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info};

use super::{
    StoreError, Usage,
    database::Database,
    txn::{Broken, Txn, Written},
};

/// Jobs that wait, at most; the next caller waits for room, so that a slow disk slows down its
/// writers. Together they hold 32 MiB of values at most.
const QUEUE: usize = 512;

/// Jobs of one commit: the last jobs of a full queue wait for two commits, not more.
const MAX_JOBS: usize = QUEUE;

/// Bytes after which a batch takes no more jobs. redb buffers half of its cache of 8 MiB, and would
/// write pages before the commit.
const MAX_BYTES: usize = 4 << 20;

/// After a disk error, writes are refused for this long, unless room appears earlier: each failed
/// attempt reads the whole database again.
const PAUSE: Duration = Duration::from_secs(10);

/// This many more free bytes than when the disk was full count as room.
const ROOM_BYTES: u64 = 1 << 20;

/// A job in the queue, and its caller.
pub(super) trait Work: Send {
    fn run(&mut self, txn: &mut Txn<'_>);
    fn answer(self: Box<Self>, outcome: Result<(), StoreError>);
}

/// Sends jobs to the writer.
pub(super) type Queue = mpsc::Sender<Box<dyn Work>>;

pub(super) struct Job<F, R> {
    run: Option<F>,
    done: Option<R>,
    reply: oneshot::Sender<Result<R, StoreError>>,
}

impl<F, R> Job<F, R> {
    pub(super) fn new(run: F) -> (Self, oneshot::Receiver<Result<R, StoreError>>) {
        let (reply, answer) = oneshot::channel();
        (Self { run: Some(run), done: None, reply }, answer)
    }
}

impl<F, R> Work for Job<F, R>
where
    F: FnOnce(&mut Txn<'_>) -> Result<R, Broken> + Send,
    R: Send,
{
    fn run(&mut self, txn: &mut Txn<'_>) {
        // No caller waits any more: a job that was given up before its turn does not run.
        if let Some(run) = self.run.take().filter(|_| !self.reply.is_closed()) {
            self.done = run(txn).ok();
        }
    }

    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Self { done, reply, .. } = *self;
        // The caller may have given up; its write is kept all the same.
        let _ = reply.send(outcome.and_then(|()| done.ok_or(StoreError::Aborted)));
    }
}

/// Why and since when writes are refused.
struct Pause {
    error: StoreError,
    since: Instant,
    free_bytes: Option<u64>,
}

impl Pause {
    fn is_over(&self, now: Instant, free_bytes: Option<u64>) -> bool {
        let has_room =
            free_bytes.zip(self.free_bytes).is_some_and(|(now, then)| now >= then + ROOM_BYTES);
        has_room || now.duration_since(self.since) >= PAUSE
    }
}

/// Starts the writer. It ends when its queue is closed and empty.
pub(super) fn start(
    database: Arc<Database>,
    configurations: watch::Sender<Arc<Configurations>>,
) -> io::Result<(Queue, JoinHandle<()>)> {
    let (sender, queue) = mpsc::channel(QUEUE);
    report_counts(&database);
    let writer = Writer { database, configurations, queue, pause: None };
    let thread = thread::Builder::new().name("store-writer".to_owned());
    Ok((sender, thread.spawn(move || writer.run())?))
}

struct Writer {
    database: Arc<Database>,
    /// As on disk.
    configurations: watch::Sender<Arc<Configurations>>,
    queue: mpsc::Receiver<Box<dyn Work>>,
    pause: Option<Pause>,
}

impl Writer {
    fn run(mut self) {
        let mut batch = Vec::new();
        while let Some(first) = self.queue.blocking_recv() {
            batch.push(first);
            let written = catch_unwind(AssertUnwindSafe(|| self.write(&mut batch)));
            let outcome = written.unwrap_or_else(|_| {
                self.recover(&StoreError::Aborted);
                Err(StoreError::Aborted)
            });
            batch.drain(..).for_each(|work: Box<dyn Work>| work.answer(outcome.clone()));
        }
    }

    /// Runs and commits a batch: the job that is there, and the jobs that queue up.
    fn write(&mut self, batch: &mut Vec<Box<dyn Work>>) -> Result<(), StoreError> {
        self.check_pause()?;
        let database = Arc::clone(&self.database);
        let transaction = self.begin()?;
        match self.fill(&database, &transaction, batch) {
            Ok(Some(written)) => self.commit(transaction, written),
            Ok(None) => Ok(()),
            Err(error) => {
                // A rollback fails if the disk has failed.
                if transaction.abort().is_err() {
                    self.recover(&error);
                }
                Err(error)
            }
        }
    }

    fn check_pause(&mut self) -> Result<(), StoreError> {
        let free_bytes = free_bytes(self.database.path());
        match &self.pause {
            Some(pause) if !pause.is_over(Instant::now(), free_bytes) => Err(pause.error.clone()),
            _ => Ok(()),
        }
    }

    /// A failed read may have closed the database since the last batch.
    fn begin(&mut self) -> Result<WriteTransaction, StoreError> {
        self.database.begin_write().or_else(|error| {
            self.recover(&error);
            self.database.begin_write()
        })
    }

    fn fill(
        &mut self,
        database: &Database,
        transaction: &WriteTransaction,
        batch: &mut Vec<Box<dyn Work>>,
    ) -> Result<Option<Written>, StoreError> {
        let configurations = self.configurations.borrow().clone();
        let mut txn = Txn::begin(database, transaction, configurations)
            .map_err(|fault| StoreError::database(database.path(), fault))?;
        let mut begun = 0;
        while let Some(work) = batch.get_mut(begun) {
            begun += 1;
            if catch_unwind(AssertUnwindSafe(|| work.run(&mut txn))).is_err() {
                error!("a job of the store panicked; its batch is dropped");
                return Err(StoreError::Aborted);
            }
            let has_room = begun < MAX_JOBS && txn.bytes() < MAX_BYTES && !txn.is_broken();
            if let Some(next) = has_room.then(|| self.queue.try_recv().ok()).flatten() {
                batch.push(next);
            }
        }
        txn.finish()
    }

    fn commit(
        &mut self,
        transaction: WriteTransaction,
        written: Written,
    ) -> Result<(), StoreError> {
        self.database.tree_mut().prepare(written.changes);
        if let Err(fault) = transaction.commit() {
            let error = StoreError::database(self.database.path(), fault);
            self.recover(&error);
            return Err(error);
        }
        self.database.tree_mut().apply();
        if let Some(configurations) = written.configurations {
            self.configurations.send_replace(configurations);
        }
        self.pause = None;
        metrics::counter!("shoal_dht_commits_total").increment(1);
        metrics::counter!("shoal_dht_records_written_total").increment(written.records);
        report_counts(&self.database);
        Ok(())
    }

    /// Reopens the database after a disk error, which closes it for readers as well.
    fn recover(&mut self, error: &StoreError) {
        let path = self.database.path();
        let free_bytes = free_bytes(path);
        error!(%error, path = %path.display(), "the store failed; it is opened again");
        match self.database.reopen() {
            Ok(()) => info!(path = %path.display(), "the store is open again"),
            Err(error) => error!(%error, "the store cannot be opened again"),
        }
        self.pause = Some(Pause { error: error.clone(), since: Instant::now(), free_bytes });
        report_counts(&self.database);
    }
}

fn report_counts(database: &Database) {
    let Usage { records, tombstones, bytes } = database.tree().usage();
    let gauge = |state: &'static str, count: u64| {
        metrics::gauge!("shoal_dht_records", "state" => state).set(count as f64);
    };
    gauge("live", records - tombstones);
    gauge("tombstone", tombstones);
    metrics::gauge!("shoal_dht_stored_bytes").set(bytes as f64);
}

/// Free bytes on the disk of a file, if the system reports them.
fn free_bytes(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path.parent()?).ok()?;
    Some(disk.f_bavail * disk.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_tried_again_when_there_is_room_and_after_a_pause() {
        let since = Instant::now();
        let pause = Pause { error: StoreError::Aborted, since, free_bytes: Some(4_096) };
        assert!(!pause.is_over(since, Some(4_096)));
        assert!(!pause.is_over(since + PAUSE / 2, Some(ROOM_BYTES)));
        assert!(pause.is_over(since, Some(ROOM_BYTES + 4_096)));
        assert!(pause.is_over(since + PAUSE, Some(0)));
        assert!(!pause.is_over(since, None));
    }
}
