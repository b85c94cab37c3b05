//! All swarms, in shards with a lock each.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use shoal_common::lock::{Mutex, MutexGuard};
use shoal_core::{
    content::ContentId,
    registry::{Counts, Registry, Tally},
};
use tokio::time::{MissedTickBehavior, interval};

use crate::Settings;

/// Enough that announces on several cores rarely wait for the same lock.
pub(crate) const SHARDS: usize = 16;
/// How often expired peers are removed, also from swarms without calls, and the others counted.
const SWEEP: Duration = Duration::from_secs(1);

/// A swarm's shard is the first hex digit of its content id, so that the order of the shards is the
/// order of their swarms.
#[derive(Debug)]
pub(crate) struct Shards {
    registries: [Mutex<Registry>; SHARDS],
    pub(crate) interval: Duration,
}

impl Shards {
    pub(crate) fn new(settings: &Settings, now: Instant) -> Self {
        let tally = Tally::default();
        let registry = |_| Mutex::new(Registry::new(settings.of_shard(), tally.clone(), now));
        Self { registries: std::array::from_fn(registry), interval: settings.interval }
    }

    /// The registry of a content, locked: hold it for one short operation.
    pub(crate) fn of(&self, content: ContentId) -> MutexGuard<'_, Registry> {
        lock(&self.registries[shard_of(content)])
    }

    /// Up to `max` swarms in the order of their ids: those after `after`, or from the first.
    pub(crate) fn swarms_after(
        &self,
        now: Instant,
        after: Option<ContentId>,
        max: usize,
    ) -> Vec<(ContentId, Counts)> {
        let first = after.map_or(0, shard_of);
        let mut swarms = Vec::new();
        for registry in &self.registries[first..] {
            let wanted = max - swarms.len();
            if wanted == 0 {
                break;
            }
            swarms.extend(lock(registry).swarms_after(now, after, wanted));
        }
        swarms
    }

    /// Periodically removes the peers that have stopped announcing, and counts the others.
    pub(crate) async fn sweep(self: Arc<Self>) {
        let mut ticks = interval(SWEEP.min(self.interval));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (mut swarms, mut peers) = (0, 0);
            for registry in &self.registries {
                let mut registry = lock(registry);
                registry.expire(Instant::now());
                swarms += registry.swarm_count();
                peers += registry.peer_count();
            }
            metrics::gauge!("shoal_tracker_swarms").set(swarms as f64);
            metrics::gauge!("shoal_tracker_peers").set(peers as f64);
        }
    }
}

fn shard_of(content: ContentId) -> usize {
    usize::from(content.as_bytes()[0] >> 4)
}

fn lock(registry: &Mutex<Registry>) -> MutexGuard<'_, Registry> {
    registry.lock()
}
