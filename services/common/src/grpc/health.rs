//! `grpc.health.v1` for a service, and the client of a container's health check.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use shoal_core::Address;
use tonic::server::NamedService;
use tonic_health::{
    ServingStatus,
    pb::{
        HealthCheckRequest, health_check_response, health_client::HealthClient,
        health_server::HealthServer,
    },
    server::{HealthReporter, HealthService},
};

use crate::{
    channel::{self, Channel},
    status::words,
};

/// The name under which a process is healthy while it answers.
pub const LIVENESS: &str = "liveness";

/// Whether a process is alive, and whether it is ready.
///
/// The service `""` (asked by default) and the process's own services are healthy while it is
/// ready; [`LIVENESS`] always is. Clones share their state.
#[derive(Clone, Debug)]
pub struct Health {
    reporter: HealthReporter,
    services: Vec<&'static str>,
    has_closed: Arc<AtomicBool>,
}

impl Health {
    /// A process that serves these gRPC services and is not ready yet.
    pub async fn new(services: &[&'static str]) -> Self {
        let health = Self {
            reporter: HealthReporter::new(),
            services: services.to_vec(),
            has_closed: Arc::default(),
        };
        health.reporter.set_service_status(LIVENESS, ServingStatus::Serving).await;
        health.set(ServingStatus::NotServing).await;
        health
    }

    /// The process accepts requests from now on, unless it is [closed](Self::close).
    pub async fn ready(&self) {
        self.set(ServingStatus::Serving).await;
        // Checked after the change, so that a concurrent close wins.
        if self.has_closed.load(Ordering::SeqCst) {
            self.set(ServingStatus::NotServing).await;
        }
    }

    /// No more requests should be sent, whatever is reported later.
    pub async fn close(&self) {
        self.has_closed.store(true, Ordering::SeqCst);
        self.set(ServingStatus::NotServing).await;
    }

    /// The full names of the gRPC services of the process.
    pub fn services(&self) -> &[&'static str] {
        &self.services
    }

    /// The gRPC health service.
    pub(crate) fn server(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()))
    }

    async fn set(&self, status: ServingStatus) {
        for service in self.services.iter().copied().chain([""]) {
            self.reporter.set_service_status(service, status).await;
        }
    }
}

/// The full name of a generated gRPC server, such as `shoal.tracker.v1.TrackerService`.
pub const fn name_of<S: NamedService>() -> &'static str {
    S::NAME
}

/// Why a process is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// It does not answer.
    #[error(transparent)]
    Unreachable(#[from] channel::ConnectError),
    /// It answers with an error.
    #[error("{address} cannot tell its health: {}", words(.status))]
    Failed {
        /// Its address.
        address: Address,
        /// The answer.
        status: Box<tonic::Status>,
    },
    /// It is starting or stopping.
    #[error("{0} is not ready")]
    NotReady(Address),
}

/// Asks the process at `address` whether it is ready.
pub async fn check(address: &Address) -> Result<(), Unhealthy> {
    let channel = Channel::connect(address, &channel::Options::default()).await?;
    let response = HealthClient::new(channel).check(HealthCheckRequest::default()).await.map_err(
        |status| Unhealthy::Failed { address: address.clone(), status: Box::new(status) },
    )?;
    match response.into_inner().status() {
        health_check_response::ServingStatus::Serving => Ok(()),
        _ => Err(Unhealthy::NotReady(address.clone())),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use tonic_health::pb::health_server::Health as _;

    use super::*;

    /// What `health` answers about the whole process.
    pub(crate) async fn is_ready(health: &Health) -> bool {
        let service = HealthService::from_health_reporter(health.reporter.clone());
        let request = tonic::Request::new(HealthCheckRequest::default());
        let answer = service.check(request).await.expect("it is known").into_inner();
        answer.status() == health_check_response::ServingStatus::Serving
    }

    #[tokio::test]
    async fn a_process_that_has_closed_is_never_ready_again() {
        let health = Health::new(&["shoal.test.Service"]).await;
        assert!(!is_ready(&health).await);
        health.ready().await;
        assert!(is_ready(&health).await);
        health.close().await;
        assert!(!is_ready(&health).await);
        health.ready().await;
        assert!(!is_ready(&health).await);
    }
}
