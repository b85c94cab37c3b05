//! Traffic while things happen to the cluster: downloads by peers, and announces to trackers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use shoal_common::{
    Address,
    channel::{Channel, Options},
};
use shoal_proto::{
    tracker::v1::{AnnounceRequest, tracker_service_client::TrackerServiceClient},
    types::v1::PeerInfo,
};

use super::{
    cluster::{Cluster, Content, Shoal, TRACKER_PORT},
    container::Container,
};

/// How long a client tries before it gives up.
const CLIENT_PATIENCE: Duration = Duration::from_secs(30);
/// Between two attempts of a client.
const PAUSE: Duration = Duration::from_millis(100);

/// What became of what clients did, over and over.
pub(super) struct Traffic {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<Outcome>>,
}

/// What a worker, or all of them, got done.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// What succeeded.
    pub done: u64,
    /// What failed, with the reasons.
    pub failed: Vec<String>,
}

/// How often a client tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tries {
    /// Once: what is asked does not go away.
    Once,
    /// For as long as a client with retries would.
    Patiently,
}

impl Traffic {
    /// Each of these peers fetches the content and removes it, again and again.
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

    /// Peers announce themselves, at whichever tracker answers.
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

    /// Ends it once what is under way is over. Fails if anything failed, or a worker got nothing done.
    pub(super) fn stop(mut self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let mut done = 0;
        for worker in self.workers.drain(..) {
            let outcome = worker.join().expect("workers do not panic");
            ensure!(outcome.failed.is_empty(), "failed: {}", outcome.failed.join("; "));
            ensure!(outcome.done > 0, "one got nothing done");
            done += outcome.done;
        }
        Ok(done)
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            // Whoever drops it has failed already.
            let _ = worker.join();
        }
    }
}

/// Runs the command `shoal` beside a peer, to its end.
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
        // Nobody is there; peers go round that.
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
