//! Clients that write and read while a ring changes, through whichever nodes there are.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use shoal_proto::dht::v1::{Condition, GetRequest, PutRequest, condition::Kind};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::{Client, client, history::History};

/// Longest wait for an answer: longer than a node tries.
const PATIENCE: Duration = Duration::from_secs(8);

/// The nodes that clients may call at present.
pub type Nodes = Arc<Mutex<Vec<String>>>;

/// What clients did.
#[derive(Debug, Default)]
pub struct Record {
    /// Of keys with one writer each.
    pub history: History,
    /// Increments of counters that were acknowledged, by counter.
    pub incremented: [AtomicU64; COUNTERS],
    /// Increments that may have happened.
    pub doubtful: [AtomicU64; COUNTERS],
}

/// Keys that many clients increment by compare-and-set.
pub const COUNTERS: usize = 4;

/// Clients at work.
pub struct Load {
    nodes: Nodes,
    /// What they did.
    pub record: Arc<Record>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Load {
    /// Starts writers of so many keys each, as many readers, and two who increment each counter.
    pub fn start(nodes: Nodes, writers: u64, keys: u64, seed: u64) -> Self {
        let (record, stop) = (Arc::new(Record::default()), CancellationToken::new());
        let mut load = Self { nodes, record, stop, tasks: JoinSet::new() };
        for writer in 0..writers {
            let rng = StdRng::seed_from_u64(seed + 1000 * writer);
            load.spawn(write(load.worker(rng), writer, keys));
            let rng = StdRng::seed_from_u64(seed + 1000 * writer + 1);
            load.spawn(read(load.worker(rng), writers, keys));
        }
        for counter in 0..2 * COUNTERS {
            let rng = StdRng::seed_from_u64(seed + 1000 * counter as u64 + 2);
            load.spawn(increment(load.worker(rng), counter % COUNTERS));
        }
        load
    }

    /// Ends it, once what is under way is answered.
    pub async fn stop(mut self) -> Arc<Record> {
        self.stop.cancel();
        while self.tasks.join_next().await.transpose().expect("a client panicked").is_some() {}
        self.record
    }

    fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(work);
    }

    fn worker(&self, rng: StdRng) -> Worker {
        let (nodes, record, stop) = (self.nodes.clone(), self.record.clone(), self.stop.clone());
        Worker { nodes, record, stop, rng, client: None }
    }
}

struct Worker {
    nodes: Nodes,
    record: Arc<Record>,
    stop: CancellationToken,
    rng: StdRng,
    /// Kept until it fails: a client that knows a good node stays with it.
    client: Option<Client>,
}

impl Worker {
    fn client(&mut self) -> Client {
        let nodes = self.nodes.lock().expect("nothing panics while it holds the lock");
        let node = &nodes[self.rng.random_range(0..nodes.len())];
        self.client.get_or_insert_with(|| client(node)).clone()
    }

    /// Fails over to another node unless this one answers for what it says.
    fn heed<T>(&mut self, answer: &Result<T, Status>) {
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
        self.heed(&answer);
        Ok(answer?.version)
    }

    async fn get(&mut self, key: &str) -> Result<Option<(u64, String)>, Status> {
        let request = GetRequest { key: key.to_owned().into(), direct: false };
        let answer = within(self.client().get(request)).await;
        self.heed(&answer);
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

async fn write(mut worker: Worker, writer: u64, keys: u64) {
    for number in 1.. {
        for key in 0..keys {
            if worker.stop.is_cancelled() {
                return;
            }
            let key = format!("{writer}-{key}");
            let asked = Instant::now();
            match worker.put(&key, number, None).await {
                Ok(_) => worker.record.history.acknowledged(&key, asked, number),
                Err(_) => worker.record.history.tried(&key, asked, number),
            }
        }
    }
}

async fn read(mut worker: Worker, writers: u64, keys: u64) {
    while !worker.stop.is_cancelled() {
        let (writer, key) = (worker.rng.random_range(0..writers), worker.rng.random_range(0..keys));
        let key = format!("{writer}-{key}");
        // Until it is answered, so that it shows for how long a key cannot be read.
        while !worker.stop.is_cancelled() {
            let asked = Instant::now();
            match worker.get(&key).await {
                Ok(found) => {
                    let number = found.map(|(number, _)| number);
                    worker.record.history.read(&key, asked, number);
                    break;
                }
                Err(_) => worker.record.history.unavailable(&key, asked),
            }
        }
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
            // Another client was first, or nothing happened.
            Err(status) if status.code() == Code::Aborted => continue,
            Err(_) => &worker.record.doubtful,
        };
        count[counter].fetch_add(1, Ordering::Relaxed);
    }
}
