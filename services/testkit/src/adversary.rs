//! Peers that violate the protocol, for tests that the other peers are not harmed.
//!
//! An adversary joins a swarm with the manifest of an honest peer, claims to hold every piece, and
//! then does one thing wrong.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, StreamExt as _, future::BoxFuture, stream};
use shoal_core::content::{Descriptor, MAX_MANIFEST_BYTES, Manifest, ManifestHashes};
use shoal_proto::{
    peer::v1::{
        self as pb, ExchangeRequest, ExchangeResponse, GetBitfieldRequest, GetBitfieldResponse,
        GetManifestRequest, GetManifestResponse, LinkMessage, RequestPieceRequest,
        RequestPieceResponse,
        link_message::Kind,
        peer_service_client::PeerServiceClient,
        peer_service_server::{PeerService, PeerServiceServer},
    },
    tracker::v1::{AnnounceEvent, AnnounceRequest, tracker_service_client::TrackerServiceClient},
    types::v1::PeerInfo,
};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    time::timeout,
};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    server::{Grpc, ServerStreamingService},
    service::Routes,
    transport::Server,
};
use tonic_prost::ProstCodec;
use tower::Service;
use uuid::Uuid;

use crate::serve::connections;

/// Longest wait until an adversary has joined.
const JOIN_PATIENCE: Duration = Duration::from_secs(30);

/// What an adversary does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vice {
    /// Sends wrong bytes.
    Poisons,
    /// Unchokes, accepts requests, and sends nothing.
    Stalls,
    /// Keeps everybody choked.
    NeverUnchokes,
    /// Claims every piece, and answers requests with NOT_FOUND.
    Lies,
    /// Sends another piece than the requested one.
    SendsAnother,
    /// Announces pieces that the content does not have.
    Babbles,
    /// Speaks only a later protocol version.
    IsFromTheFuture,
    /// Serves a forged manifest.
    ForgesManifest,
    /// Requests every piece, far beyond any limit.
    Floods,
}

/// A running adversary; stops when dropped.
pub struct Adversary {
    seen: Arc<Seen>,
    _runtime: Runtime,
}

/// What reached an adversary.
#[derive(Default)]
pub struct Seen {
    links: AtomicUsize,
    requests: AtomicUsize,
}

#[derive(Clone)]
struct Rogue {
    vice: Vice,
    id: String,
    peer: Uuid,
    address: String,
    manifest: Arc<Manifest>,
    seen: Arc<Seen>,
}

impl Adversary {
    /// Joins the swarm of a content that the peer `honest` (HOST:PORT) shares.
    pub fn join(vice: Vice, id: &str, honest: &str, tracker: &str) -> Self {
        let host = Ipv4Addr::LOCALHOST.into();
        Self::join_from(host, vice, id, honest, tracker).expect("the adversary joins")
    }

    /// The same, listening on an address of this machine. Fails if `honest` or `tracker` does not
    /// answer within 30 s.
    pub fn join_from(
        host: IpAddr,
        vice: Vice,
        id: &str,
        honest: &str,
        tracker: &str,
    ) -> anyhow::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let seen = Arc::new(Seen::default());
        let (id, honest, tracker) = (id.to_owned(), honest.to_owned(), tracker.to_owned());
        let task = start(host, vice, id, honest, tracker, seen.clone());
        runtime.block_on(async { timeout(JOIN_PATIENCE, task).await })??;
        Ok(Self { seen, _runtime: runtime })
    }

    /// Links that other peers opened to it.
    pub fn links(&self) -> usize {
        self.seen.links.load(Ordering::Relaxed)
    }

    /// Calls for blocks that it received.
    pub fn requests(&self) -> usize {
        self.seen.requests.load(Ordering::Relaxed)
    }
}

async fn start(
    host: IpAddr,
    vice: Vice,
    id: String,
    honest: String,
    tracker: String,
    seen: Arc<Seen>,
) -> anyhow::Result<()> {
    let manifest = copy_manifest(&id, &honest).await?;
    let listener = TcpListener::bind((host, 0)).await?;
    let address = listener.local_addr()?.to_string();
    let rogue = Rogue {
        vice,
        id: id.clone(),
        peer: Uuid::new_v4(),
        address: address.clone(),
        manifest: Arc::new(manifest),
        seen,
    };
    let routes: Routes = Routes::new(PeerServiceServer::new(rogue.clone()))
        .into_axum_router()
        .route_service("/shoal.peer.v1.PeerService/RequestPiece", rogue.clone())
        .into();
    tokio::spawn(Server::builder().add_routes(routes).serve_with_incoming(connections(listener)));
    if vice == Vice::Floods {
        tokio::spawn(flood(rogue.clone(), honest));
    }
    let mut tracker = TrackerServiceClient::connect(format!("http://{tracker}")).await?;
    tracker
        .announce(AnnounceRequest {
            content_id: id,
            peer: Some(rogue.info()),
            event: AnnounceEvent::Started.into(),
            ..AnnounceRequest::default()
        })
        .await?;
    Ok(())
}

async fn copy_manifest(id: &str, honest: &str) -> anyhow::Result<Manifest> {
    let mut client = PeerServiceClient::connect(format!("http://{honest}")).await?;
    let request =
        GetManifestRequest { content_id: id.to_owned(), max_manifest_bytes: MAX_MANIFEST_BYTES };
    let mut chunks = client.get_manifest(request).await?.into_inner();
    let (mut descriptor, mut manifest) = (Vec::new(), Vec::new());
    while let Some(message) = chunks.message().await? {
        descriptor.extend_from_slice(&message.descriptor);
        manifest.extend_from_slice(&message.chunk);
    }
    Ok(Manifest::decode(Descriptor::decode(&descriptor)?, manifest)?)
}

/// Opens a link to a peer and requests every piece on it, far beyond any limit.
async fn flood(rogue: Rogue, victim: String) {
    let Ok(mut client) = PeerServiceClient::connect(format!("http://{victim}")).await else {
        return;
    };
    let pieces = rogue.piece_count();
    let hello = rogue.hello();
    let requests = stream::iter([hello, message(Kind::Interested(pb::Interested {}))]).chain(
        stream::iter(0_u64..10_000).map(move |request_id| {
            let ranges = (0..64).map(|n| pb::PieceRange {
                piece: (request_id as u32 * 64 + n) % pieces,
                offset: 0,
                length: 0,
            });
            message(Kind::Request(pb::Request { request_id, ranges: ranges.collect() }))
        }),
    );
    let requests = requests.map(|message| ExchangeRequest { message: Some(message) });
    if let Ok(answer) = client.exchange(requests.chain(stream::pending())).await {
        let mut answers = answer.into_inner();
        while let Ok(Some(_)) = answers.message().await {}
    }
}

const fn message(kind: Kind) -> LinkMessage {
    LinkMessage { kind: Some(kind) }
}

impl Rogue {
    fn info(&self) -> PeerInfo {
        PeerInfo {
            peer_id: self.peer.to_string(),
            address: self.address.clone(),
            complete: true,
            ..PeerInfo::default()
        }
    }

    fn hello(&self) -> LinkMessage {
        let version = if self.vice == Vice::IsFromTheFuture { 1000 } else { 1 };
        message(Kind::Hello(pb::Hello {
            min_version: version,
            max_version: version,
            content_id: self.id.clone(),
            peer: Some(self.info()),
            link_token: vec![7; 16].into(),
            serves_nothing: false,
        }))
    }

    fn piece_count(&self) -> u32 {
        self.manifest.layout().piece_count()
    }

    fn bitfield(&self) -> pb::Bitfield {
        let count = self.piece_count();
        let full = shoal_core::content::Bitfield::full(count);
        pb::Bitfield { pieces: full.to_wire().into() }
    }

    /// Its first messages on a link.
    fn opening(&self) -> Vec<LinkMessage> {
        let mut messages = vec![self.hello(), message(Kind::Bitfield(self.bitfield()))];
        if self.vice != Vice::NeverUnchokes {
            messages.push(message(Kind::Unchoke(pb::Unchoke {})));
        }
        if self.vice == Vice::Babbles {
            messages.push(message(Kind::Have(pb::Have { pieces: vec![u32::MAX] })));
        }
        messages
    }

    /// Its answer to one requested range.
    fn answer(&self, range: &pb::PieceRange) -> RequestPieceResponse {
        let length = self
            .manifest
            .layout()
            .range(range.piece, range.offset, range.length)
            .map_or(1, |range| range.length);
        // A message holds at most 256 KiB; the rest is omitted.
        let data = vec![0xbad_u16 as u8; length.min(256 * 1024) as usize].into();
        let piece = match self.vice {
            Vice::SendsAnother => range.piece.wrapping_add(1),
            _ => range.piece,
        };
        RequestPieceResponse { piece, offset: range.offset, data }
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl PeerService for Rogue {
    type ExchangeStream = Answers<ExchangeResponse>;
    type GetManifestStream = Answers<GetManifestResponse>;

    async fn exchange(
        &self,
        request: Request<Streaming<ExchangeRequest>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        self.seen.links.fetch_add(1, Ordering::Relaxed);
        let incoming = request.into_inner().filter_map(|_| async { None });
        let opening = stream::iter(self.opening())
            .map(|message| Ok(ExchangeResponse { message: Some(message) }));
        Ok(Response::new(Box::pin(opening.chain(incoming))))
    }

    async fn get_bitfield(
        &self,
        _: Request<GetBitfieldRequest>,
    ) -> Result<Response<GetBitfieldResponse>, Status> {
        let count = self.piece_count();
        Ok(Response::new(GetBitfieldResponse {
            bitfield: Some(self.bitfield()),
            piece_count: count,
            held_count: count,
        }))
    }

    async fn get_manifest(
        &self,
        _: Request<GetManifestRequest>,
    ) -> Result<Response<Self::GetManifestStream>, Status> {
        let mut bytes = self.manifest.encoded().to_vec();
        if self.vice == Vice::ForgesManifest {
            bytes.reverse();
        }
        let answer = GetManifestResponse {
            descriptor: self.manifest.descriptor().encode().into(),
            piece_hashes: ManifestHashes::of(&self.manifest).as_bytes().to_vec().into(),
            chunk: bytes.into(),
        };
        Ok(Response::new(Box::pin(stream::iter([Ok(answer)]))))
    }
}

impl ServerStreamingService<RequestPieceRequest> for Rogue {
    type Response = RequestPieceResponse;
    type ResponseStream = Answers<RequestPieceResponse>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<RequestPieceRequest>) -> Self::Future {
        self.seen.requests.fetch_add(1, Ordering::Relaxed);
        let rogue = self.clone();
        let ranges = request.into_inner().ranges;
        Box::pin(async move {
            let answers: Answers<RequestPieceResponse> = match rogue.vice {
                Vice::Lies => return Err(Status::not_found("the piece is not here")),
                Vice::Stalls => Box::pin(stream::pending()),
                _ => Box::pin(stream::iter(ranges).map(move |range| Ok(rogue.answer(&range)))),
            };
            Ok(Response::new(answers))
        })
    }
}

impl Service<http::Request<axum::body::Body>> for Rogue {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<axum::body::Body>) -> Self::Future {
        let rogue = self.clone();
        Box::pin(async move {
            let codec = ProstCodec::<RequestPieceResponse, RequestPieceRequest>::default();
            Ok(Grpc::new(codec).server_streaming(rogue, request).await)
        })
    }
}
