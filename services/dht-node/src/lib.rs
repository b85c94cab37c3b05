//! The ring node: its place on the circle, and the keys that fall to it.

mod calls;
mod caretaker;
mod dials;
mod doubts;
#[cfg(fuzzing)]
pub mod fuzzing;
mod keeper;
mod kv;
mod leaving;
mod lookup;
mod own_address;
mod primary;
mod refusal;
mod remembered;
mod repair;
mod ring;
mod router;
mod service;
mod settings;
mod settlement;
pub mod store;
mod surroundings;
mod swarms;
mod sync;
mod takeover;
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
    calls::Calls,
    caretaker::Caretaker,
    doubts::Room,
    keeper::{Keeper, Quota},
    kv::Values,
    primary::Primary,
    ring::{Join, Ring},
    router::Router,
    service::{Dht, Replica},
    settlement::Settlement,
    store::{DataDir, Store, StoreError},
    swarms::Swarms,
    sync::Sync,
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
    let me =
        Contact { position: Position::of_node(id, 0), id, address: address.to_string().into() };

    let calls = Calls::new(&me);
    let LimitSettings { quota, keys, .. } = settings.limits;
    let quota = Quota { bytes: quota.bytes(), keys };
    metrics::gauge!("shoal_dht_quota_bytes").set(quota.bytes as f64);
    metrics::gauge!("shoal_dht_quota_keys").set(quota.keys as f64);
    let keeper = Keeper::new(id, store.clone(), quota);
    let join = Join { names: settings.join.clone(), remembered: remembered::load(&store)? };
    let (ring, lookups) =
        Ring::start(me.clone(), time::unix_ms(), calls.clone(), join, &supervisor);
    let primary = Primary::new(keeper.clone(), calls.clone(), settings.tombstones_for);
    let room = Room::default();
    let values = Values::start(keeper.clone(), primary.clone(), calls.clone(), room, &supervisor);
    let sync = Sync { keeper: keeper.clone(), calls: calls.clone() };
    let caretaker = Caretaker::new(me.clone(), sync.clone(), primary.clone(), lookups.clone());
    let settlement = Settlement { me: me.clone(), sync: sync.clone(), lookups: lookups.clone() };
    let repairs = repair::start(sync, values.clone(), &supervisor);
    supervisor.spawn("caretaker", caretaker.run());
    supervisor.spawn("settlement", settlement.run());
    supervisor.spawn("memory of contacts", remembered::follow(store, ring.view.clone()));
    let renewals = primary.clone();
    supervisor.spawn("renewal of leases", async move { renewals.keep(repairs).await });

    let router = Router::new(id, lookups.clone(), calls.clone(), values.clone());
    let rule = settings.advertised_addresses;
    let swarms = Swarms::new(id, rule, lookups, calls.clone());
    let dht = Dht { ring: ring.clone(), router, keeper: keeper.clone(), swarms, rule };
    let replica = Replica { keeper: keeper.clone(), values };
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
        leaving::leave(&me, &ring, &keeper, &calls, settings.leave_patience).await;
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
    supervisor.guard(&stop, Box::pin(life)).await.inspect(|()| info!("ring node stopped"))
}

/// The node is ready once it is part of a ring.
async fn ready(ring: &Ring, health: &Health) {
    let mut view = ring.view.clone();
    // The ring's task ends after the server.
    let joined = view.wait_for(|surroundings| surroundings.view.state.standing == Standing::Member);
    if joined.await.is_ok() {
        health.ready().await;
    }
}
