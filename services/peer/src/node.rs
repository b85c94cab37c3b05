//! A running peer, used by the daemon and by one-shot commands alike.

use std::{io, num::NonZeroUsize, sync::Arc, time::Duration};

use shoal_common::{
    advertised::AdvertisedAddresses,
    health,
    http2::Http2,
    server::{self, Limits},
    supervisor::Supervisor,
    units::Rate,
};
use shoal_core::{
    Address, PeerId,
    content::{Bitfield, ContentId, Metadata},
    peer_list::PeerListSettings,
    swarm,
};
use shoal_proto::{peer::v1::peer_service_server::PeerServiceServer, types::v1::Location};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tracing::Span;

use crate::{
    checkpoint,
    engine::{self, Command, Directory, Engine, Event, MakeRoom, Parts},
    identity::Identity,
    options::Options,
    peer_service::PeerCalls,
    status::{Explanation, Status},
    store::{StoreError, Stored},
    transfer::{
        self, ContentIndex as _, DataPlane, Downloads, IoThreads, RateCap, RequestPiece,
        SocketTuning, Uploads,
    },
};

/// The gRPC services that a peer offers to others, for its health.
pub fn services() -> [&'static str; 1] {
    [health::name_of::<PeerServiceServer<PeerCalls>>()]
}

/// A call that brings nothing for this long has failed; the state machine gives up sooner.
const FETCH_PATIENCE: Duration = Duration::from_secs(60);

/// Connections from one source: a NAT with fifty peers behind it, each with a link and a connection
/// for blocks on each of up to eight threads. Unread data of a connection takes up to its window.
const CONNECTIONS_PER_SOURCE: usize = 512;

/// The settings of a peer.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its identity.
    pub peer: PeerId,
    /// The address that others dial; an unspecified host means the observed address, a port of 0
    /// that of the listener.
    pub advertise: Option<Address>,
    /// Which addresses peers that dial this one may advertise.
    pub advertised_addresses: AdvertisedAddresses,
    /// Trackers of every content.
    pub trackers: Vec<Address>,
    /// Ring nodes through which every content is announced; any one of them is enough.
    pub ring_nodes: Vec<Address>,
    /// Upload limit.
    pub max_upload: Option<Rate>,
    /// Download limit.
    pub max_download: Option<Rate>,
    /// Connections from one source at a time; none means 512.
    pub connections_per_source: Option<usize>,
    /// Threads that move blocks.
    pub io_threads: NonZeroUsize,
    /// Where it runs.
    pub location: Location,
    /// The policies of the swarm state machine.
    pub swarm: swarm::Settings,
    /// Limits on links.
    pub peer_list: PeerListSettings,
    /// Options of the sockets that blocks are sent on.
    pub sockets: SocketTuning,
}

impl NodeConfig {
    /// A peer with the textbook's defaults.
    pub fn new(peer: PeerId) -> Self {
        Self {
            peer,
            advertise: None,
            advertised_addresses: AdvertisedAddresses::default(),
            trackers: Vec::new(),
            ring_nodes: Vec::new(),
            max_upload: None,
            max_download: None,
            connections_per_source: None,
            io_threads: transfer::default_io_threads(),
            location: Location::default(),
            swarm: swarm::Settings::default(),
            peer_list: PeerListSettings::default(),
            sockets: SocketTuning::default(),
        }
    }

    /// The identity of a peer that listens at an address.
    fn identity(&self, listener: Address) -> Identity {
        let address = match self.advertise.clone() {
            Some(address) if address.port() == 0 => address.with_port(listener.port()),
            Some(address) => address,
            None => listener,
        };
        Identity { peer: self.peer, address, location: self.location.clone() }
    }

    fn data_plane(&self, events: &mpsc::Sender<transfer::Event>) -> io::Result<DataPlane> {
        let cap = RateCap::new(self.max_download);
        Ok(DataPlane {
            io_threads: Arc::new(IoThreads::start(self.io_threads)?),
            downloads: Downloads::new(events.clone(), cap, FETCH_PATIENCE),
            uploads: Uploads::new(events.clone(), RateCap::new(self.max_upload)),
            max_download: self.max_download,
        })
    }

    fn server_limits(&self) -> Limits {
        Limits {
            http2: Http2::LINK,
            request_timeout: None,
            max_connections_of_source: Some(
                self.connections_per_source.unwrap_or(CONNECTIONS_PER_SOURCE),
            ),
            ..Limits::default()
        }
    }
}

/// The peer has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer has stopped")]
pub struct Stopped;

/// The status of a content, from now on.
pub type StatusWatch = watch::Receiver<Arc<Status>>;

/// A running peer. Cheap to clone; it runs until [`Node::stop`].
#[derive(Clone)]
pub struct Node {
    events: mpsc::Sender<Event>,
    identity: Arc<Identity>,
    directory: Arc<Directory>,
    pub(crate) supervisor: Supervisor,
}

/// Ends when the peer has stopped.
pub struct Running {
    /// The engine, and the acceptor of connections.
    parts: TaskTracker,
    checkpoints: JoinHandle<()>,
    /// No more blocks arrive: the last checkpoint is due.
    drained: DropGuard,
}

impl Node {
    /// Starts a peer that listens on `listener`, on the current runtime. It ends with the process
    /// of `supervisor`, and if a part of it fails, so does the process.
    pub fn start(
        config: NodeConfig,
        supervisor: &Supervisor,
        listener: TcpListener,
    ) -> io::Result<(Self, Running)> {
        let identity = Arc::new(config.identity(listener.local_addr()?.into()));
        let directory = Arc::new(Directory::default());
        let (senders, queues) = engine::queues();
        let data_plane = config.data_plane(&senders.transfers)?;
        let io_threads = data_plane.io_threads.clone();

        let calls = PeerCalls {
            directory: directory.clone(),
            identity: identity.clone(),
            rule: config.advertised_addresses,
            links: senders.links.clone(),
        };
        let routes = server::routes(supervisor.health()).add_service(PeerServiceServer::new(calls));
        let blocks = RequestPiece::new(directory.clone(), data_plane.uploads.clone());
        let routes = blocks.add_to(routes);
        let limits = config.server_limits();
        let closing = CancellationToken::new();
        let (serving, closed) = (io_threads.clone(), closing.clone());
        let server = async move {
            serving.serve(listener, routes, &limits, &config.sockets, closed).await;
        };
        let engine = Engine::new(Parts {
            settings: config.swarm,
            peer_list: config.peer_list,
            identity: identity.clone(),
            directory: directory.clone(),
            data_plane,
            trackers: config.trackers,
            ring_nodes: config.ring_nodes,
            senders: senders.clone(),
            supervisor: supervisor.clone(),
            closing,
        });
        supervisor.spawn("io threads", io_threads.gone().clone().cancelled_owned());
        let parts = TaskTracker::new();
        // On an I/O thread, so that half of its messages wake no other thread (ADR 12).
        let engine = supervisor.lasting("engine", engine.run(queues));
        io_threads.spawn(parts.track_future(engine));
        parts.spawn(supervisor.lasting("acceptor", server));
        let drained = CancellationToken::new();
        let checkpoints = checkpoint::keep(directory.clone(), senders.transfers, drained.clone());
        let checkpoints = tokio::spawn(supervisor.lasting("checkpoints", checkpoints));
        let running = Running { parts, checkpoints, drained: drained.drop_guard() };
        let (events, supervisor) = (senders.events, supervisor.clone());
        Ok((Self { events, identity, directory, supervisor }, running))
    }

    /// Its identity.
    pub fn peer(&self) -> PeerId {
        self.identity.peer
    }

    /// The address that others dial.
    pub fn address(&self) -> &Address {
        &self.identity.address
    }

    /// Shares a stored content, and fetches its missing pieces.
    pub async fn add(&self, stored: Arc<Stored>, options: Options) -> Result<StatusWatch, Stopped> {
        self.ask(|done| Command::Add { stored, options, done }).await
    }

    /// Searches for a content, and fetches it into the room that `make_room` makes for it.
    pub async fn fetch(
        &self,
        id: ContentId,
        options: Options,
        make_room: impl FnOnce(Metadata) -> Result<Arc<Stored>, StoreError> + Send + 'static,
    ) -> Result<StatusWatch, Stopped> {
        let make_room: MakeRoom = Box::new(make_room);
        self.ask(|done| Command::Fetch { id, options, make_room, done }).await
    }

    /// Stops fetching and sharing a content; false if it was not here.
    pub async fn remove(&self, id: ContentId) -> Result<bool, Stopped> {
        self.ask(|done| Command::Remove { id, done }).await
    }

    /// The status of all contents.
    pub async fn list(&self) -> Result<Vec<Arc<Status>>, Stopped> {
        self.ask(|done| Command::List { done }).await
    }

    /// The status of one content, from now on; none if it is not here.
    pub async fn watch(&self, id: ContentId) -> Result<Option<StatusWatch>, Stopped> {
        self.ask(|done| Command::Watch { id, done }).await
    }

    /// Why one content is slow; none if it is not here.
    pub async fn explain(&self, id: ContentId) -> Result<Option<Explanation>, Stopped> {
        self.ask(|done| Command::Explain { id, done }).await
    }

    /// The held pieces of a content; none without its manifest.
    pub fn held(&self, id: ContentId) -> Option<Bitfield> {
        self.directory.content(id).map(|(_, stored)| stored.held())
    }

    /// Tells the peer to stop; [`Running::ended`] waits for it.
    pub fn stop(&self) {
        self.supervisor.ending().cancel();
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Stopped> {
        let (done, answer) = oneshot::channel();
        self.events
            .send(Event::Command(command(done), Span::current()))
            .await
            .map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}

impl Running {
    /// Waits until the peer has left its swarms and its calls have ended.
    pub async fn ended(self) {
        self.parts.close();
        self.parts.wait().await;
        // Not before: until they end, pieces arrive.
        drop(self.drained);
        // The supervisor reports a panic.
        let _ = self.checkpoints.await;
    }
}
