//! Leaving the ring in order: other nodes take over this node's ranges, and it stays until they
//! have.

use std::time::Duration;

use shoal_core::ring::{Configurations, Contact, KeyRange, ReplicaSet};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, info, warn};

use crate::{
    membership::{ring::RingHandle, snapshot::RingSnapshot},
    network::calls::Calls,
    replication::local_replica::LocalReplica,
};

/// How often the others are asked whether they have taken over.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// Announces the departure, and waits until no replica set includes this node, no other node is
/// left, or `patience` is over. Ranges that it still holds then stay on the disk.
pub(crate) async fn leave(
    me: &Contact,
    ring: &RingHandle,
    local: &LocalReplica,
    calls: &Calls,
    patience: Duration,
) {
    ring.leave().await;
    let deadline = Instant::now() + patience;
    let handing_over = async {
        loop {
            let held = held(&local.configurations(), me);
            if held.is_empty() || is_alone(&ring.snapshot.borrow(), me) {
                return;
            }
            ask_who_keeps(&held, me, local, calls).await;
            sleep(ASK_EVERY).await;
        }
    };
    let ended = timeout_at(deadline, handing_over).await;
    let left = held(&local.configurations(), me).len();
    if ended.is_ok() {
        info!(ranges = left, "left the ring");
    } else {
        warn!(ranges = left, "left the ring before all ranges were taken over");
    }
}

/// The ranges of which this node is still a replica.
fn held(configurations: &Configurations, me: &Contact) -> Vec<(KeyRange, ReplicaSet)> {
    let known = configurations.known().filter(|(_, known)| known.present.holds(me.id));
    known.map(|(range, known)| (range, known.present.clone())).collect()
}

/// All other nodes are gone, or are leaving as well.
fn is_alone(snapshot: &RingSnapshot, me: &Contact) -> bool {
    let live_nodes = snapshot.routing.live_nodes.iter();
    !live_nodes.flat_map(|live_nodes| live_nodes.from(me.position)).any(|node| node.id != me.id)
}

/// The primary of a set without this node tells it so, but that message may be lost.
async fn ask_who_keeps(
    held: &[(KeyRange, ReplicaSet)],
    me: &Contact,
    local: &LocalReplica,
    calls: &Calls,
) {
    for (range, set) in held {
        for member in set.members.iter().filter(|member| member.id != me.id) {
            let Ok(sets) = calls.replica_sets(*range, member).await else { continue };
            for (range, set) in sets {
                if let Err(error) = local.learn(range, set).await {
                    debug!(%error, "a later replica set is not noted");
                }
            }
        }
    }
}
