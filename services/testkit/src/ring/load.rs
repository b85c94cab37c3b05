//! Clients that read and write while a ring changes, through random nodes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rand::seq::IndexedRandom as _;
use shoal_common::lock::Mutex;
use shoal_proto::dht::v1::{Condition, GetRequest, PutRequest, condition::Kind};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::{Client, LOOK_EVERY, client, history::History};

/// Longest wait for an answer, longer than a node's own timeout.
const PATIENCE: Duration = Duration::from_secs(8);

/// The nodes that clients may call at present.
pub type Nodes = Arc<Mutex<Vec<String>>>;

/// The record of the clients' calls.
#[derive(Debug, Default)]
pub struct Record {
    /// Of the keys with one writer each.
    pub history: History,
    /// Acknowledged increments, by counter.
    pub incremented: [AtomicU64; COUNTERS],
    /// Increments with an unknown outcome, by counter.
    pub indeterminate: [AtomicU64; COUNTERS],
}

/// Number of keys that many clients increment by compare-and-set.
pub const COUNTERS: usize = 4;

/// The running clients.
pub struct Load {
    nodes: Nodes,
    /// The record of their calls.
    pub record: Arc<Record>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Load {
    /// Starts `writers` writers of `keys` keys each, as many readers, and two clients per counter.
    /// Loads with different names have different keys, but the same counters.
    pub fn start(nodes: Nodes, name: &str, writers: u64, keys: u64) -> Self {
        let (record, stop) = (Arc::new(Record::default()), CancellationToken::new());
        let mut load = Self { nodes, record, stop, tasks: JoinSet::new() };
        for writer in 0..writers {
            let keys: Vec<_> = (0..keys).map(|key| format!("{name}-{writer}-{key}")).collect();
            load.spawn(write(load.worker(), keys.clone()));
            load.spawn(read(load.worker(), keys));
        }
        for counter in 0..2 * COUNTERS {
            load.spawn(increment(load.worker(), counter % COUNTERS));
        }
        load
    }

    /// Waits until `writes` more writes are acknowledged.
    pub async fn goes_on(&self, writes: usize, patience: Duration) {
        let acknowledged = || self.record.history.judge().acknowledged;
        let (before, deadline) = (acknowledged(), Instant::now() + patience);
        while acknowledged() < before + writes {
            assert!(
                Instant::now() < deadline,
                "fewer than {writes} writes were acknowledged within {patience:?}"
            );
            sleep(LOOK_EVERY).await;
        }
    }

    /// Stops the clients after their open calls. Then reads every key once more, for up to
    /// `patience` each.
    pub async fn stop(mut self, patience: Duration) -> Arc<Record> {
        self.stop.cancel();
        while self.tasks.join_next().await.transpose().expect("a client panicked").is_some() {}
        let mut worker = self.worker();
        for key in self.record.history.keys() {
            let deadline = Instant::now() + patience;
            while !worker.read(&key).await {
                assert!(Instant::now() < deadline, "{key} could not be read within {patience:?}");
            }
        }
        self.record
    }

    fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(work);
    }

    fn worker(&self) -> Worker {
        let (nodes, record, stop) = (self.nodes.clone(), self.record.clone(), self.stop.clone());
        Worker { nodes, record, stop, client: None }
    }
}

struct Worker {
    nodes: Nodes,
    record: Arc<Record>,
    stop: CancellationToken,
    /// Kept until it fails, so that a client stays with a working node.
    client: Option<Client>,
}

impl Worker {
    fn client(&mut self) -> Client {
        let nodes = self.nodes.lock();
        let node = nodes.choose(&mut rand::rng()).expect("a node to call");
        self.client.get_or_insert_with(|| client(node)).clone()
    }

    /// Drops the client, to choose another node, unless this one gave an answer.
    fn drop_client_on_failure<T>(&mut self, answer: &Result<T, Status>) {
        let is_answer = answer
            .as_ref()
            .err()
            .is_none_or(|status| matches!(status.code(), Code::NotFound | Code::Aborted));
        if !is_answer {
            self.client = None;
        }
    }

    async fn put(
        &mut self,
        key: &str,
        value: u64,
        condition: Option<Kind>,
    ) -> Result<String, Status> {
        let request = PutRequest {
            key: key.to_owned().into(),
            value: value.to_string().into(),
            condition: condition.map(|kind| Condition { kind: Some(kind) }),
            ..PutRequest::default()
        };
        let answer = within(self.client().put(request)).await;
        self.drop_client_on_failure(&answer);
        Ok(answer?.version)
    }

    /// Reads a key of the history. Returns whether it was answered.
    async fn read(&mut self, key: &str) -> bool {
        let asked = Instant::now();
        let answer = self.get(key).await;
        let history = &self.record.history;
        match &answer {
            Ok(found) => history.read(key, asked, found.as_ref().map(|(number, _)| *number)),
            Err(_) => history.unavailable(key, asked),
        }
        answer.is_ok()
    }

    async fn get(&mut self, key: &str) -> Result<Option<(u64, String)>, Status> {
        let request = GetRequest { key: key.to_owned().into(), direct: false };
        let answer = within(self.client().get(request)).await;
        self.drop_client_on_failure(&answer);
        match answer {
            Ok(response) => {
                let text = String::from_utf8_lossy(&response.value).into_owned();
                let number = text.parse().expect("only numbers are written");
                Ok(Some((number, response.version)))
            }
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status),
        }
    }
}

async fn within<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    let silent = |_| Status::deadline_exceeded("no answer");
    Ok(timeout(PATIENCE, call).await.map_err(silent)??.into_inner())
}

async fn write(mut worker: Worker, keys: Vec<String>) {
    for number in 1.. {
        for key in &keys {
            if worker.stop.is_cancelled() {
                return;
            }
            let asked = Instant::now();
            match worker.put(key, number, None).await {
                Ok(_) => worker.record.history.acknowledged(key, asked, number),
                Err(_) => worker.record.history.tried(key, asked, number),
            }
        }
    }
}

async fn read(mut worker: Worker, keys: Vec<String>) {
    while !worker.stop.is_cancelled() {
        let key = keys.choose(&mut rand::rng()).expect("there are keys");
        // Repeated until it is answered, to measure for how long a key cannot be read.
        while !worker.stop.is_cancelled() && !worker.read(key).await {}
    }
}

async fn increment(mut worker: Worker, counter: usize) {
    let key = format!("counter-{counter}");
    while !worker.stop.is_cancelled() {
        let Ok(found) = worker.get(&key).await else { continue };
        let (number, condition) = match found {
            Some((number, version)) => (number, Kind::Version(version)),
            None => (0, Kind::Absent(true)),
        };
        let count = match worker.put(&key, number + 1, Some(condition)).await {
            Ok(_) => &worker.record.incremented,
            // Another client was faster, or the write had no effect.
            Err(status) if status.code() == Code::Aborted => continue,
            Err(_) => &worker.record.indeterminate,
        };
        count[counter].fetch_add(1, Ordering::Relaxed);
    }
}
