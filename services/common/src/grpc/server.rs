//! gRPC servers: the single place that creates them, so that mutual TLS can become a setting.
//!
//! A simple service calls [`serve`]. A service that spreads its connections over several runtimes
//! takes them from [`accept`] and has each served by [`serve_connection`] on a runtime of its
//! choice.
//!
//! All limits for strangers are enforced here, for all services: connections, the length, time and
//! memory of requests, and responses that are not read.

mod caller;
mod connection;
mod http;
mod limits;
mod slots;

use std::{convert::Infallible, io, sync::Arc};

use ::http::{Request, Response};
use bytes::Bytes;
use futures_util::Stream;
use shoal_core::Address;
use tokio::{net::TcpListener, task::JoinSet, time::sleep};
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body, service::Routes};
use tower::{Layer as _, Service};
use tracing::debug;

pub use self::{
    caller::Caller,
    connection::{Connection, accept},
    http::{Accepted, serve_connection},
    limits::Limits,
    slots::WhenFull,
};
pub use super::rpc::Budget;

use super::{health::Health, rpc::RpcLayer};

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
