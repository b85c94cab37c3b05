//! Fetches by our calls of `RequestPiece`.

use std::{
    future::poll_fn,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use bytes::{BufMut as _, BytesMut};
use http::{
    HeaderValue, Method, Request, Uri, Version,
    header::{CONTENT_TYPE, TE},
};
use http_body_util::Full;
use prost::Message as _;
use shoal_common::{
    channel::{Channel, Options},
    http2::Http2,
};
use shoal_core::{Address, swarm::FetchEnd};
use shoal_proto::peer::v1::RequestPieceRequest;
use tokio::{runtime::Handle, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Status, body::Body, client::GrpcService as _};
use tonic_types::StatusExt as _;
use tracing::{Instrument as _, debug};

use super::{
    downloads::Downloads,
    fetch_spec::FetchSpec,
    receiver::{BlockReceiver, ReceiveError},
    response::{Blocks, PREFIX_BYTES},
};
use crate::transfer::{io_threads::IoThreads, protocol::PATH};

/// When to retry after a refusal without a time: as soon as the neighbour may have changed its
/// mind.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The longest pause that a neighbour can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// A neighbour whose blocks are requested.
///
/// One of several has a connection on one thread, its home. The only one has a connection on each
/// thread, because a connection and a thread carry about 1.2 GB/s.
#[derive(Debug)]
pub struct BlockSource {
    /// The first belongs to the home thread.
    connections: Vec<Connection>,
    next: AtomicUsize,
    downloads: Downloads,
}

#[derive(Clone, Debug)]
struct Connection {
    thread: Handle,
    channel: Channel,
}

impl Connection {
    fn new(thread: Handle, address: &Address) -> Self {
        let options = Options { http2: Http2::BULK, ..Options::default() };
        let channel = {
            // The tasks of the connection belong to the thread.
            let _on_thread = thread.enter();
            Channel::lazy(address, &options)
        };
        Self { thread, channel }
    }
}

impl Downloads {
    /// The neighbour at `address`; the connection is made on first use.
    pub fn source(&self, io_threads: &IoThreads, address: &Address) -> BlockSource {
        self.0.sources.fetch_add(1, Ordering::Relaxed);
        let connections = io_threads.in_turn();
        let connections = connections.map(|thread| Connection::new(thread.clone(), address));
        BlockSource {
            connections: connections.collect(),
            next: AtomicUsize::new(0),
            downloads: self.clone(),
        }
    }
}

impl BlockSource {
    /// Asks the neighbour. Dropping the returned value cancels the call; a block that is just being
    /// stored is still reported, and so is the end.
    #[must_use]
    pub fn fetch(&self, spec: FetchSpec) -> DropGuard {
        let connection = self.choose();
        let cancelled = CancellationToken::new();
        let call = Call {
            request: request(&spec),
            channel: connection.channel.clone(),
            receiver: self.downloads.receiver(spec),
            downloads: self.downloads.clone(),
            cancelled: cancelled.clone(),
        };
        connection.thread.spawn(call.run().in_current_span());
        cancelled.drop_guard()
    }

    fn choose(&self) -> &Connection {
        if self.downloads.0.sources.load(Ordering::Relaxed) > 1 {
            return &self.connections[0];
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        &self.connections[turn % self.connections.len()]
    }
}

impl Drop for BlockSource {
    fn drop(&mut self) {
        self.downloads.0.sources.fetch_sub(1, Ordering::Relaxed);
    }
}

fn request(spec: &FetchSpec) -> RequestPieceRequest {
    RequestPieceRequest {
        content_id: spec.stored.id().to_string(),
        ranges: spec.requested(),
        link_token: spec.link_token.clone(),
        block_length: spec.block_length,
    }
}

/// A call in progress.
struct Call {
    request: RequestPieceRequest,
    channel: Channel,
    receiver: BlockReceiver,
    downloads: Downloads,
    cancelled: CancellationToken,
}

/// Why a call ends early.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("the neighbour ended the call: {0}")]
    Status(#[from] Status),
    #[error("the neighbour sent nothing for too long")]
    Silent,
    #[error("the neighbour sent less than was requested")]
    Short,
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    #[error("cancelled")]
    Cancelled,
}

impl Call {
    async fn run(mut self) {
        let received = self.receive().await;
        let fetch = self.receiver.fetch.0;
        let link = self.receiver.link.0;
        if let Err(error) = &received {
            debug!(fetch, link, %error, "fetch ended early");
        }
        let result = match received {
            Ok(()) => Ok(FetchEnd::Done),
            Err(CallError::Status(status)) => Ok(end_by(&status)),
            Err(CallError::Silent | CallError::Short | CallError::Cancelled) => {
                Ok(FetchEnd::Failed)
            }
            Err(CallError::Receive(error)) => Err(error),
        };
        self.receiver.end(result).await;
    }

    async fn receive(&mut self) -> Result<(), CallError> {
        let request = std::mem::take(&mut self.request);
        let channel = self.channel.clone();
        let asked = Instant::now();
        let Self { receiver, downloads, cancelled, .. } = self;
        let patience = Patience { cancelled, limit: downloads.0.patience };
        let mut blocks = patience.wait(call(channel, request)).await?;
        receiver.answered(asked.elapsed()).await;
        while !receiver.is_complete() {
            let block = receiver.wait_for(patience.wait(blocks.next())).await?;
            let block = block.ok_or(CallError::Short)?;
            // Data that waits is not read, so the neighbour stops sending when the window is full.
            // The state machine is told afterwards, and so requests no more than may pass.
            receiver.wait_for(downloads.pass(block.data.len() as u32)).await;
            receiver.take(block.piece, block.offset, block.data).await?;
        }
        Ok(())
    }
}

/// How long a call waits for the neighbour: not forever, and not when cancelled.
struct Patience<'a> {
    cancelled: &'a CancellationToken,
    limit: Duration,
}

impl Patience<'_> {
    async fn wait<T>(
        &self,
        answer: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, CallError> {
        let answer = timeout(self.limit, answer);
        match self.cancelled.run_until_cancelled(answer).await {
            None => Err(CallError::Cancelled),
            Some(Err(_)) => Err(CallError::Silent),
            Some(Ok(answer)) => Ok(answer?),
        }
    }
}

async fn call(mut channel: Channel, request: RequestPieceRequest) -> Result<Blocks<Body>, Status> {
    let unavailable = |error: tonic::transport::Error| Status::unavailable(error.to_string());
    poll_fn(|cx| channel.poll_ready(cx)).await.map_err(unavailable)?;
    let response = channel.call(http_request(&request)).await;
    Blocks::of(response.map_err(|error| Status::from_error(error.into()))?)
}

/// A gRPC request as HTTP/2 transports it. The channel adds scheme and authority.
fn http_request(request: &RequestPieceRequest) -> Request<Body> {
    let length = request.encoded_len();
    let mut message = BytesMut::with_capacity(PREFIX_BYTES + length);
    message.put_u8(0);
    message.put_u32(length as u32);
    request.encode(&mut message).expect("there is room");
    let mut http = Request::new(Body::new(Full::new(message.freeze())));
    *http.method_mut() = Method::POST;
    *http.version_mut() = Version::HTTP_2;
    *http.uri_mut() = Uri::from_static(PATH);
    let headers = http.headers_mut();
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    http
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
