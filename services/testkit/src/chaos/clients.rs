//! Clients of the ring that get, put, compare-and-set and delete a few keys, and record every call.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use shoal_common::lock::Mutex;
use shoal_proto::dht::v1::{Condition, DeleteRequest, GetRequest, PutRequest, condition::Kind};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Response, Status};

use super::linear::{self, Action, Call, Flaw, Outcome, Value};
use crate::ring::{Client, client};

/// The number of clients. Each has one open call at a time.
const CLIENTS: usize = 6;
/// The number of keys in use at a time.
const KEYS: u64 = 3;
/// How long a set of keys is in use: short, so that the history of each key can be checked.
const KEYS_FOR: Duration = Duration::from_secs(15);
/// Longest wait for an answer, longer than a node's own timeout.
const PATIENCE: Duration = Duration::from_secs(7);
/// Longest pause between two calls of a client.
const PAUSE_MS: u64 = 60;
/// Pause between two reads of a key that could not be read.
const RETRY: Duration = Duration::from_millis(100);

/// The running clients.
pub(super) struct Clients {
    nodes: Arc<[String]>,
    record: Arc<Record>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

/// The record of the clients' calls.
#[derive(Debug, Default)]
struct Record {
    calls: Mutex<BTreeMap<String, Vec<Call>>>,
    /// The value of each version of a key.
    versions: Mutex<HashMap<(String, String), u64>>,
    /// Violations seen while the clients run, such as two values of one version.
    flaws: Mutex<Vec<String>>,
    /// The last value written.
    values: AtomicU64,
    unread: AtomicU64,
}

/// Counts of the calls by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Reads that were answered.
    pub read: u64,
    /// Acknowledged writes without a condition.
    pub written: u64,
    /// Acknowledged writes with a condition.
    pub swapped: u64,
    /// Writes whose condition did not hold.
    pub refused: u64,
    /// Writes with an unknown outcome.
    pub unknown: u64,
    /// Reads without an answer.
    pub unread: u64,
    /// Values seen under more than one version: the ring itself wrote them again.
    pub rewritten: u64,
    /// Number of keys.
    pub keys: u64,
}

impl Clients {
    /// Starts clients of these nodes.
    pub(super) fn start(nodes: Vec<String>, seed: u64) -> Self {
        let (record, stop) = (Arc::new(Record::default()), CancellationToken::new());
        let mut clients = Self { nodes: nodes.into(), record, stop, tasks: JoinSet::new() };
        for number in 0..CLIENTS {
            let rng = StdRng::seed_from_u64(seed.wrapping_add(number as u64));
            let worker = clients.worker(number, rng);
            clients.tasks.spawn(worker.work(clients.stop.clone()));
        }
        clients
    }

    /// Stops the clients and reads every key once more. Fails with a key that cannot be read by the
    /// deadline.
    pub(super) async fn stop(&mut self, deadline: Instant) -> Result<(), String> {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.map_err(|error| format!("a client of the ring failed: {error}"))?;
        }
        let keys: Vec<_> = self.record.calls.lock().keys().cloned().collect();
        let mut worker = self.worker(CLIENTS, StdRng::seed_from_u64(0));
        for key in keys {
            while !worker.read(&key).await {
                if Instant::now() >= deadline {
                    return Err(format!(
                        "the key {key} cannot be read although the faults are over"
                    ));
                }
                sleep(RETRY).await;
            }
        }
        Ok(())
    }

    /// Counts the calls so far by outcome.
    pub(super) fn tally(&self) -> Tally {
        let calls = self.record.calls.lock();
        let unread = self.record.unread.load(Ordering::Relaxed);
        let mut versions: HashMap<u64, u64> = HashMap::new();
        for value in self.record.versions.lock().values() {
            *versions.entry(*value).or_default() += 1;
        }
        let rewritten = versions.values().filter(|count| **count > 1).count() as u64;
        let keys = calls.len() as u64;
        let mut tally = Tally { unread, rewritten, keys, ..Tally::default() };
        for call in calls.values().flatten() {
            let count = match (call.outcome, call.action) {
                (Outcome::Found(_), _) => &mut tally.read,
                (Outcome::Done, Action::Swap { .. }) => &mut tally.swapped,
                (Outcome::Done, _) => &mut tally.written,
                (Outcome::Refused, _) => &mut tally.refused,
                (Outcome::Unknown, _) => &mut tally.unknown,
            };
            *count += 1;
        }
        tally
    }

    /// The answers that violate the ring's guarantees.
    pub(super) fn flaws(&self) -> Vec<String> {
        let mut flaws = self.record.flaws.lock().clone();
        for (key, calls) in &*self.record.calls.lock() {
            match linear::check(calls) {
                Ok(()) => {}
                Err(flaw @ Flaw::NotLinearizable(index)) => {
                    flaws.push(format!("{key}: {flaw}:{}", linear::describe(calls, index)));
                }
                Err(flaw @ Flaw::Undecided) => {
                    flaws.push(format!("{key}: {flaw}; it has {} calls", calls.len()));
                }
            }
        }
        flaws
    }

    fn worker(&self, number: usize, rng: StdRng) -> Worker {
        let (nodes, record) = (self.nodes.clone(), self.record.clone());
        Worker { number, nodes, record, rng, client: None, seen: HashMap::new() }
    }
}

struct Worker {
    number: usize,
    nodes: Arc<[String]>,
    record: Arc<Record>,
    rng: StdRng,
    /// Kept until it fails.
    client: Option<Client>,
    /// Each key's value when this client last read or wrote it, with the condition for its version.
    seen: HashMap<String, (Value, Kind)>,
}

impl Worker {
    async fn work(mut self, stop: CancellationToken) {
        let begun = Instant::now();
        while !stop.is_cancelled() {
            let period = begun.elapsed().as_secs() / KEYS_FOR.as_secs();
            let keys = format!("chaos-{period}-");
            self.seen.retain(|known, _| known.starts_with(&keys));
            let key = format!("{keys}{}", self.rng.random_range(0..KEYS));
            let seen = self.seen.get(&key).cloned();
            match (self.rng.random_range(0..10_u32), seen) {
                (0..4, _) | (6.., None) => {
                    self.read(&key).await;
                }
                (4, _) => self.write(&key, None, None).await,
                (5, _) => {
                    let value = self.new_value();
                    self.write(&key, Some(value), None).await;
                }
                (6, Some(seen @ (Some(_), _))) => self.write(&key, None, Some(seen)).await,
                (_, Some(seen)) => {
                    let value = self.new_value();
                    self.write(&key, Some(value), Some(seen)).await;
                }
            }
            sleep(Duration::from_millis(self.rng.random_range(0..PAUSE_MS))).await;
        }
    }

    fn new_value(&self) -> u64 {
        self.record.values.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn client(&mut self) -> Client {
        let node = self.nodes.choose(&mut self.rng).expect("a ring has nodes");
        self.client.get_or_insert_with(|| client(node)).clone()
    }

    /// Reads a key. Returns whether it was answered.
    async fn read(&mut self, key: &str) -> bool {
        let asked = Instant::now();
        let request = GetRequest { key: key.to_owned().into(), direct: false };
        let answer = within(self.client().get(request)).await;
        let found = match answer {
            Ok(found) => {
                let text = String::from_utf8_lossy(&found.value).into_owned();
                let Ok(value) = text.parse() else {
                    self.record.flaw(format!("{key} holds {text:?}, which no client wrote"));
                    return true;
                };
                self.record.note_version(key, &found.version, value);
                (Some(value), Kind::Version(found.version))
            }
            Err(status) if status.code() == Code::NotFound => (None, Kind::Absent(true)),
            Err(_) => {
                self.client = None;
                self.record.unread.fetch_add(1, Ordering::Relaxed);
                return false;
            }
        };
        self.note(key, asked, Action::Read, Outcome::Found(found.0));
        self.seen.insert(key.to_owned(), found);
        true
    }

    /// Puts or deletes a key, with the condition that it is unchanged since `seen`, if given.
    async fn write(&mut self, key: &str, value: Value, seen: Option<(Value, Kind)>) {
        let asked = Instant::now();
        let (expected, kind) = seen.unzip();
        let condition = kind.map(|kind| Condition { kind: Some(kind) });
        let answer = match value {
            Some(number) => self.put(key, number, condition).await,
            None => self.delete(key, condition).await,
        };
        let action =
            expected.map_or(Action::Write(value), |expected| Action::Swap { expected, new: value });
        let outcome = match answer {
            Ok(version) => {
                let kind = match value {
                    Some(number) => {
                        self.record.note_version(key, &version, number);
                        Kind::Version(version)
                    }
                    None => Kind::Absent(true),
                };
                self.seen.insert(key.to_owned(), (value, kind));
                Outcome::Done
            }
            Err(status) => {
                self.seen.remove(key);
                if status.code() == Code::Aborted {
                    Outcome::Refused
                } else {
                    self.client = None;
                    Outcome::Unknown
                }
            }
        };
        self.note(key, asked, action, outcome);
    }

    async fn put(
        &mut self,
        key: &str,
        value: u64,
        condition: Option<Condition>,
    ) -> Result<String, Status> {
        let request = PutRequest {
            key: key.to_owned().into(),
            value: value.to_string().into(),
            condition,
            ..PutRequest::default()
        };
        Ok(within(self.client().put(request)).await?.version)
    }

    async fn delete(&mut self, key: &str, condition: Option<Condition>) -> Result<String, Status> {
        let request =
            DeleteRequest { key: key.to_owned().into(), condition, ..DeleteRequest::default() };
        Ok(within(self.client().delete(request)).await?.version)
    }

    fn note(&self, key: &str, asked: Instant, action: Action, outcome: Outcome) {
        let answered = Instant::now();
        let call = Call { client: self.number, action, asked, answered, outcome };
        self.record.calls.lock().entry(key.to_owned()).or_default().push(call);
    }
}

impl Record {
    /// Checks that a version has one value for ever.
    fn note_version(&self, key: &str, version: &str, value: u64) {
        let of_version = (key.to_owned(), version.to_owned());
        let known = *self.versions.lock().entry(of_version).or_insert(value);
        if known != value {
            self.flaw(format!("{key} has both {known} and {value} under the version {version}"));
        }
    }

    fn flaw(&self, what: String) {
        self.flaws.lock().push(what);
    }
}

async fn within<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
    let silent = |_| Status::deadline_exceeded("no answer");
    Ok(timeout(PATIENCE, call).await.map_err(silent)??.into_inner())
}
