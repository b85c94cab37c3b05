//! One accepted connection, served by hyper itself: tonic's server has no say over what a response
//! may have buffered.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use shoal_common::server::{Connection, Limits};
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body, codegen::Service, transport::server::Connected as _};
use tracing::debug;

/// Bytes that a response may have buffered before it is asked for no more. Less than a block, so
/// that no more than one waits while one is written; hyper's 400 KiB would let go of two too early.
const SEND_BUFFER_BYTES: usize = 16 * 1024;

/// Ends the connection that a request came over, among whose extensions it is.
///
/// There is no milder way: what a caller lets lie is the transport's, and stays in our memory for
/// as long as the connection does.
#[derive(Clone, Debug)]
pub(super) struct HangUp(CancellationToken);

impl HangUp {
    pub(super) fn now(&self) {
        self.0.cancel();
    }
}

pub(super) fn http2_server(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_concurrent_streams(limits.max_streams)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout)
        .initial_stream_window_size(limits.http2.stream_window)
        .initial_connection_window_size(limits.http2.connection_window)
        .max_frame_size(limits.http2.max_frame_size);
    builder
}

/// Serves a connection until it ends, or until `shutdown` and the end of the calls then open.
pub(super) async fn serve_connection<S, B>(
    http2: http2::Builder<TokioExecutor>,
    connection: Connection,
    service: S,
    shutdown: CancellationToken,
) where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible, Future: Send + 'static>,
    S: Clone + Send + 'static,
    B: http_body::Body<Data = Bytes, Error = Status> + Send + 'static,
{
    // Fails only if the other side is gone.
    let Ok(connection) = connection.adopt() else { return };
    let info = connection.connect_info();
    let hang_up = HangUp(CancellationToken::new());
    let over = hang_up.0.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(info.clone());
        request.extensions_mut().insert(hang_up.clone());
        // Routes are always ready.
        service.clone().call(request)
    });
    let mut serving = std::pin::pin!(http2.serve_connection(TokioIo::new(connection), service));
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = over.cancelled() => return,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "connection broke");
    }
}
