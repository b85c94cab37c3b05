//! The ring node: its place on the circle, and the keys that fall to it.

mod counters;
#[cfg(fuzzing)]
pub mod fuzzing;
mod membership;
mod network;
mod peer_store;
mod replication;
mod routing;
mod service;
mod settings;
pub mod storage;
mod time;
mod wire;

use shoal_common::{
    admin::{self, AdminError},
    health::{self, Health},
    server::{self, Limits},
    supervisor::{Failure, Supervisor},
};
use shoal_core::ring::{Contact, Position, Standing};
use shoal_proto::dht::v1::{
    dht_service_server::DhtServiceServer, replica_service_server::ReplicaServiceServer,
};
use tokio::{
    net::{TcpListener, lookup_host},
    task::{JoinError, spawn_blocking},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, service::interceptor::InterceptedService};
use tracing::info;

use crate::{
    membership::{
        known_nodes, leaving, own_address,
        ring::{Join, RingHandle},
    },
    network::calls::Calls,
    peer_store::PeerStore,
    replication::{
        anti_entropy::AntiEntropy,
        indeterminate::WriteMemory,
        kv::Values,
        local_replica::{LocalReplica, Quota},
        primary::Primary,
        range_cleanup::RangeCleanup,
        reconciler::Reconciler,
        repair,
    },
    routing::router::Router,
    service::{Dht, Replica},
    storage::{DataDir, Store, StoreError},
};

pub use settings::{LimitSettings, Settings};

/// The largest request: a batch of records that is handed over.
const MAX_REQUEST: usize = 4 << 20;

/// A ring node could not start, or ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its data directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It has no admin port.
    #[error("the admin port cannot be opened")]
    Admin(#[from] AdminError),
    /// Its socket has no address.
    #[error("the node's socket has no address: {0}")]
    Address(#[from] std::io::Error),
    /// The disk's worker failed.
    #[error("the disk's worker failed: {0}")]
    Worker(#[from] JoinError),
    /// A part of it failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Serves as a ring node on `listener` until `shutdown`, then hands over what it keeps.
pub async fn run(
    settings: Settings,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let directory = settings.data_dir.clone();
    let opening = spawn_blocking(move || Store::open(DataDir::open(&directory)?));
    let Some(opened) = shutdown.run_until_cancelled(opening).await else { return Ok(()) };
    let store = opened??;
    let id = store.node_id();

    let health = Health::new(&[
        health::name_of::<DhtServiceServer<Dht>>(),
        health::name_of::<ReplicaServiceServer<Replica>>(),
    ])
    .await;
    let supervisor = Supervisor::new(health.clone());
    let end = supervisor.ending().clone();
    let _ends_with_this = end.clone().drop_guard();
    let admin = admin::start(&settings.admin, &supervisor, end).await?;
    let writer = store.clone();
    supervisor.spawn("store writer", async move { writer.writer_ended().await });

    let mut others = Vec::new();
    for name in &settings.join {
        // Those that cannot be resolved now are resolved later.
        others.extend(lookup_host((name.host(), name.port())).await.into_iter().flatten());
    }
    let listening = listener.local_addr()?;
    let address = settings.advertise.clone();
    let address = address.unwrap_or_else(|| own_address::find(listening, &others));
    let me = Contact { position: Position::of_node(id, 0), id, address };

    let calls = Calls::new(&me);
    let LimitSettings { quota, keys, .. } = settings.limits;
    let quota = Quota { bytes: quota.bytes(), keys };
    metrics::gauge!("shoal_dht_quota_bytes").set(quota.bytes as f64);
    metrics::gauge!("shoal_dht_quota_keys").set(quota.keys as f64);
    let local = LocalReplica::new(id, store.clone(), quota);
    let join = Join { names: settings.join.clone(), remembered: store.known_nodes()? };
    let (ring, lookups) =
        RingHandle::start(me.clone(), time::unix_ms(), calls.clone(), join, &supervisor);
    let primary = Primary::new(local.clone(), calls.clone(), settings.tombstones_for);
    let memory = WriteMemory::default();
    let values = Values::start(local.clone(), primary.clone(), calls.clone(), memory, &supervisor);
    let anti_entropy = AntiEntropy { local: local.clone(), calls: calls.clone() };
    let reconciler =
        Reconciler::new(me.clone(), anti_entropy.clone(), primary.clone(), lookups.clone());
    let cleanup = RangeCleanup {
        me: me.clone(),
        anti_entropy: anti_entropy.clone(),
        lookups: lookups.clone(),
    };
    let repairs = repair::start(anti_entropy, values.clone(), &supervisor);
    supervisor.spawn("reconciler", reconciler.run());
    supervisor.spawn("range cleanup", cleanup.run());
    supervisor.spawn("known nodes", known_nodes::follow(store, ring.snapshot.clone()));
    let renewals = primary.clone();
    supervisor.spawn("lease renewal", async move { renewals.keep(repairs).await });

    let router = Router::new(id, lookups.clone(), calls.clone(), values.clone());
    let rule = settings.advertised_addresses;
    let swarms = PeerStore::new(id, rule, lookups, calls.clone());
    let dht = Dht { ring: ring.clone(), router, local: local.clone(), swarms, rule };
    let replica = Replica { local: local.clone(), values };
    let routes = server::routes(&health)
        .add_service(DhtServiceServer::new(dht).max_decoding_message_size(MAX_REQUEST))
        .add_service(InterceptedService::new(
            ReplicaServiceServer::new(replica).max_decoding_message_size(MAX_REQUEST),
            move |request: Request<()>| {
                wire::require_addressee(id, request.metadata()).map(|()| request)
            },
        ));
    info!(
        listen = %listening, advertise = %me.address, node_id = %id, position = %me.position,
        admin = admin.map(tracing::field::display),
        "ring node started"
    );

    let stop = CancellationToken::new();
    let membership = async {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = ready(&ring, &health) => shutdown.cancelled().await,
        }
        health.close().await;
        leaving::leave(&me, &ring, &local, &calls, settings.leave_patience).await;
        stop.cancel();
    };
    let limits = Limits {
        max_connections: settings.limits.connections as usize,
        max_connections_of_source: settings.limits.connections_per_source.map(|n| n as usize),
        ..Limits::default()
    };
    let life = async {
        // A node of which a part failed does not hand over: what it holds in memory may be wrong.
        let membership = stop.run_until_cancelled(membership);
        tokio::join!(server::serve(listener, routes, &limits, stop.clone()), membership);
        Ok(())
    };
    supervisor.supervise(&stop, Box::pin(life)).await.inspect(|()| info!("ring node stopped"))
}

/// The node is ready once it is part of a ring.
async fn ready(ring: &RingHandle, health: &Health) {
    let mut snapshot = ring.snapshot.clone();
    // The ring's task ends after the server.
    let joined = snapshot.wait_for(|now| now.routing.state.standing == Standing::Member);
    if joined.await.is_ok() {
        health.ready().await;
    }
}
