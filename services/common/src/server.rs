//! gRPC servers: the one place that makes them, so that mutual TLS can become a setting.
//!
//! A simple service calls [`serve`]. One that spreads its connections over several runtimes takes
//! them from [`accept`] and hands each to a [`serve_incoming`] of its choice.

mod connection;

use std::{convert::Infallible, io, time::Duration};

use bytes::Bytes;
use futures_util::Stream;
use http::{Request, Response};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    time::sleep,
};
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::{
    Status,
    body::Body,
    service::Routes,
    transport::{self, Server, server::Connected},
};
use tower::{Layer as _, Service};
use tracing::debug;

pub use connection::{Connection, accept};

use crate::{address::Address, health::Health, http2::Http2, rpc::RpcLayer};

/// What a server grants its clients. The largest message is tonic's 4 MiB unless a service says less.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections open at a time; one more is closed at once.
    pub max_connections: usize,
    /// Calls open at a time on one connection; one more waits at the client.
    pub max_streams: u32,
    /// Longest time from a request's head to its response's head, if limited.
    /// A call that streams its request has none before the last message.
    pub request_timeout: Option<Duration>,
    /// How often a quiet connection is asked for a sign of life.
    pub keepalive_interval: Duration,
    /// How long such a sign may take before the connection counts as dead.
    pub keepalive_timeout: Duration,
    /// How long calls may go on after a shutdown.
    pub drain: Duration,
    /// Windows and frames.
    pub http2: Http2,
    /// HTTP/1 is understood too.
    pub http1: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            max_streams: 256,
            request_timeout: Some(Duration::from_secs(30)),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
            drain: Duration::from_secs(2),
            http2: Http2::CONTROL,
            http1: false,
        }
    }
}

/// A listening socket could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {reason}; choose another address or stop who holds it")]
pub struct BindError {
    address: Address,
    reason: io::Error,
}

/// Listens on `address`.
pub async fn bind(address: &Address) -> Result<TcpListener, BindError> {
    TcpListener::bind((address.host(), address.port()))
        .await
        .map_err(|reason| BindError { address: address.clone(), reason })
}

/// What every server answers: health, and reflection (v1 and v1alpha) of the services that
/// `health` names. Add those services to it.
pub fn routes(health: &Health) -> Routes {
    Routes::new(health.server())
        .add_service(reflection(health).build_v1().expect(VALID))
        .add_service(reflection(health).build_v1alpha().expect(VALID))
}

const VALID: &str = "descriptors made by the build are valid";

fn reflection(health: &Health) -> tonic_reflection::server::Builder<'static> {
    let builder = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(shoal_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name("grpc.health.v1.Health")
        .with_service_name("grpc.reflection.v1.ServerReflection")
        .with_service_name("grpc.reflection.v1alpha.ServerReflection");
    health.services().iter().fold(builder, |builder, name| builder.with_service_name(*name))
}

/// The routes with a span, a count and a duration for every call, as [`serve`] has them: for who
/// serves connections with another server.
pub fn observed(
    routes: Routes,
) -> impl Service<
    Request<Body>,
    Response = Response<impl http_body::Body<Data = Bytes, Error = Status> + Send + 'static>,
    Error = Infallible,
    Future: Send + 'static,
> + Clone
+ Send
+ 'static {
    RpcLayer.layer(routes.prepare())
}

/// Serves what `listener` accepts until `shutdown`, then ends open calls within the drain time.
pub async fn serve(
    listener: TcpListener,
    routes: Routes,
    limits: &Limits,
    shutdown: CancellationToken,
) -> Result<(), transport::Error> {
    serve_incoming(accept(listener, limits.max_connections), routes, limits, shutdown).await
}

/// Serves the given connections on the current runtime, until there are no more and the last is
/// closed, or until `shutdown` and the drain time after it.
pub async fn serve_incoming<C>(
    incoming: impl Stream<Item = C>,
    routes: Routes,
    limits: &Limits,
    shutdown: CancellationToken,
) -> Result<(), transport::Error>
where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let mut server = Server::builder()
        .accept_http1(limits.http1)
        .max_concurrent_streams(limits.max_streams)
        .http2_keepalive_interval(Some(limits.keepalive_interval))
        .http2_keepalive_timeout(Some(limits.keepalive_timeout))
        .initial_stream_window_size(limits.http2.stream_window)
        .initial_connection_window_size(limits.http2.connection_window)
        .max_frame_size(limits.http2.max_frame_size)
        .layer(RpcLayer);
    if let Some(timeout) = limits.request_timeout {
        server = server.timeout(timeout);
    }
    let serving = server.add_routes(routes.prepare()).serve_with_incoming_shutdown(
        incoming.map(Ok::<_, io::Error>),
        shutdown.clone().cancelled_owned(),
    );
    let too_late = async {
        shutdown.cancelled().await;
        sleep(limits.drain).await;
    };
    tokio::select! {
        result = serving => result,
        () = too_late => {
            debug!("calls still open after the drain time are cut off");
            Ok(())
        }
    }
}
