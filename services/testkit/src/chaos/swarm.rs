//! A user of the swarm: makes a peer publish a file and all others fetch it, compares every copy
//! byte by byte, and removes the content when all peers have it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use shoal_common::lock::Mutex;
use shoal_proto::control::v1::{
    ContentState, ContentStatus, FetchRequest, ListRequest, PublishRequest, RemoveRequest,
    control_service_client::ControlServiceClient, observe_service_client::ObserveServiceClient,
};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use super::{
    plan::{PEERS, Target},
    world::Places,
};
use crate::cluster::random_bytes;

/// Number of contents at a time.
const CONTENTS: usize = 3;
/// The size of a content: a peer uploads it in 0.25 to 2 s.
const CONTENT_BYTES: std::ops::Range<usize> = 1_000_000..8_000_000;
/// How often the progress of downloads is checked.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Longest wait for a peer's answer: a stopped peer answers late or never.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);
/// The same for a publish, which hashes the file first.
const PUBLISH_PATIENCE: Duration = Duration::from_secs(10);

/// The running user.
pub(super) struct Swarm {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
    /// Cancelled when nothing more is to be published.
    calm: CancellationToken,
}

#[derive(Default)]
struct Shared {
    /// Contents that are not removed yet.
    contents: Mutex<Vec<Content>>,
    counts: Mutex<Counts>,
    flaws: Mutex<Vec<String>>,
}

/// Counts of the user's actions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Files that peers published.
    pub published: u64,
    /// Complete copies that were compared with the published file.
    pub compared: u64,
    /// Bytes of these copies.
    pub compared_bytes: u64,
    /// Downloads that failed, for example on a full disk, and were requested again.
    pub asked_again: u64,
    /// Contents that all peers removed.
    pub removed: u64,
}

/// A published file.
#[derive(Clone, Debug)]
struct Content {
    id: String,
    file: PathBuf,
    bytes: u64,
    /// The publisher, and the peers with a copy that was compared.
    done: BTreeSet<usize>,
    /// All peers have it, and are told to remove it.
    is_leaving: bool,
}

struct User {
    places: Arc<Places>,
    shared: Arc<Shared>,
    rng: StdRng,
    number: u64,
    /// The next file, until a peer has published it.
    prepared: Option<(PathBuf, u64)>,
}

impl Swarm {
    /// Starts the user.
    pub(super) fn start(places: Arc<Places>, seed: u64) -> Self {
        let (shared, calm) = (Arc::new(Shared::default()), CancellationToken::new());
        let rng = StdRng::seed_from_u64(seed);
        let user = User { places, shared: shared.clone(), rng, number: 0, prepared: None };
        Self { shared, task: tokio::spawn(user.work(calm.clone())), calm }
    }

    /// Publishes nothing more.
    pub(super) fn calm(&self) {
        self.calm.cancel();
    }

    /// The counts so far.
    pub(super) fn counts(&self) -> Counts {
        *self.shared.counts.lock()
    }

    /// The copies that differ from the published file.
    pub(super) fn flaws(&self) -> Vec<String> {
        self.shared.flaws.lock().clone()
    }

    /// A content that a peer holds, preferably one that other peers lack.
    pub(super) fn content_of(&self, peer: usize) -> Option<String> {
        let contents = self.shared.contents.lock();
        let stays = |content: &&Content| !content.is_leaving && content.done.contains(&peer);
        let held = || contents.iter().filter(stays);
        let wanted = held().find(|content| content.done.len() < PEERS);
        wanted.or(held().next()).map(|content| content.id.clone())
    }

    /// A description of each content that a peer still lacks.
    pub(super) fn missing(&self) -> Vec<String> {
        let contents = self.shared.contents.lock();
        let incomplete = contents.iter().filter(|content| content.done.len() < PEERS);
        let words = incomplete.map(|content| {
            let lack = (0..PEERS).filter(|peer| !content.done.contains(peer));
            let lack: Vec<_> = lack.map(|peer| Target::Peer(peer).to_string()).collect();
            format!("{} lack {} ({} bytes)", lack.join(", "), content.id, content.bytes)
        });
        words.collect()
    }

    /// Whether the user's task ended, which happens only if it panics.
    pub(super) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl User {
    async fn work(mut self, calm: CancellationToken) {
        loop {
            let lists = join_all((0..PEERS).map(|peer| self.list(peer))).await;
            let contents = self.shared.contents.lock().clone();
            for content in contents {
                self.advance(content, &lists, calm.is_cancelled()).await;
            }
            let staying = self.shared.contents.lock().iter().filter(|c| !c.is_leaving).count();
            if staying < CONTENTS && !calm.is_cancelled() {
                self.publish().await;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Takes the next step for a content at every peer that answers.
    async fn advance(
        &self,
        mut content: Content,
        lists: &[Option<Vec<ContentStatus>>],
        is_calm: bool,
    ) {
        let status = |peer: usize| {
            let list = lists[peer].as_ref()?;
            Some(list.iter().find(|status| status.content_id == content.id))
        };
        let known: Vec<_> =
            (0..PEERS).map(status).map(|known| known.map(Option::<&_>::cloned)).collect();
        if content.is_leaving {
            let mut left = 0;
            for (peer, status) in known.into_iter().enumerate() {
                match status {
                    Some(None) => left += 1,
                    Some(Some(_)) => self.remove(peer, &content.id).await,
                    None => {}
                }
            }
            if left == PEERS {
                self.shared.contents.lock().retain(|known| known.id != content.id);
                self.shared.counts.lock().removed += 1;
                // A file that cannot be removed is deleted with the folder at the end of the run.
                let _ = fs::remove_file(&content.file);
            }
            return;
        }
        for (peer, status) in known.into_iter().enumerate() {
            if content.done.contains(&peer) {
                continue;
            }
            match status.map(|status| status.map(|status| (status.state(), status.in_place))) {
                Some(Some((ContentState::Seeding, in_place))) => {
                    // A content seeded in place has no copy: its data is the published file.
                    if !in_place {
                        self.compare(peer, &content).await;
                    }
                    content.done.insert(peer);
                }
                Some(Some((ContentState::Failed, _))) => {
                    self.shared.counts.lock().asked_again += 1;
                    self.fetch(peer, &content.id).await;
                }
                Some(None) => self.fetch(peer, &content.id).await,
                Some(Some(_)) | None => {}
            }
        }
        content.is_leaving = content.done.len() == PEERS && !is_calm;
        let mut contents = self.shared.contents.lock();
        if let Some(known) = contents.iter_mut().find(|known| known.id == content.id) {
            *known = content;
        }
    }

    /// Makes a random peer publish the next file. If it does not confirm, another attempt follows.
    async fn publish(&mut self) {
        let Ok((file, bytes)) = self.prepare() else { return };
        let peer = self.rng.random_range(0..PEERS);
        let path = file.display().to_string();
        let asked = async {
            let mut client = ControlServiceClient::new(self.connect(peer).await?);
            client.publish(PublishRequest { path, ..PublishRequest::default() }).await
        };
        let Ok(Ok(published)) = timeout(PUBLISH_PATIENCE, asked).await else { return };
        let id = published.into_inner().content_id;
        println!("          {} published {id}, {bytes} bytes", Target::Peer(peer));
        self.prepared = None;
        let content = Content { id, file, bytes, done: BTreeSet::from([peer]), is_leaving: false };
        self.shared.contents.lock().push(content);
        self.shared.counts.lock().published += 1;
    }

    fn prepare(&mut self) -> std::io::Result<(PathBuf, u64)> {
        if let Some(prepared) = &self.prepared {
            return Ok(prepared.clone());
        }
        self.number += 1;
        let file = self.places.sources().join(format!("file-{}", self.number));
        let bytes = random_bytes(self.rng.random_range(CONTENT_BYTES), self.rng.random());
        fs::write(&file, &bytes)?;
        Ok(self.prepared.insert((file, bytes.len() as u64)).clone())
    }

    /// Compares a peer's copy with the published file.
    async fn compare(&self, peer: usize, content: &Content) {
        let data = self.places.data(Target::Peer(peer));
        let copy = data.join("contents").join(&content.id).join("blobs/1");
        let original = content.file.clone();
        let same = spawn_blocking(move || are_same(&copy, &original)).await;
        match same {
            Ok(Ok(true)) => {
                let mut counts = self.shared.counts.lock();
                counts.compared += 1;
                counts.compared_bytes += content.bytes;
            }
            other => {
                let who = Target::Peer(peer);
                let flaw = format!(
                    "the copy of {} at {who} differs from the published file: {other:?}",
                    content.id
                );
                self.shared.flaws.lock().push(flaw);
            }
        }
    }

    /// The status of all contents of a peer, if it answers.
    async fn list(&self, peer: usize) -> Option<Vec<ContentStatus>> {
        let listed = async {
            let mut client = ObserveServiceClient::new(self.connect(peer).await?);
            client.list(ListRequest {}).await
        };
        Some(timeout(ANSWER_PATIENCE, listed).await.ok()?.ok()?.into_inner().contents)
    }

    /// Requests a fetch. The next list shows whether it was received.
    async fn fetch(&self, peer: usize, id: &str) {
        let asked = async {
            let mut client = ControlServiceClient::new(self.connect(peer).await?);
            client
                .fetch(FetchRequest { content_id: id.to_owned(), ..FetchRequest::default() })
                .await
        };
        let _ = timeout(ANSWER_PATIENCE, asked).await;
    }

    /// Requests a removal. The next list shows whether it was received.
    async fn remove(&self, peer: usize, id: &str) {
        let asked = async {
            let mut client = ControlServiceClient::new(self.connect(peer).await?);
            client.remove(RemoveRequest { content_id: id.to_owned() }).await
        };
        let _ = timeout(ANSWER_PATIENCE, asked).await;
    }

    async fn connect(&self, peer: usize) -> Result<Channel, Status> {
        let socket = format!("unix:{}", self.places.control(peer).display());
        let endpoint = Endpoint::from_shared(socket).expect("the path is a valid URI");
        endpoint.connect().await.map_err(|error| Status::unavailable(error.to_string()))
    }
}

fn are_same(one: &Path, other: &Path) -> std::io::Result<bool> {
    Ok(fs::read(one)? == fs::read(other)?)
}
