//! A server and a client, each with its own files; the test takes the place of the engine.

use std::{convert::Infallible, fs, num::NonZeroUsize, sync::Arc, time::Duration};

use bytes::Bytes;
use http::uri::PathAndQuery;
use shoal_common::{
    channel::{Channel, Options},
    http2::Http2,
    server::Limits,
    units::Rate,
};
use shoal_core::{
    Address,
    content::{ContentId, Metadata, PieceLength},
    swarm::{Attempt, ContentKey, FetchEnd, FetchKey, FetchRange, Input, LinkKey},
};
use shoal_peer::{
    store::{HashOptions, OneShot, Stored, hash},
    transfer::{
        BlockSource, ContentIndex, Downloads, Event, FetchSpec, IoThreads, RateCap, RequestPiece,
        SocketTuning, Uploads,
    },
};
use shoal_proto::peer::v1::{PieceRange, RequestPieceRequest, RequestPieceResponse};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle, time::timeout};
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{
    Request, Response, Status, Streaming, body::Body, client, codegen::Service, server,
    service::Routes,
};
use tonic_prost::ProstCodec;

/// The first piece of the file: the one before it is the manifest's. Tests count from it.
pub(crate) const FIRST: u32 = 1;

pub(crate) const CONTENT: ContentKey = ContentKey(1);
pub(crate) const LINK: LinkKey = LinkKey(1);
pub(crate) const ATTEMPT: Attempt = Attempt(1);
/// The token that the link's calls carry.
pub(crate) const TOKEN: &[u8] = b"a token";
pub(crate) const PIECE: u32 = PieceLength::MIN.get();
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

const PATH: &str = "/shoal.peer.v1.PeerService/RequestPiece";
const IO_THREADS: NonZeroUsize = NonZeroUsize::new(2).expect("not zero");
/// Longer than anything that a test waits for.
const DEADLINE: Duration = Duration::from_secs(20);

/// Pseudorandom bytes.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

pub(crate) async fn next(events: &mut mpsc::Receiver<Event>) -> Event {
    timeout(DEADLINE, events.recv()).await.expect("in time").expect("the I/O threads run")
}

/// A server with its own I/O threads, which serves until it is dropped.
pub(crate) struct Listening {
    pub(crate) address: Address,
    _stop: DropGuard,
}

pub(crate) async fn listen(routes: Routes) -> Listening {
    let io_threads = IoThreads::start(IO_THREADS).expect("threads");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").into();
    let stop = CancellationToken::new();
    let until = stop.clone();
    tokio::spawn(async move {
        let limits = Limits { stall_patience: PATIENCE, ..Limits::default() };
        let tuning = SocketTuning::default();
        io_threads.serve(listener, routes, &limits, &tuning, until).await;
    });
    Listening { address, _stop: stop.drop_guard() }
}

/// A seeder of one file, which serves as the test grants.
pub(crate) struct Seeder {
    pub(crate) bytes: Vec<u8>,
    pub(crate) stored: Arc<Stored>,
    pub(crate) uploads: Uploads,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) listening: Listening,
    pub(crate) directory: TempDir,
}

struct OneContent(Arc<Stored>);

impl ContentIndex for OneContent {
    fn content(&self, id: ContentId) -> Option<(ContentKey, Arc<Stored>)> {
        (id == self.0.id()).then(|| (CONTENT, self.0.clone()))
    }

    fn link(&self, _: ContentKey, token: &[u8]) -> Option<LinkKey> {
        (token == TOKEN).then_some(LINK)
    }
}

impl Seeder {
    pub(crate) async fn start(length: usize) -> Self {
        Self::capped(length, None).await
    }

    pub(crate) async fn capped(length: usize, cap: Option<Rate>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("source");
        let bytes = noise(length);
        fs::write(&path, &bytes).expect("written");
        let piece_length = Some(PieceLength::MIN);
        let options = HashOptions { piece_length, ..HashOptions::default() };
        let hashed = hash(&path, &options, |_| {}).expect("hashed");
        let stored = Stored::in_place(hashed);
        let (sender, events) = mpsc::channel(16);
        let uploads = Uploads::new(sender, RateCap::new(cap));
        let index = Arc::new(OneContent(stored.clone()));
        let routes = RequestPiece::new(index, uploads.clone()).add_to(Routes::default());
        let listening = listen(routes).await;
        Self { bytes, stored, uploads, events, listening, directory }
    }

    /// Grants all requests from now on. A caller may drop a call that is complete.
    pub(crate) fn grant_all(self) -> JoinHandle<u64> {
        self.grant_while(|_| true)
    }

    /// Grants all requests until a call is dropped. Returns the bytes sent until then.
    pub(crate) fn grant_until_dropped(self) -> JoinHandle<u64> {
        self.grant_while(|input| !matches!(input, Input::ServeDropped { .. }))
    }

    fn grant_while(self, goes_on: impl Fn(&Input) -> bool + Send + 'static) -> JoinHandle<u64> {
        tokio::spawn(async move {
            let Self { uploads, mut events, listening: _listening, directory: _directory, .. } =
                self;
            let mut sent = 0;
            while let Some(Event::Swarm(input)) = events.recv().await
                && goes_on(&input)
            {
                match input {
                    Input::ServeRequested { serve, ranges, .. } => {
                        uploads.grant(serve, ranges.len());
                    }
                    Input::BlockSent { bytes, .. } => sent += u64::from(bytes),
                    Input::ServeDropped { .. } => {}
                    other => panic!("{other:?}"),
                }
            }
            sent
        })
    }

    pub(crate) async fn next(&mut self) -> Event {
        next(&mut self.events).await
    }

    pub(crate) fn request(&self, pieces: &[u32]) -> RequestPieceRequest {
        let range = |piece: &u32| PieceRange { piece: FIRST + piece, offset: 0, length: 0 };
        RequestPieceRequest {
            content_id: self.stored.id().to_string(),
            ranges: pieces.iter().map(range).collect(),
            link_token: Bytes::from_static(TOKEN),
            block_length: 0,
        }
    }

    /// Calls like an ordinary gRPC client.
    pub(crate) async fn call(
        &self,
        request: RequestPieceRequest,
    ) -> Result<Streaming<RequestPieceResponse>, Status> {
        let options = Options { http2: Http2::BULK, ..Options::default() };
        let channel = Channel::lazy(&self.listening.address, &options);
        let mut grpc = client::Grpc::new(channel);
        grpc.ready().await.expect("connected");
        let codec = ProstCodec::<RequestPieceRequest, RequestPieceResponse>::new();
        let path = PathAndQuery::from_static(PATH);
        Ok(grpc.server_streaming(Request::new(request), path, codec).await?.into_inner())
    }
}

/// A peer that fetches.
pub(crate) struct Leecher {
    pub(crate) copy: OneShot,
    pub(crate) events: mpsc::Receiver<Event>,
    /// Calls that were answered.
    pub(crate) answers: usize,
    downloads: Downloads,
    io_threads: Option<IoThreads>,
    _directory: TempDir,
}

impl Leecher {
    pub(crate) fn start(of: &Seeder) -> Self {
        Self::capped(of, None)
    }

    pub(crate) fn capped(of: &Seeder, cap: Option<Rate>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let manifest = of.stored.manifest().expect("a publisher has it").clone();
        let metadata = Metadata::Manifest(manifest);
        let copy = OneShot::begin(&directory.path().join("copy"), metadata).expect("room");
        let (sender, events) = mpsc::channel(16);
        let downloads = Downloads::new(sender, RateCap::new(cap), PATIENCE);
        let io_threads = IoThreads::start(IO_THREADS).expect("threads");
        Self {
            copy,
            events,
            answers: 0,
            downloads,
            io_threads: Some(io_threads),
            _directory: directory,
        }
    }

    pub(crate) fn source(&self, address: &Address) -> BlockSource {
        self.downloads.source(self.io_threads.as_ref().expect("not stopped"), address)
    }

    pub(crate) fn stop_io_threads(&mut self) {
        self.io_threads = None;
    }

    pub(crate) fn fetch_spec(&self, pieces: &[u32]) -> FetchSpec {
        let stored = self.copy.stored().clone();
        let whole = |piece: &u32| FetchRange {
            attempt: ATTEMPT,
            range: stored.layout().range(FIRST + piece, 0, 0).expect("a piece"),
        };
        let ranges = pieces.iter().map(whole).collect();
        FetchSpec {
            fetch: FetchKey(1),
            link: LINK,
            content: CONTENT,
            stored,
            ranges,
            block_length: 16 << 10,
            link_token: Bytes::from_static(TOKEN),
        }
    }

    /// The next event; answers to calls are only counted.
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            match next(&mut self.events).await {
                Event::Swarm(Input::RoundTrip { .. }) => self.answers += 1,
                event => return event,
            }
        }
    }

    /// All events of a fetch before its end, and how it ends.
    pub(crate) async fn until_end(&mut self) -> (Vec<Event>, FetchEnd) {
        let mut before = Vec::new();
        loop {
            match self.next().await {
                Event::Swarm(Input::FetchEnded { end, .. }) => return (before, end),
                event => before.push(event),
            }
        }
    }
}

/// A neighbour that answers every call with the same messages.
#[derive(Clone)]
pub(crate) struct Parrot {
    messages: Vec<Result<RequestPieceResponse, Status>>,
    /// After the messages it keeps the call open, instead of ending it.
    stays_open: bool,
}

impl Parrot {
    pub(crate) async fn saying(messages: Vec<Result<RequestPieceResponse, Status>>) -> Listening {
        Self { messages, stays_open: false }.listen().await
    }

    pub(crate) async fn falling_silent_after(messages: Vec<RequestPieceResponse>) -> Listening {
        let messages = messages.into_iter().map(Ok).collect();
        Self { messages, stays_open: true }.listen().await
    }

    async fn listen(self) -> Listening {
        listen(Routes::default().into_axum_router().route_service(PATH, self).into()).await
    }
}

type Answers = std::pin::Pin<Box<dyn Stream<Item = Result<RequestPieceResponse, Status>> + Send>>;

impl server::ServerStreamingService<RequestPieceRequest> for Parrot {
    type Response = RequestPieceResponse;
    type ResponseStream = Answers;
    type Future = std::future::Ready<Result<Response<Answers>, Status>>;

    fn call(&mut self, _: Request<RequestPieceRequest>) -> Self::Future {
        let messages = tokio_stream::iter(self.messages.clone());
        let answers: Answers = if self.stays_open {
            Box::pin(tokio_stream::StreamExt::chain(messages, tokio_stream::pending()))
        } else {
            Box::pin(messages)
        };
        std::future::ready(Ok(Response::new(answers)))
    }
}

impl<B> Service<http::Request<B>> for Parrot
where
    B: http_body::Body + Send + 'static,
    B::Error: Into<tonic::codegen::StdError> + Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = futures_util::future::BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let parrot = self.clone();
        Box::pin(async move {
            let codec = ProstCodec::<RequestPieceResponse, RequestPieceRequest>::new();
            Ok(server::Grpc::new(codec).server_streaming(parrot, request).await)
        })
    }
}
