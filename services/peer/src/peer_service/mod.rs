//! `shoal.peer.v1.PeerService`, except for `RequestPiece`, which belongs to the data plane.

mod metadata;

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use shoal_common::advertised::AdvertisedAddresses;
use shoal_core::content::ContentId;
use shoal_proto::peer::v1::{
    Bitfield, ExchangeRequest, ExchangeResponse, GetBitfieldRequest, GetBitfieldResponse,
    GetManifestRequest, GetManifestResponse, GetPieceHashesRequest, GetPieceHashesResponse,
    peer_service_server::PeerService,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

pub(crate) use self::metadata::Manifests;
use crate::{
    engine::Directory,
    identity::Identity,
    link::{Event, Hello, IncomingLink, LinkError},
    store::Stored,
    transfer::ContentIndex as _,
};

/// Bytes in one message of a manifest or of piece hashes: the memory of each reader.
const CHUNK: usize = 64 << 10;

/// Longest wait for a dialler's Hello.
const HELLO_PATIENCE: Duration = Duration::from_secs(5);

/// Longest wait of a dialler for our own search for the manifest.
const MANIFEST_PATIENCE: Duration = Duration::from_secs(8);

/// The calls of other peers.
pub(crate) struct PeerCalls {
    pub(crate) directory: Arc<Directory>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) rule: AdvertisedAddresses,
    /// Links report to the engine.
    pub(crate) links: mpsc::Sender<Event>,
    pub(crate) manifests: Manifests,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl PeerService for PeerCalls {
    type ExchangeStream = Answers<ExchangeResponse>;
    type GetManifestStream = Answers<GetManifestResponse>;
    type GetPieceHashesStream = Answers<GetPieceHashesResponse>;

    async fn exchange(
        &self,
        request: Request<Streaming<ExchangeRequest>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let observed = request
            .remote_addr()
            .ok_or_else(|| Status::internal("the connection has no address"))?
            .ip();
        let mut incoming = request.into_inner();
        let first = timeout(HELLO_PATIENCE, incoming.message())
            .await
            .map_err(|_| LinkError::Silent)??
            .and_then(|request| request.message);
        let theirs = Hello::from_wire(first).map_err(LinkError::from)?;
        if self.directory.content(theirs.content).is_none() {
            // The caller may have the manifest that this peer is searching.
            if let Some(candidate) = theirs.candidate(observed) {
                let called = Event::Called { content: theirs.content, candidate };
                self.links.send(called).await.map_err(|_| LinkError::Stopping)?;
            }
        }
        let (content, stored) = self
            .directory
            .content_within(theirs.content, MANIFEST_PATIENCE)
            .await
            .ok_or_else(|| unknown(theirs.content))?;
        let link = IncomingLink {
            content,
            layout: stored.layout().clone(),
            ours: self.identity.hello(&stored),
            theirs,
            observed,
            rule: self.rule,
            events: self.links.clone(),
        };
        let messages = link.accept(incoming).await?;
        let answers = messages.map(|message| Ok(ExchangeResponse { message: Some(message) }));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn get_bitfield(
        &self,
        request: Request<GetBitfieldRequest>,
    ) -> Result<Response<GetBitfieldResponse>, Status> {
        let held = self.content(&request.get_ref().content_id)?.held();
        Ok(Response::new(GetBitfieldResponse {
            piece_count: held.piece_count(),
            held_count: held.held(),
            bitfield: Some(Bitfield { pieces: held.to_wire().into() }),
        }))
    }

    async fn get_manifest(
        &self,
        request: Request<GetManifestRequest>,
    ) -> Result<Response<Self::GetManifestStream>, Status> {
        let encoded = self.manifests.of(&*self.content(&request.get_ref().content_id)?);
        let total_bytes = encoded.len() as u64;
        let answers = chunks(encoded).enumerate().map(move |(n, chunk)| {
            Ok(GetManifestResponse { chunk, total_bytes: if n == 0 { total_bytes } else { 0 } })
        });
        Ok(Response::new(Box::pin(tokio_stream::iter(answers))))
    }

    async fn get_piece_hashes(
        &self,
        request: Request<GetPieceHashesRequest>,
    ) -> Result<Response<Self::GetPieceHashesStream>, Status> {
        let hashes = metadata::hashes_of(self.content(&request.get_ref().content_id)?);
        let answers = chunks(hashes).map(|hashes| Ok(GetPieceHashesResponse { hashes }));
        Ok(Response::new(Box::pin(tokio_stream::iter(answers))))
    }
}

impl PeerCalls {
    fn content(&self, id: &str) -> Result<Arc<Stored>, Status> {
        let id: ContentId = id.parse().map_err(|error: shoal_core::content::ContentIdError| {
            Status::invalid_argument(error.to_string())
        })?;
        let (_, stored) = self.directory.content(id).ok_or_else(|| unknown(id))?;
        Ok(stored)
    }
}

fn unknown(id: ContentId) -> Status {
    Status::not_found(format!("content {id} is not here"))
}

/// Splits bytes into messages, without a copy; no bytes make no message.
fn chunks(mut bytes: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || (!bytes.is_empty()).then(|| bytes.split_to(bytes.len().min(CHUNK))))
}
