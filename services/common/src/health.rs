//! `grpc.health.v1` for a service, and the question of a container's health check.

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
    address::Address,
    channel::{self, Channel},
    status::words,
};

/// The name under which a process is healthy for as long as it answers.
pub const LIVENESS: &str = "liveness";

/// Whether a process is alive, and whether it is ready.
///
/// The service `""` (asked by default) and the process's own services are healthy while it is
/// ready; [`LIVENESS`] always is. A clone reports to the same place.
#[derive(Clone, Debug)]
pub struct Health {
    reporter: HealthReporter,
    services: Vec<&'static str>,
}

impl Health {
    /// A process that serves these gRPC services and is not ready yet.
    pub async fn new(services: &[&'static str]) -> Self {
        let health = Self { reporter: HealthReporter::new(), services: services.to_vec() };
        health.reporter.set_service_status(LIVENESS, ServingStatus::Serving).await;
        health.not_ready().await;
        health
    }

    /// The process takes requests from now on.
    pub async fn ready(&self) {
        self.set(ServingStatus::Serving).await;
    }

    /// Nobody should send requests any longer.
    pub async fn not_ready(&self) {
        self.set(ServingStatus::NotServing).await;
    }

    /// The full names of the gRPC services that the process serves.
    pub fn services(&self) -> &[&'static str] {
        &self.services
    }

    /// The gRPC service that answers.
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
    /// Nobody answers.
    #[error(transparent)]
    Unreachable(#[from] channel::ConnectError),
    /// Somebody answers, but not the question.
    #[error("{address} cannot tell its health: {}", words(.status))]
    Failed {
        /// Who was asked.
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
