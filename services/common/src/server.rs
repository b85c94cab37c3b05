//! gRPC servers: the single place that creates them, so that mutual TLS can become a setting.
//!
//! A simple service calls [`serve`]. A service that spreads its connections over several runtimes
//! takes them from [`accept`] and has each served by [`serve_connection`] on a runtime of its
//! choice.
//!
//! All limits for strangers are enforced here, for all services: connections, the length, time and
//! memory of requests, and responses that are not read.

mod connection;
mod http;
mod places;

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use ::http::{Request, Response};
use bytes::Bytes;
use futures_util::Stream;
use tokio::{net::TcpListener, task::JoinSet, time::sleep};
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body, service::Routes};
use tower::{Layer as _, Service};
use tracing::debug;

pub use self::{
    connection::{Connection, accept},
    http::{Accepted, serve_connection},
    places::{Caller, WhenFull},
};
pub use crate::rpc::Budget;

use crate::{address::Address, health::Health, http2::Http2, rpc::RpcLayer};

/// The limits of a server for its clients.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open connections. If there is one more, an idle one is closed, or else the new one.
    pub max_connections: usize,
    /// Of these, from one source: an IPv4 address or an IPv6 /64. None means half of all.
    pub max_connections_of_source: Option<usize>,
    /// Which connection is closed then.
    pub when_full: WhenFull,
    /// How long a connection may have no call, if limited.
    pub idle_patience: Option<Duration>,
    /// A caller that reads nothing of a response for this long, up to twice as long, is
    /// disconnected.
    pub stall_patience: Duration,
    /// Open calls on one connection; further ones wait at the client.
    pub max_streams: u32,
    /// Longest time from a request's head to its response's head, if limited. A call that streams
    /// its request has no limit before the last message.
    pub request_timeout: Option<Duration>,
    /// How often a quiet connection is pinged.
    pub keepalive_interval: Duration,
    /// How long a ping may take before the connection counts as dead.
    pub keepalive_timeout: Duration,
    /// How long calls may continue after a shutdown.
    pub drain: Duration,
    /// Windows and frames.
    pub http2: Http2,
    /// HTTP/1 is accepted too.
    pub http1: bool,
    /// The memory budget of messages; the process's, unless callers are more trusted than
    /// strangers.
    pub budget: Arc<Budget>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            max_connections_of_source: None,
            when_full: WhenFull::CloseIdle,
            idle_patience: None,
            stall_patience: Duration::from_secs(30),
            max_streams: 256,
            request_timeout: Some(Duration::from_secs(30)),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(20),
            drain: Duration::from_secs(2),
            http2: Http2::CONTROL,
            http1: false,
            budget: Budget::of_process(),
        }
    }
}

impl Limits {
    fn of_source(&self) -> usize {
        self.max_connections_of_source.unwrap_or_else(|| self.max_connections.div_ceil(2))
    }
}

/// A listening socket could not be opened.
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

/// What every server has: health, and reflection (v1 and v1alpha) of the services that `health`
/// names. Those services must be added to it.
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

/// The routes with a span, a count and a duration for every call, as in [`serve`]: for connections
/// that are served by another server.
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

/// Serves the connections of `listener` until `shutdown`, then ends open calls within the drain
/// time.
pub async fn serve(
    listener: TcpListener,
    routes: Routes,
    limits: &Limits,
    shutdown: CancellationToken,
) {
    serve_incoming(accept(listener, limits), routes, limits, shutdown).await;
}

/// Serves the given connections on the current runtime, until there are no more and the last is
/// closed, or until `shutdown` and the drain time after it.
pub async fn serve_incoming<C: Accepted>(
    incoming: impl Stream<Item = C>,
    routes: Routes,
    limits: &Limits,
    shutdown: CancellationToken,
) {
    let service = observed(routes);
    let limits = Arc::new(limits.clone());
    let mut incoming = std::pin::pin!(incoming);
    let mut open = JoinSet::new();
    loop {
        let connection = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = open.join_next() => continue,
            connection = incoming.next() => connection,
        };
        let Some(connection) = connection else { break };
        let (service, shutdown) = (service.clone(), shutdown.clone());
        open.spawn(serve_connection(connection, service, Arc::clone(&limits), shutdown));
    }
    let ended = async { while open.join_next().await.is_some() {} };
    let too_late = async {
        shutdown.cancelled().await;
        sleep(limits.drain).await;
    };
    tokio::select! {
        () = ended => {}
        () = too_late => debug!("calls still open after the drain time are cut off"),
    }
}
