//! A user of the swarm: has peers publish files and all others fetch them, compares every copy byte by
//! byte, and has contents removed that all have.

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

/// Contents at a time.
const CONTENTS: usize = 3;
/// Bytes of a content: what a peer sends in 0.25 to 2 s.
const CONTENT_BYTES: std::ops::Range<usize> = 1_000_000..8_000_000;
/// How often it is looked how downloads go.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Longest wait for a peer's answer: one that is stopped answers later or never.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);
/// The same of a file to be published, which is hashed first.
const PUBLISH_PATIENCE: Duration = Duration::from_secs(10);

/// The user at work.
pub(super) struct Swarm {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
    /// Nothing is published any more.
    calm: CancellationToken,
}

#[derive(Default)]
struct Shared {
    /// Contents that are not removed yet.
    contents: Mutex<Vec<Content>>,
    counts: Mutex<Counts>,
    flaws: Mutex<Vec<String>>,
}

/// What the user did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Files that peers published.
    pub published: u64,
    /// Copies that were complete, and were compared with what was published.
    pub compared: u64,
    /// Bytes of these copies.
    pub compared_bytes: u64,
    /// Downloads that failed, as on a full disk, and were asked for again.
    pub asked_again: u64,
    /// Contents that all peers were told to forget.
    pub removed: u64,
}

/// A published file.
#[derive(Clone, Debug)]
struct Content {
    id: String,
    file: PathBuf,
    bytes: u64,
    /// Peers that have it: copies were compared.
    done: BTreeSet<usize>,
    /// All have it, and forget it.
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

    /// Nothing more is published.
    pub(super) fn calm(&self) {
        self.calm.cancel();
    }

    /// What the user did so far.
    pub(super) fn counts(&self) -> Counts {
        *self.shared.counts.lock()
    }

    /// Copies that differ.
    pub(super) fn flaws(&self) -> Vec<String> {
        self.shared.flaws.lock().clone()
    }

    /// A content that a peer has, if possible one that others lack.
    pub(super) fn content_of(&self, peer: usize) -> Option<String> {
        let contents = self.shared.contents.lock();
        let stays = |content: &&Content| !content.is_leaving && content.done.contains(&peer);
        let held = || contents.iter().filter(stays);
        let wanted = held().find(|content| content.done.len() < PEERS);
        wanted.or(held().next()).map(|content| content.id.clone())
    }

    /// What is not complete yet, in words.
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

    /// The user stopped by itself, which must not be.
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
                self.look_after(content, &lists, calm.is_cancelled()).await;
            }
            let staying = self.shared.contents.lock().iter().filter(|c| !c.is_leaving).count();
            if staying < CONTENTS && !calm.is_cancelled() {
                self.publish().await;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Has every peer that answers do what is next with a content.
    async fn look_after(
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
                // It stays where it is if it cannot be removed, and the run ends with its folder.
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
                    // What is in place there is the very file.
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

    /// Has one of the peers publish a file. If it does not say so, the next time another one does.
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

    /// Compares a peer's copy with what was published.
    async fn compare(&self, peer: usize, content: &Content) {
        let data = self.places.data(Target::Peer(peer));
        let copy = data.join("contents").join(&content.id).join("data");
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
                let flaw = format!("the copy of {} at {who} is not true: {other:?}", content.id);
                self.shared.flaws.lock().push(flaw);
            }
        }
    }

    /// All that a peer holds, if it answers.
    async fn list(&self, peer: usize) -> Option<Vec<ContentStatus>> {
        let listed = async {
            let mut client = ObserveServiceClient::new(self.connect(peer).await?);
            client.list(ListRequest {}).await
        };
        Some(timeout(ANSWER_PATIENCE, listed).await.ok()?.ok()?.into_inner().contents)
    }

    /// Whether it was heard shows in the next list.
    async fn fetch(&self, peer: usize, id: &str) {
        let asked = async {
            let mut client = ControlServiceClient::new(self.connect(peer).await?);
            client
                .fetch(FetchRequest { content_id: id.to_owned(), ..FetchRequest::default() })
                .await
        };
        let _ = timeout(ANSWER_PATIENCE, asked).await;
    }

    /// The same.
    async fn remove(&self, peer: usize, id: &str) {
        let asked = async {
            let mut client = ControlServiceClient::new(self.connect(peer).await?);
            client.remove(RemoveRequest { content_id: id.to_owned() }).await
        };
        let _ = timeout(ANSWER_PATIENCE, asked).await;
    }

    async fn connect(&self, peer: usize) -> Result<Channel, Status> {
        let socket = format!("unix:{}", self.places.control(peer).display());
        let endpoint = Endpoint::from_shared(socket).expect("it is a path without odd signs");
        endpoint.connect().await.map_err(|error| Status::unavailable(error.to_string()))
    }
}

fn are_same(one: &Path, other: &Path) -> std::io::Result<bool> {
    Ok(fs::read(one)? == fs::read(other)?)
}
