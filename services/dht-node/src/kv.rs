//! Values: reads and writes of keys for which this node is the primary.
//!
//! Writes of a key are made one after another, by the lane that its position falls to. A write is on
//! the disks of other replicas before it is on this one's, and is read only from there.

use std::collections::HashMap;

use shoal_core::ring::{KeyRange, Position, ReplicaSet, Version, WriteRefusal};
use tokio::sync::{mpsc, oneshot};
use tracing::{Instrument as _, Span};

use crate::{
    calls::{CallError, Calls},
    keeper::Keeper,
    primary::{NotServing, Primary},
    store::{Key, Record, StoreError, Value},
    time::{Window, unix_ms},
};

/// Writes of different keys that may be under way at a time.
const LANES: usize = 64;
/// Writes that wait for one lane; one more waits at its caller.
const LANE_QUEUE: usize = 64;
/// Writes of one lane that are remembered because nobody knows whether they happened.
const MAX_DOUBTS: usize = 1024;
/// A replica that had something newer is heeded, and the write tried again, so often.
const ATTEMPTS: usize = 4;

/// What must hold for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Nothing.
    None,
    /// The key has no value.
    Absent,
    /// The key has this version.
    Version(Version),
}

/// A write to be made.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) key: Key,
    /// None removes the key.
    pub(crate) value: Option<Value>,
    pub(crate) expires_ms: Option<u64>,
    pub(crate) condition: Condition,
    /// Copies without which it counts as failed, if more than a majority.
    pub(crate) min_copies: usize,
}

/// A write that was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub(crate) version: Version,
    pub(crate) durable_copies: usize,
}

/// Why a key was not read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KvError {
    /// Nothing happened.
    #[error("{}", match .0 {
        NotServing::Primary(_) => "another node is the primary of the key",
        NotServing::NoPrimary => "this node is not the primary of the key",
        NotServing::Sealed => "the key changes hands",
        NotServing::NoLease => "too few replicas of the key are heard from",
    })]
    NotServing(NotServing),
    /// Nothing happened: the condition does not hold.
    #[error("the key {}", .0.map_or("has no value".to_owned(), |v| format!("has version {v}")))]
    Condition(Option<Version>),
    /// Nothing happened.
    #[error("{got} of the {needed} replicas needed can be reached")]
    TooFewCopies { got: usize, needed: usize },
    /// Nothing happened, and nothing will.
    #[error("the write came too late, or the clocks of two nodes differ")]
    TooLate,
    /// Nothing happened: there are not so many replicas.
    #[error("the key has {0} replicas; ask for no more copies")]
    TooManyCopies(usize),
    /// It may have happened, or happen yet.
    #[error("it is not known whether the key was written: {0}")]
    Unknown(String),
    /// The disk failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a lane does next.
struct Job {
    task: Task,
    /// Of who wants it done.
    span: Span,
}

enum Task {
    Write(Write, Window, oneshot::Sender<Result<Written, KvError>>),
    Absorb(Record, oneshot::Sender<Result<(), KvError>>),
}

impl From<Task> for Job {
    fn from(task: Task) -> Self {
        Self { task, span: Span::current() }
    }
}

/// What became of a record sent to the replicas.
enum Outcome {
    /// It is on so many disks.
    Written(usize),
    /// Another replica has something newer, and too few have stored this.
    Newer(Record),
}

/// Reads and writes. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Values {
    writer: Writer,
    lanes: std::sync::Arc<[mpsc::Sender<Job>]>,
}

#[derive(Clone, Debug)]
struct Writer {
    keeper: Keeper,
    primary: Primary,
    calls: Calls,
    /// Writes of this lane that were not acknowledged, and may be on the disk of some replica. Each is
    /// finished before the next write of its key: two that expected the same value must not both
    /// come to light.
    doubts: HashMap<Key, Record>,
}

impl Values {
    /// Starts the lanes, which end when this is dropped.
    pub(crate) fn start(keeper: Keeper, primary: Primary, calls: Calls) -> Self {
        let writer = Writer { keeper, primary, calls, doubts: HashMap::new() };
        let lanes = (0..LANES).map(|_| {
            let (jobs, queue) = mpsc::channel(LANE_QUEUE);
            tokio::spawn(writer.clone().work(queue));
            jobs
        });
        Self { lanes: lanes.collect(), writer }
    }

    /// The present record of a key, if it has a value.
    pub(crate) fn get(&self, key: &Key) -> Result<Option<Record>, KvError> {
        let office = || self.writer.primary.office(key.position()).map_err(KvError::NotServing);
        let before = office()?;
        let record = self.writer.keeper.store.get(key)?;
        if office()? != before {
            return Err(KvError::NotServing(NotServing::Sealed));
        }
        Ok(record.filter(|record| record.is_live(unix_ms())))
    }

    /// This node answers for the key at present.
    pub(crate) fn may_answer(&self, position: Position) -> bool {
        self.writer.primary.office(position).is_ok()
    }

    /// Writes a key, if that begins within the window.
    pub(crate) async fn write(&self, write: Write, window: Window) -> Result<Written, KvError> {
        let (done, answer) = oneshot::channel();
        let lane = self.lane(&write.key);
        lane.send(Task::Write(write, window, done).into()).await.map_err(stopping)?;
        answer.await.map_err(stopping)?
    }

    /// Takes over records that another node has, where they are newer: writes that were never
    /// answered, or were in another ring.
    pub(crate) async fn absorb(&self, records: Vec<Record>) -> Result<(), KvError> {
        let mut answers = Vec::with_capacity(records.len());
        for record in records {
            let (done, answer) = oneshot::channel();
            let lane = self.lane(&record.key);
            lane.send(Task::Absorb(record, done).into()).await.map_err(stopping)?;
            answers.push(answer);
        }
        for answer in answers {
            answer.await.map_err(stopping)??;
        }
        Ok(())
    }

    fn lane(&self, key: &Key) -> &mpsc::Sender<Job> {
        &self.lanes[(key.position().to_u128() % LANES as u128) as usize]
    }
}

impl Writer {
    async fn work(mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(Job { task, span }) = queue.recv().await {
            // Who asked may have gone.
            match task {
                Task::Write(write, window, done) => {
                    let _ = done.send(self.write(write, window).instrument(span).await);
                }
                Task::Absorb(record, done) => {
                    let _ = done.send(self.absorb(record).instrument(span).await);
                }
            }
        }
    }

    async fn write(&mut self, write: Write, window: Window) -> Result<Written, KvError> {
        if let Some(record) = self.doubts.get(&write.key) {
            let record = record.clone();
            // Of this write nothing has happened yet.
            self.absorb(record).await.map_err(|_| KvError::NotServing(NotServing::NoLease))?;
            self.doubts.remove(&write.key);
        }
        let position = write.key.position();
        for _ in 0..ATTEMPTS {
            let (range, set) = self.primary.of(position).map_err(KvError::NotServing)?;
            let needed = set.majority().max(write.min_copies);
            if needed > set.members.len() {
                return Err(KvError::TooManyCopies(set.members.len()));
            }
            let before = self.keeper.store.get(&write.key)?;
            check(write.condition, before.as_ref())?;
            if !window.is_open() {
                return Err(KvError::TooLate);
            }
            let above = before.map(|record| record.version);
            let version = self.keeper.next_version(set.epoch, above);
            let record = Record {
                key: write.key.clone(),
                version,
                value: write.value.clone(),
                expires_ms: write.expires_ms,
            };
            match self.replicate(range, &set, record.clone(), needed).await {
                Ok(Outcome::Written(durable_copies)) => {
                    return Ok(Written { version, durable_copies });
                }
                Ok(Outcome::Newer(newer)) => self.absorb(newer).await?,
                Err(error) => {
                    if let KvError::Unknown(_) = error {
                        self.doubt(record);
                    }
                    return Err(error);
                }
            }
        }
        Err(KvError::Unknown("other replicas have newer values time and again".to_owned()))
    }

    fn doubt(&mut self, record: Record) {
        if self.doubts.len() == MAX_DOUBTS
            && let Some(other) = self.doubts.keys().next().cloned()
        {
            self.doubts.remove(&other);
        }
        self.doubts.insert(record.key.clone(), record);
    }

    /// Has a record that another node has on the disks of a majority, this one's last, unless what is
    /// there is as new.
    async fn absorb(&self, record: Record) -> Result<(), KvError> {
        let (range, set) = self.primary.of(record.key.position()).map_err(KvError::NotServing)?;
        if let Err(error) = self.keeper.observe(record.version) {
            return Err(KvError::Unknown(error.to_string()));
        }
        let present = self.keeper.store.get(&record.key)?;
        if present.is_some_and(|present| present.version >= record.version) {
            return Ok(());
        }
        // Something newer elsewhere is found and taken over in its turn.
        self.replicate(range, &set, record, set.majority()).await.map(drop)
    }

    /// Sends a record to the other replicas, and stores it here once enough of them have it.
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
        match self.keeper.replicate(range, set.clone(), vec![record]).await? {
            Ok(mut newer) => {
                Ok(newer.pop().map_or(Outcome::Written(tally.stored + 1), Outcome::Newer))
            }
            Err(_) => Err(KvError::Unknown("the key changed hands meanwhile".to_owned())),
        }
    }

    /// Each call goes on when enough others have answered.
    fn send(&self, range: KeyRange, set: &ReplicaSet, record: &Record) -> mpsc::Receiver<Stored> {
        let (answered, answers) = mpsc::channel(set.members.len());
        for member in set.members.iter().filter(|member| member.id != self.keeper.me) {
            let (member, calls, answered) = (member.clone(), self.calls.clone(), answered.clone());
            let (set, record) = (set.clone(), [record.clone()]);
            let call = async move {
                let answer = calls.replicate((range, &set), &record, &member).await;
                // Who is no longer waited for is not heard.
                let _ = answered.send(answer).await;
            };
            tokio::spawn(call.in_current_span());
        }
        answers
    }
}

/// A replica's answer to a write: what it has that is newer.
type Stored = Result<Result<Vec<Record>, WriteRefusal>, CallError>;

/// What the other replicas answered.
#[derive(Debug, Default)]
struct Tally {
    stored: usize,
    newer: Option<Record>,
    /// Some refused because the set is not the present one, or takes no writes.
    sealed: bool,
    /// Some may have stored it without saying so.
    doubt: Option<String>,
}

impl Tally {
    fn note(&mut self, answer: Stored) {
        match answer {
            Ok(Ok(mut newer)) => match newer.pop() {
                None => self.stored += 1,
                newer => self.newer = newer,
            },
            Ok(Err(_)) => self.sealed = true,
            Err(CallError::Unreachable(_)) => {}
            Err(error) => self.doubt = Some(error.to_string()),
        }
    }

    fn failed(self, needed: usize) -> Result<Outcome, KvError> {
        if let Some(newer) = self.newer {
            return Ok(Outcome::Newer(newer));
        }
        match self.doubt {
            Some(doubt) => Err(KvError::Unknown(doubt)),
            None if self.stored > 0 => {
                let got = self.stored;
                Err(KvError::Unknown(format!("{got} of {needed} replicas have stored it")))
            }
            None if self.sealed => Err(KvError::NotServing(NotServing::Sealed)),
            None => Err(KvError::TooFewCopies { got: 1, needed }),
        }
    }
}

/// The lanes end with the node: what they had not begun may have happened all the same.
fn stopping<T>(_: T) -> KvError {
    KvError::Unknown("the node stops".to_owned())
}

/// Whether the condition holds for what is there.
fn check(condition: Condition, present: Option<&Record>) -> Result<(), KvError> {
    let live = present.filter(|record| record.is_live(unix_ms()));
    let version = live.map(|record| record.version);
    let holds = match condition {
        Condition::None => true,
        Condition::Absent => version.is_none(),
        Condition::Version(expected) => version == Some(expected),
    };
    if holds { Ok(()) } else { Err(KvError::Condition(version)) }
}
