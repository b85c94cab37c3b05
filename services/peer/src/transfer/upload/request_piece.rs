//! The server side of `RequestPiece`.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{StreamExt as _, future::BoxFuture, stream, stream::BoxStream};
use http_body::Body as HttpBody;
use shoal_core::{
    content::{BLOCK_UNIT, ContentId},
    swarm::{ContentKey, LinkKey},
};
use shoal_proto::peer::v1::RequestPieceRequest;
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{Service, StdError},
    server::{Grpc, ServerStreamingService},
    service::Routes,
};

use super::{
    codec::BlockCodec,
    uploads::{BlockRequest, Outgoing, Uploads},
};
use crate::{
    store::Stored,
    transfer::protocol::{MAX_BLOCK_LENGTH, PATH, parse_ranges},
};

/// Bytes of a request: one with `MAX_RANGES` has about 1,400.
const MAX_REQUEST_BYTES: usize = 16 * 1024;

/// What the server asks the rest of the peer.
pub trait ContentIndex: Send + Sync + 'static {
    /// A content, and its key in the state machine.
    fn content(&self, id: ContentId) -> Option<(ContentKey, Arc<Stored>)>;

    /// The live link of a content whose Hello from us had this token.
    fn link(&self, content: ContentKey, token: &[u8]) -> Option<LinkKey>;
}

/// The method, as a service beside the generated one, which cannot have a codec for one method.
#[derive(Clone)]
pub struct RequestPiece {
    index: Arc<dyn ContentIndex>,
    uploads: Uploads,
}

impl RequestPiece {
    /// Serves the contents that `index` knows.
    pub fn new(index: Arc<dyn ContentIndex>, uploads: Uploads) -> Self {
        Self { index, uploads }
    }

    /// The routes including this method.
    pub fn add_to(self, routes: Routes) -> Routes {
        routes.into_axum_router().route_service(PATH, self).into()
    }

    async fn open(
        self,
        request: Request<RequestPieceRequest>,
    ) -> Result<Response<BoxStream<'static, Result<Outgoing, Status>>>, Status> {
        let request = self.parse(request.get_ref())?;
        let upload = self.uploads.open(request).await?;
        let blocks = stream::try_unfold(upload, |mut upload| async {
            Ok(upload.next().await?.map(|block| (block, upload)))
        });
        Ok(Response::new(blocks.boxed()))
    }

    fn parse(&self, request: &RequestPieceRequest) -> Result<BlockRequest, Status> {
        let id: ContentId =
            request.content_id.parse().map_err(|error| invalid("content_id", error))?;
        let block_length = parse_block_length(request.block_length)?;
        let (content, stored) = self.index.content(id).ok_or_else(|| {
            Status::not_found(format!(
                "content {id} is not here; ask a tracker for peers that have it"
            ))
        })?;
        let ranges = parse_ranges(stored.layout(), &request.ranges)?;
        let link = match &*request.link_token {
            [] => None,
            token => Some(self.index.link(content, token).ok_or_else(|| {
                Status::unauthenticated("link_token: no live link of this content has it")
            })?),
        };
        Ok(BlockRequest { content, stored, link, ranges, block_length })
    }
}

fn invalid(field: &str, error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(format!("{field}: {error}"))
}

fn parse_block_length(bytes: u32) -> Result<u32, Status> {
    if bytes > MAX_BLOCK_LENGTH || !bytes.is_multiple_of(BLOCK_UNIT) {
        let rule = format!("a multiple of {BLOCK_UNIT} up to {MAX_BLOCK_LENGTH}, not {bytes}");
        return Err(invalid("block_length", rule));
    }
    Ok(bytes)
}

impl ServerStreamingService<RequestPieceRequest> for RequestPiece {
    type Response = Outgoing;
    type ResponseStream = BoxStream<'static, Result<Outgoing, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<RequestPieceRequest>) -> Self::Future {
        Box::pin(self.clone().open(request))
    }
}

impl<B> Service<http::Request<B>> for RequestPiece
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let method = self.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(BlockCodec).max_decoding_message_size(MAX_REQUEST_BYTES);
            Ok(grpc.server_streaming(method, request).await)
        })
    }
}
