//! The peer as a daemon: a node with a data directory and a local API.

use std::{io, sync::Arc, time::Duration};

use shoal_common::{
    admin::{self, AdminError},
    health::Health,
    supervisor::{Failure, Supervisor},
    units::ByteSize,
};
use tokio::{
    net::TcpListener,
    task::{JoinError, spawn_blocking},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    control::{ListenError, Listener, LocalApi, Roots},
    daemon::Daemon,
    memory,
    node::{self, Node},
    replicate::Replicator,
    settings::Settings,
    store::{Store, StoreError},
};

/// How often the contents in use are noted.
const NOTE_USE_EVERY: Duration = Duration::from_secs(10);

/// A peer could not start, or ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its data directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It has no admin port.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// Its local API cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Its threads cannot be started.
    #[error("cannot start the threads that move blocks: {0}")]
    Threads(#[from] io::Error),
    /// A disk worker failed.
    #[error("the disk's worker failed: {0}")]
    Worker(#[from] JoinError),
    /// A part of it failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Runs a peer that listens on `listener` until `shutdown`, then leaves its swarms.
pub async fn run(
    settings: Settings,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let (directory, quota) = (settings.data_dir.clone(), settings.limits.quota);
    let min_free = settings.limits.min_free.map_or(0, ByteSize::bytes);
    let roots = Arc::new(Roots::new(&settings));
    let prepared = roots.clone();
    let opening = spawn_blocking(move || {
        prepared.prepare();
        let store = Store::open(&directory, quota.map(ByteSize::bytes))?;
        Ok::<_, StoreError>(store.leaving_free(min_free))
    });
    let Some(opened) = shutdown.run_until_cancelled(opening).await else { return Ok(()) };
    let store = Arc::new(opened??);

    let health = Health::new(&node::services()).await;
    let supervisor = Supervisor::new(health.clone());
    // The admin port ends after the peer: until then it reports that the peer is not ready.
    let end = CancellationToken::new();
    let _ends_with_this = end.clone().drop_guard();
    let _ends_first = supervisor.ending().clone().drop_guard();
    admin::start(&settings.admin, &supervisor, end.clone()).await?;
    // Before swarms are joined, so that a port in use has no other effect.
    let control = Listener::bind(&settings.control()).await?;
    let (node, running) = Node::start(settings.node(store.peer_id()), &supervisor, listener)?;
    let daemon = Daemon::new(node.clone(), store.clone());
    info!(peer_id = %node.peer(), addr = %node.address(), "peer started");
    let replicator = Replicator::new(&settings, daemon.clone(), health.clone());
    if replicator.is_none() {
        health.ready().await;
    }
    let stop = shutdown.child_token();
    let (until, rejoining) = (stop.clone(), rejoin(daemon.clone(), roots.clone()));
    let replicating = async move {
        rejoining.await;
        // Not before: stored contents need no search.
        if let Some(replicator) = replicator {
            replicator.run().await;
        }
    };
    tokio::spawn(supervisor.job("replicator", async move {
        until.run_until_cancelled(replicating).await;
    }));
    supervisor.spawn("notes of use", note_use(node.clone(), store.clone()));
    supervisor.spawn("memory", memory::give_back_when_idle(node.clone()));

    let api = LocalApi {
        daemon,
        trackers: settings.tracker.clone().into(),
        ring_nodes: settings.dht.clone().into(),
        roots,
    };
    let life = async {
        control.serve(api, stop.clone()).await;
        // Calls had their time to end.
        store.stop().cancel();
        health.close().await;
        node.stop();
        running.ended().await;
        end.cancel();
        Ok(())
    };
    supervisor.supervise(&stop, Box::pin(life)).await.inspect(|()| info!("peer stopped"))
}

/// Joins the swarms of stored contents, and resumes the requested copies.
async fn rejoin(daemon: Daemon, roots: Arc<Roots>) {
    for (id, _) in daemon.store.contents() {
        let from = daemon.store.clone();
        let load = move || Ok((from.load(id)?, from.options(id)?, from.exports(id)?));
        match spawn_blocking(load).await {
            Ok(Ok((stored, options, exports))) => {
                if daemon.node.add(stored, options).await.is_err() {
                    return;
                }
                for path in exports {
                    if let Some(destination) = roots.allow_export(&path) {
                        daemon.export_later(id, destination);
                    } else {
                        let path = path.display();
                        warn!(content_id = %id, %path, "not exported: outside of export_roots");
                    }
                }
            }
            Ok(Err::<_, StoreError>(error)) => {
                warn!(content_id = %id, %error, "cannot load the content; it is left out");
            }
            Err(error) => {
                warn!(content_id = %id, %error, "cannot load the content; it is left out");
            }
        }
    }
}

/// Notes which contents other peers request, for eviction.
async fn note_use(node: Node, store: Arc<Store>) {
    loop {
        sleep(NOTE_USE_EVERY).await;
        let Ok(contents) = node.list().await else { return };
        let requested = contents
            .iter()
            .filter(|status| status.last_asked.is_some_and(|at| at.elapsed() <= NOTE_USE_EVERY));
        let in_use: Vec<_> = requested.map(|status| status.id).collect();
        let store = store.clone();
        let noting = spawn_blocking(move || {
            for id in in_use {
                // It may have been removed in the meantime.
                drop(store.touch(id));
            }
        });
        if let Err(error) = noting.await {
            warn!(%error, "cannot note which contents are in use");
        }
    }
}
