//! `shoal.peer.v1.PeerService`, except for `RequestPiece`, which belongs to the data plane.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use shoal_common::advertised::AdvertisedAddresses;
use shoal_core::content::{ContentId, Manifest};
use shoal_proto::peer::v1::{
    Bitfield, ExchangeRequest, ExchangeResponse, GetBitfieldRequest, GetBitfieldResponse,
    GetManifestRequest, GetManifestResponse, peer_service_server::PeerService,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    engine::Directory,
    identity::Identity,
    link::{Event, Hello, IncomingLink, LinkError},
    store::Stored,
    transfer::ContentIndex as _,
};

/// Bytes in one message of a manifest: the memory of each reader.
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
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl PeerService for PeerCalls {
    type ExchangeStream = Answers<ExchangeResponse>;
    type GetManifestStream = Answers<GetManifestResponse>;

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
            piece_count: stored.layout().piece_count(),
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
        let request = request.into_inner();
        let stored = self.content(&request.content_id)?;
        let first = GetManifestResponse {
            descriptor: stored.descriptor().encode().into(),
            piece_hashes: stored.manifest_hashes().as_bytes().to_vec().into(),
            chunk: Bytes::new(),
        };
        let is_wanted = stored.descriptor().manifest_bytes() <= request.max_manifest_bytes;
        let encoded = if is_wanted { Bytes::from_owner(Encoded(stored)) } else { Bytes::new() };
        let rest = chunks(encoded);
        let rest =
            rest.map(|chunk| GetManifestResponse { chunk, ..GetManifestResponse::default() });
        Ok(Response::new(Box::pin(tokio_stream::iter([first].into_iter().chain(rest).map(Ok)))))
    }
}

/// The encoded manifest of a content, without a copy; no bytes until it is known.
struct Encoded(Arc<Stored>);

impl AsRef<[u8]> for Encoded {
    fn as_ref(&self) -> &[u8] {
        self.0.manifest().map_or(&[], Manifest::encoded)
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
