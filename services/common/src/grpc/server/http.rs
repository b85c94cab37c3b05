//! One accepted connection, served by hyper directly: tonic's server cannot limit the buffer of a
//! response, and cannot disconnect.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
    time::{interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{Status, body::Body, transport::server::Connected};
use tower::Service;
use tracing::debug;

use super::{
    caller::{Caller, OpenCall},
    connection::Connection,
    limits::Limits,
};
use crate::grpc::rpc::{self, Charge, Parts, ReceivedBody, SentBody};

/// Bytes that a response may have buffered before it is asked for no more. Less than a block, so
/// that only one waits while another is written; hyper's 400 KiB would let go of two too early.
const SEND_BUFFER_BYTES: usize = 16 * 1024;
/// How often idle connections are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A connection that a server can serve.
pub trait Accepted: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static {
    /// The other end.
    fn caller(&self, limits: &Limits) -> Arc<Caller>;

    /// The same connection, driven by the current runtime instead of the one that accepted it.
    fn adopt(self) -> io::Result<Self>
    where
        Self: Sized;
}

impl Accepted for Connection {
    fn caller(&self, _: &Limits) -> Arc<Caller> {
        Arc::clone(self.slot().caller())
    }

    fn adopt(self) -> io::Result<Self> {
        Self::adopt(self)
    }
}

/// A socket in the file system, which needs no slots: its users are on this host.
impl Accepted for UnixStream {
    fn caller(&self, limits: &Limits) -> Arc<Caller> {
        Caller::new(None, Arc::clone(&limits.budget))
    }

    fn adopt(self) -> io::Result<Self> {
        Ok(self)
    }
}

/// Serves a connection on the current runtime until it ends, or until `shutdown` and the end of the
/// calls that are open then. A caller that reads nothing of a response for too long is
/// disconnected.
pub async fn serve_connection<C, S, B>(
    connection: C,
    service: S,
    limits: Arc<Limits>,
    shutdown: CancellationToken,
) where
    C: Accepted,
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible, Future: Send + 'static>,
    S: Clone + Send + 'static,
    B: http_body::Body<Data = Bytes, Error = Status> + Send + 'static,
{
    // Fails only if the other side is gone.
    let Ok(connection) = connection.adopt() else { return };
    let caller = connection.caller(&limits);
    let (info, called) = (connection.connect_info(), Arc::clone(&caller));
    let patience = limits.request_timeout;
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(info.clone());
        // Routes are always ready.
        call(service.clone(), request, &called, patience)
    });
    let io = TokioIo::new(connection);
    macro_rules! serve {
        ($builder:expr) => {{
            let builder = $builder;
            let mut serving = std::pin::pin!(builder.serve_connection(io, service));
            let ended = tokio::select! {
                ended = &mut serving => ended,
                () = shutdown.cancelled() => {
                    serving.as_mut().graceful_shutdown();
                    serving.await
                }
            };
            ended.map_err(|error| error.to_string())
        }};
    }
    // Two types of connection without a common trait.
    let ended = async {
        if limits.http1 { serve!(either_version(&limits)) } else { serve!(version_2(&limits)) }
    };
    // A task of its own; otherwise each frame would poll its timers.
    let _watch =
        AbortOnDropHandle::new(tokio::spawn(hang_up_once_useless(caller.clone(), limits.clone())));
    tokio::select! {
        ended = ended => if let Err(error) = ended {
            debug!(error, "connection broke");
        },
        () = caller.hang_up.cancelled() => debug!("hung up"),
    }
}

/// Disconnects a caller whose connection is of no use.
async fn hang_up_once_useless(caller: Arc<Caller>, limits: Arc<Limits>) {
    let reason = useless(&caller, &limits).await;
    metrics::counter!("shoal_connections_hung_up_total", "reason" => reason).increment(1);
    debug!(reason, "a connection is of no use");
    caller.hang_up.cancel();
}

/// Returns when the connection is of no use, with the reason.
async fn useless(caller: &Caller, limits: &Limits) -> &'static str {
    let stalled = async {
        let mut looks = interval(limits.stall_patience);
        loop {
            looks.tick().await;
            if caller.stalls() {
                return "stalled";
            }
        }
    };
    let idle = async {
        let Some(patience) = limits.idle_patience else { return std::future::pending().await };
        let mut looks = interval(LOOK_EVERY);
        loop {
            looks.tick().await;
            if caller.idle_since().is_some_and(|since| since.elapsed() >= patience) {
                return "idle";
            }
        }
    };
    tokio::select! {
        reason = stalled => reason,
        reason = idle => reason,
    }
}

/// Has the service answer a request, within limits.
fn call<S, B>(
    mut service: S,
    request: Request<Incoming>,
    caller: &Arc<Caller>,
    patience: Option<Duration>,
) -> impl Future<Output = Result<Response<SentBody<Body, OpenCall>>, Infallible>> + use<S, B>
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body<Data = Bytes, Error = Status> + Send + 'static,
{
    let method = rpc::called_by(request.uri().path());
    let (open, turns) = caller.begin();
    let received = Arc::new(Charge::new(Arc::clone(&caller.flow)));
    let charge = Arc::clone(&received);
    let answer =
        service.call(request.map(|body| Body::new(ReceivedBody::of_request(body, method, charge))));
    let parts = if method.is_some_and(rpc::Method::is_bulk) {
        Parts::Frames
    } else {
        Parts::Small(Charge::new(Arc::clone(&caller.flow)))
    };
    async move {
        let answered = match patience {
            None => Some(answer.await),
            Some(patience) => timeout(patience, answer).await.ok(),
        };
        // Until it has answered, the handler may need the received messages.
        drop(received);
        let response = match answered {
            Some(Ok(response)) => response.map(Body::new),
            None => Status::deadline_exceeded("the call took too long here").into_http(),
        };
        Ok(response.map(|body| SentBody::new(body, turns, parts, open)))
    }
}

/// Two builders without a common trait.
macro_rules! limited {
    ($builder:expr, $limits:expr) => {
        $builder
            .timer(TokioTimer::new())
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .max_concurrent_streams($limits.max_streams)
            .keep_alive_interval($limits.keepalive_interval)
            .keep_alive_timeout($limits.keepalive_timeout)
            .initial_stream_window_size($limits.http2.stream_window)
            .initial_connection_window_size($limits.http2.connection_window)
            .max_frame_size($limits.http2.max_frame_size)
    };
}

fn version_2(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    limited!(builder, limits);
    builder
}

fn either_version(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.idle_patience);
    limited!(builder.http2(), limits);
    builder
}
