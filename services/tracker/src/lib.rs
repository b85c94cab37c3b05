//! The tracker service: stores the peers of each swarm for as long as they announce themselves.

mod request;
mod service;
mod settings;
mod shards;

use std::{sync::Arc, time::Instant};

use shoal_common::{
    admin::{self, AdminError},
    health::{self, Health},
    server::{self, Limits},
    supervisor::{Failure, Supervisor},
};
use shoal_proto::tracker::v1::tracker_service_server::TrackerServiceServer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{service::Tracker, shards::Shards};

pub use settings::{LimitSettings, Percent, Settings};

/// A tracker could not start, or ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It has no admin port.
    #[error("the admin port cannot be opened")]
    Admin(#[from] AdminError),
    /// A part of it failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Runs a tracker on `listener` until `shutdown`, then ends open calls.
pub async fn run(
    settings: Settings,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let health = Health::new(&[health::name_of::<TrackerServiceServer<Tracker>>()]).await;
    let supervisor = Supervisor::new(health.clone());
    // The admin port ends after the server: until then it reports that the tracker is not ready.
    let end = supervisor.ending().clone();
    let _ends_with_this = end.clone().drop_guard();
    let admin = admin::start(&settings.admin, &supervisor, end).await?;
    let shards = Arc::new(Shards::new(&settings, Instant::now()));
    supervisor.spawn("sweep of the shards", Arc::clone(&shards).sweep());

    let tracker = TrackerServiceServer::new(Tracker::new(shards, settings.advertised_addresses))
        .max_decoding_message_size(request::MAX_BYTES);
    let routes = server::routes(&health).add_service(tracker);
    info!(
        listen = listener.local_addr().map(tracing::field::display).ok(),
        admin = admin.map(tracing::field::display),
        "tracker started"
    );
    health.ready().await;

    let stop = shutdown.child_token();
    let limits = limits(&settings);
    let life = async {
        let closing = async {
            stop.cancelled().await;
            health.close().await;
        };
        tokio::join!(server::serve(listener, routes, &limits, stop.clone()), closing);
        Ok(())
    };
    supervisor.supervise(&stop, Box::pin(life)).await.inspect(|()| info!("tracker stopped"))
}

fn limits(settings: &Settings) -> Limits {
    Limits {
        max_connections: settings.limits.connections as usize,
        max_connections_of_source: settings.limits.connections_per_source.map(|n| n as usize),
        ..Limits::default()
    }
}
