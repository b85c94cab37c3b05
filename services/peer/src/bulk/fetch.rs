//! Our calls for a neighbour's blocks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::uri::PathAndQuery;
use shoal_common::{
    Address,
    channel::{Channel, Options},
    http2::Http2,
};
use shoal_core::swarm::{ContentKey, FetchEnd, FetchKey, FetchRange, LinkKey};
use shoal_proto::peer::v1::{PieceRange, RequestPieceRequest, RequestPieceResponse};
use tokio::{runtime::Handle, sync::mpsc, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Request, Status, Streaming, client::Grpc};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt as _;
use tracing::{Instrument as _, debug};

use super::{Event, Intake, IntakeError, Lanes, MAX_BLOCK_LENGTH, RateCap, serve::PATH};
use crate::store::Stored;

/// Bytes of a message: a block and the fields around it.
pub(super) const MAX_MESSAGE_BYTES: usize = MAX_BLOCK_LENGTH as usize + 64;

/// Decodes blocks: prost passes their bytes on without a copy.
pub(super) type Codec = ProstCodec<RequestPieceRequest, RequestPieceResponse>;

/// When to retry after a refusal without a time: as soon as the neighbour may have changed its
/// mind.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The longest pause that a neighbour can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// State shared by all fetches. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Downloads(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    events: mpsc::Sender<Event>,
    cap: RateCap,
    patience: Duration,
    /// The number of [`Source`]s.
    sources: AtomicUsize,
}

impl Downloads {
    /// No fetches yet. Together they stay below `cap`, and report by `events`; one that brings
    /// nothing for as long as `patience` has failed.
    pub fn new(events: mpsc::Sender<Event>, cap: RateCap, patience: Duration) -> Self {
        Self(Arc::new(Shared { events, cap, patience, sources: AtomicUsize::new(0) }))
    }

    /// Waits until this many bytes that arrived another way may pass.
    pub async fn pass(&self, bytes: u32) {
        self.0.cap.pass(bytes).await;
    }

    /// The neighbour at `address`; the connection is made on first use.
    pub fn source(&self, lanes: &Lanes, address: &Address) -> Source {
        self.0.sources.fetch_add(1, Ordering::Relaxed);
        let connections =
            lanes.in_turn().map(|lane| Connection::new(lane.clone(), address)).collect();
        Source { connections, next: AtomicUsize::new(0), shared: Arc::clone(&self.0) }
    }
}

/// A neighbour whose blocks are requested.
///
/// One of several uses one lane, its home. The only one has a connection on each, because a
/// connection and a thread carry about 1.2 GB/s.
#[derive(Debug)]
pub struct Source {
    /// The first belongs to the home lane.
    connections: Vec<Connection>,
    next: AtomicUsize,
    shared: Arc<Shared>,
}

#[derive(Clone, Debug)]
struct Connection {
    lane: Handle,
    channel: Channel,
}

impl Connection {
    fn new(lane: Handle, address: &Address) -> Self {
        let options = Options { http2: Http2::BULK, ..Options::default() };
        let channel = {
            // The tasks of the connection belong to the lane.
            let _on_lane = lane.enter();
            Channel::lazy(address, &options)
        };
        Self { lane, channel }
    }
}

/// One fetch, as the state machine orders it.
#[derive(Clone)]
pub struct Order {
    /// Its key.
    pub fetch: FetchKey,
    /// Its link.
    pub link: LinkKey,
    /// The content.
    pub content: ContentKey,
    /// Where its bytes are stored.
    pub stored: Arc<Stored>,
    /// The ranges, in this order.
    pub ranges: Vec<FetchRange>,
    /// Bytes of a block, as in `RequestPiece`.
    pub block_length: u32,
    /// From the neighbour's Hello; empty for a stranger.
    pub link_token: Bytes,
}

impl Source {
    /// Asks the neighbour. Dropping the returned value cancels the call; a block that is just being
    /// stored is still reported, and so is the end.
    #[must_use]
    pub fn fetch(&self, order: Order) -> DropGuard {
        let connection = self.choose();
        let cancelled = CancellationToken::new();
        let fetch = Fetch {
            request: request(&order),
            grpc: Grpc::new(connection.channel.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES),
            intake: Intake::new(order, self.shared.events.clone()),
            shared: Arc::clone(&self.shared),
            cancelled: cancelled.clone(),
        };
        connection.lane.spawn(fetch.run().in_current_span());
        cancelled.drop_guard()
    }

    fn choose(&self) -> &Connection {
        if self.shared.sources.load(Ordering::Relaxed) > 1 {
            return &self.connections[0];
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        &self.connections[turn % self.connections.len()]
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.shared.sources.fetch_sub(1, Ordering::Relaxed);
    }
}

fn request(order: &Order) -> RequestPieceRequest {
    let range = |FetchRange { range, .. }: &FetchRange| PieceRange {
        piece: range.piece.get(),
        offset: range.offset,
        length: range.length,
    };
    RequestPieceRequest {
        content_id: order.stored.id().to_string(),
        ranges: order.ranges.iter().map(range).collect(),
        link_token: order.link_token.clone(),
        block_length: order.block_length,
    }
}

/// A fetch in progress.
struct Fetch {
    request: RequestPieceRequest,
    grpc: Grpc<Channel>,
    intake: Intake,
    shared: Arc<Shared>,
    cancelled: CancellationToken,
}

/// Why a fetch ends early.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the neighbour ended the call: {0}")]
    Status(#[from] Status),
    #[error("the neighbour sent nothing for too long")]
    Silent,
    #[error("the neighbour sent less than was asked for")]
    Short,
    #[error(transparent)]
    Intake(#[from] IntakeError),
    #[error("cancelled")]
    Cancelled,
}

impl Fetch {
    async fn run(mut self) {
        let received = self.receive().await;
        let fetch = self.intake.fetch.0;
        let link = self.intake.link.0;
        if let Err(error) = &received {
            debug!(fetch, link, %error, "fetch ended early");
        }
        let result = match received {
            Ok(()) => Ok(FetchEnd::Done),
            Err(FetchError::Status(status)) => Ok(end_by(&status)),
            Err(FetchError::Silent | FetchError::Short | FetchError::Cancelled) => {
                Ok(FetchEnd::Failed)
            }
            Err(FetchError::Intake(error)) => Err(error),
        };
        self.intake.end(result).await;
    }

    async fn receive(&mut self) -> Result<(), FetchError> {
        let request = std::mem::take(&mut self.request);
        let grpc = self.grpc.clone();
        let asked = Instant::now();
        let mut blocks = self.wait(call(grpc, request)).await?;
        self.intake.answered(asked.elapsed()).await;
        while !self.intake.is_complete() {
            let block = self.wait(blocks.message()).await?.ok_or(FetchError::Short)?;
            // Data that waits is not read, so the neighbour stops sending when the window is full.
            // The state machine is told afterwards, and so requests no more than may pass.
            self.shared.cap.pass(block.data.len() as u32).await;
            self.intake.take(block.piece, block.offset, block.data).await?;
        }
        Ok(())
    }

    /// Waits for the neighbour, but not forever and not when cancelled.
    async fn wait<T>(
        &self,
        answer: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, FetchError> {
        let answer = timeout(self.shared.patience, answer);
        match self.cancelled.run_until_cancelled(answer).await {
            None => Err(FetchError::Cancelled),
            Some(Err(_)) => Err(FetchError::Silent),
            Some(Ok(answer)) => Ok(answer?),
        }
    }
}

async fn call(
    mut grpc: Grpc<Channel>,
    request: RequestPieceRequest,
) -> Result<Streaming<RequestPieceResponse>, Status> {
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = Codec::new();
    let path = PathAndQuery::from_static(PATH);
    Ok(grpc.server_streaming(Request::new(request), path, codec).await?.into_inner())
}

/// The outcome of a fetch that the neighbour, or the connection to it, ended with this status.
fn end_by(status: &Status) -> FetchEnd {
    match status.code() {
        Code::Aborted | Code::ResourceExhausted => {
            let details = status.get_details_retry_info();
            let asked = details.and_then(|details| details.retry_delay);
            FetchEnd::Refused { retry_after: asked.unwrap_or(RETRY_AFTER).min(MAX_RETRY_AFTER) }
        }
        _ => FetchEnd::Failed,
    }
}
