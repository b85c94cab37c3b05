//! The nodes through which this node rejoins the ring after a restart, if it has no address to
//! join.

use std::sync::Arc;

use shoal_core::ring::Contact;
use tokio::sync::watch;
use tracing::warn;

use crate::{
    membership::snapshot::RingSnapshot,
    storage::{Store, StoreError},
};

/// Nodes kept, at most.
const MAX_NODES: usize = 16;

/// Stores the node's successors when they change, while it is polled.
pub(crate) async fn follow(store: Store, mut snapshot: watch::Receiver<Arc<RingSnapshot>>) {
    let mut kept = Vec::new();
    loop {
        let successors = snapshot.borrow_and_update().routing.state.successors.clone();
        let around: Vec<_> = successors.into_iter().take(MAX_NODES).collect();
        if !around.is_empty() && around != kept {
            match keep(&store, &around).await {
                Ok(()) => kept = around,
                Err(error) => warn!(%error, "the known nodes are not stored: the disk fails"),
            }
        }
        if snapshot.changed().await.is_err() {
            return;
        }
    }
}

async fn keep(store: &Store, nodes: &[Contact]) -> Result<(), StoreError> {
    let nodes = nodes.to_vec();
    store.write(move |txn| txn.put_known_nodes(&nodes)).await
}
