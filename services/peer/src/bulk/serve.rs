//! `RequestPiece` on the server's side.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{StreamExt as _, future::BoxFuture, stream, stream::BoxStream};
use http_body::Body as HttpBody;
use shoal_core::{
    content::{BLOCK_UNIT, BlockRange, ContentId, Layout},
    swarm::{ContentKey, LinkKey},
};
use shoal_proto::peer::v1::{PieceRange, RequestPieceRequest};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{Service, StdError},
    server::{Grpc, ServerStreamingService},
    service::Routes,
};
use tracing::debug;

use super::{
    MAX_BLOCK_LENGTH,
    codec::{BlockCodec, Outgoing},
    connection::HangUp,
    upload::{Ask, Upload, UploadEnd, Uploads},
};
use crate::store::Stored;

/// Where clients call it.
pub(super) const PATH: &str = "/shoal.peer.v1.PeerService/RequestPiece";

/// Ranges of one call, at most.
pub const MAX_RANGES: usize = 64;

/// Bytes of a request: one with [`MAX_RANGES`] has about 1,400.
const MAX_REQUEST_BYTES: usize = 16 * 1024;

/// How long a caller may take nothing; then it does so on purpose.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the server asks the rest of the peer.
pub trait Desk: Send + Sync + 'static {
    /// A content that is here, and its key in the brain.
    fn content(&self, id: ContentId) -> Option<(ContentKey, Arc<Stored>)>;

    /// The live link of a content that our Hello gave this token.
    fn link(&self, content: ContentKey, token: &[u8]) -> Option<LinkKey>;
}

/// The method, as a service beside the generated one, which has no room for a codec of one method.
#[derive(Clone)]
pub struct RequestPiece {
    desk: Arc<dyn Desk>,
    uploads: Uploads,
    patience: Duration,
}

impl RequestPiece {
    /// Serves the contents that `desk` knows.
    pub fn new(desk: Arc<dyn Desk>, uploads: Uploads) -> Self {
        Self { desk, uploads, patience: PATIENCE }
    }

    /// Hangs up on a caller that takes nothing of what it asked for, for so long or twice as long.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The routes with this method among them.
    pub fn add_to(self, routes: Routes) -> Routes {
        routes.into_axum_router().route_service(PATH, self).into()
    }

    async fn open(
        self,
        request: Request<RequestPieceRequest>,
    ) -> Result<Response<BoxStream<'static, Result<Outgoing, Status>>>, Status> {
        let ask = self.parse(request.get_ref())?;
        let upload = self.uploads.open(ask).await?;
        let turns = Arc::new(AtomicU64::new(0));
        let watch = request.extensions().get::<HangUp>().map(|hang_up| {
            let watch = hang_up_on_stall(turns.clone(), self.patience, hang_up.clone());
            AbortOnDropHandle::new(tokio::spawn(watch))
        });
        let serving = Serving { upload, turns, _watch: watch };
        let blocks = stream::try_unfold(serving, |mut serving| async {
            Ok(serving.next().await?.map(|block| (block, serving)))
        });
        Ok(Response::new(blocks.boxed()))
    }

    fn parse(&self, request: &RequestPieceRequest) -> Result<Ask, Status> {
        let id: ContentId =
            request.content_id.parse().map_err(|error| invalid("content_id", error))?;
        let block_length = parse_block_length(request.block_length)?;
        let (content, stored) = self.desk.content(id).ok_or_else(|| {
            Status::not_found(format!("content {id} is not here; ask the tracker who has it"))
        })?;
        let ranges = parse_ranges(stored.layout(), &request.ranges)?;
        let link = match &*request.link_token {
            [] => None,
            token => Some(self.desk.link(content, token).ok_or_else(|| {
                Status::unauthenticated("link_token: no live link of this content has it")
            })?),
        };
        Ok(Ask { content, stored, link, ranges, block_length })
    }
}

/// A call under way.
struct Serving {
    upload: Upload,
    /// Counts up when the transport has room, and again when it is given a block: even means that
    /// the caller is to move.
    turns: Arc<AtomicU64>,
    _watch: Option<AbortOnDropHandle<()>>,
}

impl Serving {
    async fn next(&mut self) -> Result<Option<Outgoing>, UploadEnd> {
        self.turns.fetch_add(1, Ordering::Relaxed);
        let block = self.upload.next().await;
        self.turns.fetch_add(1, Ordering::Relaxed);
        block
    }
}

async fn hang_up_on_stall(turns: Arc<AtomicU64>, patience: Duration, hang_up: HangUp) {
    let mut before = None;
    loop {
        sleep(patience).await;
        let turn = turns.load(Ordering::Relaxed);
        if turn.is_multiple_of(2) && before == Some(turn) {
            debug!("hung up on a caller that takes nothing");
            hang_up.now();
            return;
        }
        before = Some(turn);
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

/// The ranges of a request, in order, if they lie within the content.
pub fn parse_ranges(layout: &Layout, ranges: &[PieceRange]) -> Result<Vec<BlockRange>, Status> {
    if !(1..=MAX_RANGES).contains(&ranges.len()) {
        return Err(invalid("ranges", format!("1 to {MAX_RANGES} of them, not {}", ranges.len())));
    }
    ranges
        .iter()
        .map(|range| layout.range(range.piece, range.offset, range.length))
        .collect::<Result<_, _>>()
        .map_err(|error| Status::out_of_range(format!("ranges: {error}")))
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
