//! Reads and writes of the keys for which this node is the primary.
//!
//! The writes of a key are executed one after another, in the write queue that its position maps
//! to. A write is on the disks of other replicas before it is on this node's disk, and reads are
//! served only from there. A write that may be on some replicas only is resolved before anything
//! else happens to its key.

mod request;

use std::{sync::Arc, time::Duration};

use shoal_common::supervisor::Supervisor;
use shoal_core::ring::{KeyRange, Position, ReplicaSet, Version, WriteRefusal};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};
use tracing::{Instrument as _, Span, debug};

use crate::{
    network::calls::{CallError, Calls},
    replication::{
        indeterminate::{IndeterminateWrites, WriteMemory},
        local_replica::LocalReplica,
        primary::{NotServing, Primary, Term},
    },
    storage::{Key, Record},
    time::{StartWindow, unix_ms},
};

pub(crate) use self::request::{Condition, KvError, Write, Written};

/// Write queues: writes of different keys that may be in progress at the same time.
const WRITE_QUEUES: usize = 64;
/// Writes that wait in one queue; the next caller waits for room.
const QUEUE_LENGTH: usize = 64;
/// How often a queue retries to resolve indeterminate writes.
const RETRY_EVERY: Duration = Duration::from_millis(500);
/// How often a write is retried after a replica reported a newer record.
const ATTEMPTS: usize = 4;

/// The next job of a queue.
struct Job {
    task: Task,
    /// The span of the caller.
    span: Span,
}

enum Task {
    Write(Write, StartWindow, oneshot::Sender<Result<Written, KvError>>),
    /// The term in which the record was found, if it was found on a replica.
    Absorb(Record, Option<Term>, oneshot::Sender<Result<(), KvError>>),
}

impl From<Task> for Job {
    fn from(task: Task) -> Self {
        Self { task, span: Span::current() }
    }
}

/// The outcome of sending a record to the replicas.
enum Outcome {
    /// It is on this many disks.
    Written(usize),
    /// Another replica has a newer record, and too few have stored this one.
    Newer(Record),
}

/// Executes reads and writes. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Values {
    writer: Writer,
    queues: Arc<[mpsc::Sender<Job>]>,
}

/// State shared by all queues.
#[derive(Clone, Debug)]
struct Writer {
    local: LocalReplica,
    primary: Primary,
    calls: Calls,
    /// Memory for writes that are in progress or indeterminate.
    memory: WriteMemory,
}

struct WriteQueue {
    writer: Writer,
    /// Writes of this queue that were not acknowledged and may be on the disk of some replica. Each
    /// is resolved before anything else happens to its key: two writes with the same expected
    /// version must not both become visible.
    indeterminate: IndeterminateWrites,
    /// When to try again.
    retry_at: Instant,
}

impl Values {
    /// Starts the queues, which end with the process.
    pub(crate) fn start(
        local: LocalReplica,
        primary: Primary,
        calls: Calls,
        memory: WriteMemory,
        supervisor: &Supervisor,
    ) -> Self {
        let writer = Writer { local, primary, calls, memory };
        let queues = (0..WRITE_QUEUES).map(|_| {
            let (sender, jobs) = mpsc::channel(QUEUE_LENGTH);
            let (writer, indeterminate) = (writer.clone(), IndeterminateWrites::default());
            let queue = WriteQueue { writer, indeterminate, retry_at: Instant::now() };
            supervisor.spawn("write queue", queue.work(jobs));
            sender
        });
        Self { queues: queues.collect(), writer }
    }

    /// The present record of a key, if it has a value.
    pub(crate) fn get(&self, key: &Key) -> Result<Option<Record>, KvError> {
        let term = || self.writer.primary.term(key.position()).map_err(KvError::NotServing);
        let before = term()?;
        let record = self.writer.local.store.get(key)?;
        if term()? != before {
            return Err(KvError::NotServing(NotServing::Sealed));
        }
        Ok(record.filter(|record| record.is_live(unix_ms())))
    }

    /// This node serves the key at present.
    pub(crate) fn may_answer(&self, position: Position) -> bool {
        self.writer.primary.term(position).is_ok()
    }

    /// Writes a key, if the write can begin within the start window.
    pub(crate) async fn write(
        &self,
        write: Write,
        window: StartWindow,
    ) -> Result<Written, KvError> {
        let (done, answer) = oneshot::channel();
        let queue = self.queue(&write.key);
        queue.send(Task::Write(write, window, done).into()).await.map_err(stopping)?;
        answer.await.map_err(stopping)?
    }

    /// Adopts records of another node where they are newer: unacknowledged writes found on a
    /// replica, or the records of a ring that merges with this one.
    pub(crate) async fn absorb(
        &self,
        records: Vec<Record>,
        found: Option<&ReplicaSet>,
    ) -> Result<(), KvError> {
        let term = found.map(Term::under);
        let mut answers = Vec::with_capacity(records.len());
        for record in records {
            let (done, answer) = oneshot::channel();
            let queue = self.queue(&record.key);
            queue.send(Task::Absorb(record, term, done).into()).await.map_err(stopping)?;
            answers.push(answer);
        }
        for answer in answers {
            answer.await.map_err(stopping)??;
        }
        Ok(())
    }

    fn queue(&self, key: &Key) -> &mpsc::Sender<Job> {
        &self.queues[(key.position().to_u128() % WRITE_QUEUES as u128) as usize]
    }
}

impl WriteQueue {
    async fn work(mut self, mut jobs: mpsc::Receiver<Job>) {
        loop {
            tokio::select! {
                job = jobs.recv() => match job {
                    Some(job) => self.run(job).await,
                    None => return,
                },
                () = sleep_until(self.retry_at), if !self.indeterminate.is_empty() => {
                    self.resolve_next().await;
                }
            }
        }
    }

    async fn run(&mut self, Job { task, span }: Job) {
        // The caller may have gone.
        match task {
            Task::Write(write, window, done) => {
                let _ = done.send(self.write(write, window).instrument(span).await);
            }
            Task::Absorb(record, term, done) => {
                let _ = done.send(self.absorb(record, term).instrument(span).await);
            }
        }
    }

    async fn write(&mut self, write: Write, window: StartWindow) -> Result<Written, KvError> {
        self.resolve(&write.key).await?;
        let memory = self.writer.memory.reserve(write.size());
        let memory = memory.ok_or(KvError::TooManyIndeterminate)?;
        let Writer { local, primary, .. } = &self.writer;
        let position = write.key.position();
        for _ in 0..ATTEMPTS {
            let (range, set) = primary.of(position).map_err(KvError::NotServing)?;
            let needed = set.majority().max(write.min_copies);
            if needed > set.members.len() {
                return Err(KvError::TooManyCopies(set.members.len()));
            }
            let before = local.store.get(&write.key)?;
            write.condition.check(before.as_ref())?;
            if !window.is_open() {
                return Err(KvError::TooLate);
            }
            let above = before.as_ref().map(|record| record.stamp);
            let version = Version::next(local.me, unix_ms(), set.epoch, above);
            let record = write.record(version);
            if self.writer.is_removed_already(&record, before.as_ref(), &set) {
                return Ok(Written { version, durable_copies: set.members.len() });
            }
            self.writer.check_quota(&record, before.as_ref(), &set)?;
            let failure = match self.writer.replicate(range, &set, record.clone(), needed).await {
                Ok(Outcome::Written(durable_copies)) => {
                    return Ok(Written { version, durable_copies });
                }
                Ok(Outcome::Newer(newer)) => match self.writer.absorb(newer, None).await {
                    Ok(()) => continue,
                    // Some replicas may have stored this one.
                    Err(error) => KvError::Unknown(error.to_string()),
                },
                Err(error) => error,
            };
            if let KvError::Unknown(_) = failure {
                self.indeterminate.insert(record, Term::under(&set), memory);
                self.retry_at = Instant::now() + RETRY_EVERY;
            }
            return Err(failure);
        }
        Err(KvError::Unknown(TIME_AND_AGAIN.to_owned()))
    }

    /// A record found elsewhere may be older than an indeterminate write, which therefore goes
    /// first.
    async fn absorb(&mut self, record: Record, found: Option<Term>) -> Result<(), KvError> {
        self.resolve(&record.key).await?;
        self.writer.absorb(record, found).await
    }

    /// Brings an indeterminate write of a key to the disks of a majority.
    ///
    /// Not if its term is over: the reconfiguration that began the next term has read a majority,
    /// and has rewritten what it found on some replicas only. What it did not find is on one
    /// replica at most, as any other abandoned write; rewritten under its old stamp it could become
    /// visible before a later one of those.
    async fn resolve(&mut self, key: &Key) -> Result<(), KvError> {
        let Some((record, term)) = self.indeterminate.of(key) else { return Ok(()) };
        if !self.writer.primary.is_over(key.position(), term) {
            let written = self.writer.absorb(record.clone(), Some(term)).await;
            written.map_err(|error| KvError::EarlierUnresolved(error.to_string()))?;
        }
        self.indeterminate.resolved(key);
        Ok(())
    }

    async fn resolve_next(&mut self) {
        let Some(key) = self.indeterminate.next() else { return };
        if let Err(error) = self.resolve(&key).await {
            debug!(%error, "a write is still indeterminate");
            self.retry_at = Instant::now() + RETRY_EVERY;
        }
    }
}

impl Writer {
    /// Brings a record of another node, or a newer record that a replica reports, to the disks of a
    /// majority, this node's disk last, unless this node's record is as new. A record that was
    /// found in a term that is over is not adopted.
    async fn absorb(&self, mut record: Record, found: Option<Term>) -> Result<(), KvError> {
        for _ in 0..ATTEMPTS {
            let serving = self.primary.of(record.key.position());
            let (range, set) = serving.map_err(KvError::NotServing)?;
            if found.is_some_and(|term| term != Term::under(&set)) {
                return Ok(());
            }
            let present = self.local.store.get(&record.key)?;
            if present.is_some_and(|present| present.stamp >= record.stamp) {
                return Ok(());
            }
            match self.replicate(range, &set, record, set.majority()).await? {
                Outcome::Written(_) => return Ok(()),
                Outcome::Newer(newer) => record = newer,
            }
        }
        Err(KvError::Unknown(TIME_AND_AGAIN.to_owned()))
    }

    /// Removing a missing key leaves no tombstone, if no replica can have a record of the key that
    /// this node lacks and that a tombstone would have to hide: indeterminate writes are resolved,
    /// and each replica has shown that it has nothing that others left.
    fn is_removed_already(
        &self,
        record: &Record,
        before: Option<&Record>,
        set: &ReplicaSet,
    ) -> bool {
        let position = record.key.position();
        record.is_tombstone()
            && before.is_none_or(Record::is_tombstone)
            && self.primary.were_all_same(position, set)
            // As after any read: no other node can have written in between.
            && self.primary.term(position) == Ok(Term::under(set))
    }

    /// Whether there is room for a write, on this node and on the other replicas. A write that
    /// takes no more room than the record it replaces is always accepted, and so is a removal.
    fn check_quota(
        &self,
        record: &Record,
        before: Option<&Record>,
        set: &ReplicaSet,
    ) -> Result<(), KvError> {
        let more = record.footprint() > before.map_or(0, Record::footprint);
        if record.is_tombstone() || !more {
            return Ok(());
        }
        let here = self.local.quota.refuses(self.local.store.usage(), before, record);
        let there = || {
            let full = self.primary.full_replica(record.key.position(), set)?;
            Some(("limits.quota or limits.keys", full))
        };
        match here.map(|limit| (limit, set.primary())).or_else(there) {
            None => Ok(()),
            Some((limit, node)) => {
                metrics::counter!("shoal_dht_refused_writes_total").increment(1);
                Err(KvError::Full { limit, node: node.address.clone() })
            }
        }
    }

    /// Sends a record to the other replicas, and stores it on this node once enough of them have
    /// it.
    async fn replicate(
        &self,
        range: KeyRange,
        set: &ReplicaSet,
        record: Record,
        needed: usize,
    ) -> Result<Outcome, KvError> {
        let mut answers = self.send(range, set, &record);
        let mut tally = Tally::default();
        while tally.stored + 1 < needed
            && let Some(answer) = answers.recv().await
        {
            tally.note(answer);
        }
        if tally.stored + 1 < needed {
            return tally.failed(needed);
        }
        match self.local.replicate(range, set.clone(), vec![record]).await {
            Ok(Ok(mut newer)) => {
                Ok(newer.pop().map_or(Outcome::Written(tally.stored + 1), Outcome::Newer))
            }
            Ok(Err(_)) => Err(KvError::Unknown("the key changed hands meanwhile".to_owned())),
            Err(error) if tally.stored == 0 => Err(error.into()),
            // Others have it.
            Err(error) => Err(KvError::Unknown(error.to_string())),
        }
    }

    /// Each call continues after enough others have answered.
    fn send(&self, range: KeyRange, set: &ReplicaSet, record: &Record) -> mpsc::Receiver<Stored> {
        let (answered, answers) = mpsc::channel(set.members.len());
        for member in set.members.iter().filter(|member| member.id != self.local.me) {
            let (member, calls, answered) = (member.clone(), self.calls.clone(), answered.clone());
            let (set, record) = (set.clone(), [record.clone()]);
            let call = async move {
                let answer = calls.replicate((range, &set), &record, &member).await;
                // The receiver is gone once enough have answered.
                let _ = answered.send(answer).await;
            };
            tokio::spawn(call.in_current_span());
        }
        answers
    }
}

/// A replica's answer to a write: its newer records.
type Stored = Result<Result<Vec<Record>, WriteRefusal>, CallError>;

/// The answers of the other replicas.
#[derive(Debug, Default)]
struct Tally {
    stored: usize,
    newer: Option<Record>,
    /// Some rejected it because the set is not the present one, or takes no writes.
    sealed: bool,
    /// A replica may have stored it without an answer; its error.
    unanswered: Option<String>,
}

impl Tally {
    fn note(&mut self, answer: Stored) {
        match answer {
            Ok(Ok(mut newer)) => match newer.pop() {
                None => self.stored += 1,
                newer => self.newer = newer,
            },
            Ok(Err(_)) => self.sealed = true,
            Err(CallError::Unreachable(_) | CallError::NotDialled(_)) => {}
            Err(error) => self.unanswered = Some(error.to_string()),
        }
    }

    fn failed(self, needed: usize) -> Result<Outcome, KvError> {
        if let Some(newer) = self.newer {
            return Ok(Outcome::Newer(newer));
        }
        match self.unanswered {
            Some(error) => Err(KvError::Unknown(error)),
            None if self.stored > 0 => {
                let got = self.stored;
                Err(KvError::Unknown(format!("{got} of {needed} replicas have stored it")))
            }
            None if self.sealed => Err(KvError::NotServing(NotServing::Sealed)),
            None => Err(KvError::TooFewCopies { got: 1, needed }),
        }
    }
}

const TIME_AND_AGAIN: &str = "other replicas have newer values time and again";

/// The queues end with the node: a job that had not begun may have been executed all the same.
fn stopping<T>(_: T) -> KvError {
    KvError::Unknown("the node stops".to_owned())
}

#[cfg(test)]
mod tests;
