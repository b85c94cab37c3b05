//! The admin port: `/metrics` and gRPC health, in plaintext.

use std::{fmt, str::FromStr, time::Duration};

use axum::routing::get;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use serde::{Deserialize, Serialize};
use shoal_core::address::{Address, AddressError};
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use crate::{
    lock::Mutex,
    server::{self, BindError, Limits, WhenFull},
    supervisor::Supervisor,
};

/// Bounds of the histogram buckets of every `..._seconds` metric: 0.5 ms to 60 s.
const SECONDS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0];
/// How long a connection may be quiet: two scrapes of Prometheus, whose default is one a minute.
const IDLE_PATIENCE: Duration = Duration::from_secs(120);
/// How often recorded samples are folded into the buckets without a scrape.
const UPKEEP: Duration = Duration::from_secs(5);

/// The address of the admin port: `ADDR:PORT` or `off`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Admin {
    /// There is none, and metrics are not recorded.
    Off,
    /// It listens here.
    On(Address),
}

impl FromStr for Admin {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text == "off" { Ok(Self::Off) } else { text.parse().map(Self::On) }
    }
}

impl fmt::Display for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::On(address) => address.fmt(f),
        }
    }
}

crate::as_text!(Admin, AddressError);

/// The admin port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Its address is in use.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Another metrics recorder is installed.
    #[error("cannot record metrics")]
    Metrics(#[from] BuildError),
}

/// Records metrics from now on and serves them until `shutdown`, under a supervisor whose process
/// is ending by then. Must be called before anything is counted.
///
/// Returns the actual address, which contains the port if 0 was given.
pub async fn start(
    admin: &Admin,
    supervisor: &Supervisor,
    shutdown: CancellationToken,
) -> Result<Option<Address>, AdminError> {
    let Admin::On(address) = admin else {
        return Ok(None);
    };
    let recorder = recorder()?;
    let listener = server::bind(address).await?;
    let bound = listener.local_addr().map_or_else(|_| address.clone(), Address::from);
    // Processor time, memory, file descriptors: `process_...`, named as in Prometheus' clients.
    let process = Collector::default();
    process.describe();
    let metrics = recorder.clone();
    let router = server::routes(supervisor.health()).into_axum_router().route(
        "/metrics",
        get(async move || {
            process.collect();
            metrics.render()
        }),
    );
    let limits = Limits {
        max_connections: 64,
        // Calls are short here, and a probe that finds no place gets the process killed.
        when_full: WhenFull::CloseOldest,
        idle_patience: Some(IDLE_PATIENCE),
        http1: true,
        ..Limits::default()
    };
    tokio::spawn(supervisor.lasting("admin server", async move {
        let serving = server::serve(listener, router.into(), &limits, shutdown);
        tokio::select! {
            () = serving => {}
            () = keep_up(recorder) => {}
        }
    }));
    Ok(Some(bound))
}

async fn keep_up(recorder: PrometheusHandle) {
    let mut ticks = interval(UPKEEP);
    loop {
        ticks.tick().await;
        recorder.run_upkeep();
    }
}

/// The process's single recorder; several services in one process, as in tests, share it.
fn recorder() -> Result<PrometheusHandle, BuildError> {
    static RECORDER: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut recorder = RECORDER.lock();
    if let Some(installed) = &*recorder {
        return Ok(installed.clone());
    }
    let installed = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .install_recorder()?;
    Ok(recorder.insert(installed).clone())
}
