//! Checkpoints: makes downloaded pieces survive a power cut, some time after they arrived and
//! before the peer ends.

use std::{sync::Arc, time::Duration};

use shoal_core::swarm::ContentKey;
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    engine::Directory,
    store::{StoreError, Stored},
    transfer,
};

/// How often contents are checked for a due checkpoint.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Runs until `drained`, when no more blocks arrive, and then once more. A content whose checkpoint
/// fails is stopped: its written pieces may be lost.
pub(crate) async fn keep(
    directory: Arc<Directory>,
    failures: mpsc::Sender<transfer::Event>,
    drained: CancellationToken,
) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while drained.run_until_cancelled(looks.tick()).await.is_some() {
        for (content, error) in checkpoint(&directory, Stored::is_checkpoint_due).await {
            // The engine has ended.
            let _ = failures.send(transfer::Event::StoreFailed { content, error }).await;
        }
    }
    for (_, error) in checkpoint(&directory, |_| true).await {
        warn!(%error, "the last checkpoint failed");
    }
}

/// Makes a checkpoint of each content that is due, and returns those that failed.
async fn checkpoint(
    directory: &Directory,
    is_due: impl Fn(&Stored) -> bool + Send + 'static,
) -> Vec<(ContentKey, StoreError)> {
    let contents = directory.stored();
    // On that thread as well: the check waits for appends to the log.
    let checkpoints = spawn_blocking(move || {
        let due = contents.into_iter().filter(|(_, stored)| is_due(stored));
        let failed = due.filter_map(|(key, stored)| Some((key, stored.checkpoint().err()?)));
        failed.collect()
    });
    checkpoints.await.expect("a checkpoint does not panic")
}
