//! Load during faults and changes of the cluster: downloads by peers, and announces to trackers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use shoal_common::channel::{Channel, Options};
use shoal_core::Address;
use shoal_proto::{
    tracker::v1::{AnnounceRequest, tracker_service_client::TrackerServiceClient},
    types::v1::PeerInfo,
};

use super::{
    cluster::{Cluster, Content, Shoal, TRACKER_PORT},
    container::Container,
};

/// How long a patient client retries.
const CLIENT_PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Running clients, each of which repeats the same operation.
pub(super) struct Traffic {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<Outcome>>,
}

/// The results of a worker.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Operations that succeeded.
    pub done: u64,
    /// The errors of those that failed.
    pub failed: Vec<String>,
}

/// How often a client tries an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tries {
    /// Once: the service it calls stays up.
    Once,
    /// Repeatedly for up to 30 s, like a client with retries.
    Patiently,
}

impl Traffic {
    /// Each of these peers repeatedly fetches the content and removes it.
    pub(super) fn downloads(peers: &[Container], content: &Content, tries: Tries) -> Self {
        let mut traffic = Self { stop: Arc::default(), workers: Vec::new() };
        for peer in peers {
            let (peer, content) = (peer.clone(), content.clone());
            traffic.spawn(move || {
                attempt(tries, || beside(&peer, &["fetch", &content.id]))
                    .and_then(|()| attempt(tries, || beside(&peer, &["rm", &content.id])))
                    .with_context(|| peer.name.clone())
            });
        }
        traffic
    }

    /// A peer announces itself repeatedly, to the trackers in turn.
    pub(super) fn announces(cluster: &Cluster, content: &Content) -> anyhow::Result<Self> {
        let mut traffic = Self { stop: Arc::default(), workers: Vec::new() };
        let trackers = cluster.containers("tracker")?;
        let (runtime, id) = (cluster.runtime.handle().clone(), content.id.clone());
        let mut turn = 0;
        traffic.spawn(move || {
            attempt(Tries::Patiently, || {
                turn += 1;
                runtime.block_on(announce(&trackers[turn % trackers.len()], &id))
            })
        });
        Ok(traffic)
    }

    fn spawn(&mut self, mut work: impl FnMut() -> anyhow::Result<()> + Send + 'static) {
        let stop = self.stop.clone();
        self.workers.push(thread::spawn(move || {
            let mut outcome = Outcome::default();
            while !stop.load(Ordering::Relaxed) {
                match work() {
                    Ok(()) => outcome.done += 1,
                    Err(error) => outcome.failed.push(format!("{error:#}")),
                }
            }
            outcome
        }));
    }

    /// Stops the workers after their current operations. Fails if an operation failed, or a worker
    /// completed none.
    pub(super) fn stop(mut self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let mut done = 0;
        for worker in self.workers.drain(..) {
            let outcome = worker.join().expect("workers do not panic");
            ensure!(outcome.failed.is_empty(), "failed: {}", outcome.failed.join("; "));
            ensure!(outcome.done > 0, "a worker completed no operation");
            done += outcome.done;
        }
        Ok(done)
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            // If it is dropped without `stop`, the test has failed already.
            let _ = worker.join();
        }
    }
}

/// Runs a command `shoal` at a peer to its end.
fn beside(peer: &Container, arguments: &[&str]) -> anyhow::Result<()> {
    let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
    Shoal::beside(peer, &[], &arguments)?.output().map(drop)
}

fn attempt(tries: Tries, mut call: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let deadline = Instant::now() + CLIENT_PATIENCE;
    loop {
        let outcome = call();
        if outcome.is_ok() || tries == Tries::Once || Instant::now() >= deadline {
            return outcome;
        }
        thread::sleep(PAUSE);
    }
}

async fn announce(tracker: &Container, content_id: &str) -> anyhow::Result<()> {
    let address = Address::from(tracker.socket(TRACKER_PORT)?);
    let channel = Channel::connect(&address, &Options::default()).await?;
    let peer = PeerInfo {
        peer_id: uuid::Uuid::new_v4().to_string(),
        // No peer listens there; other peers skip it.
        address: "0.0.0.0:7072".to_owned(),
        ..PeerInfo::default()
    };
    let request = AnnounceRequest {
        content_id: content_id.to_owned(),
        peer: Some(peer),
        ..AnnounceRequest::default()
    };
    TrackerServiceClient::new(channel).announce(request).await?;
    Ok(())
}
