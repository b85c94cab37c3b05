//! Has what was downloaded survive a power cut, a while after it came and before the peer ends.

use std::{sync::Arc, time::Duration};

use tokio::{task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{directory::Directory, store::Stored};

/// How often contents are asked whether a checkpoint is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Runs until `stop`, and then once more.
pub(crate) async fn keep(directory: Arc<Directory>, stop: CancellationToken) {
    while stop.run_until_cancelled(sleep(LOOK_EVERY)).await.is_some() {
        for stored in directory.stored() {
            if stored.is_checkpoint_due() {
                checkpoint(stored).await;
            }
        }
    }
    for stored in directory.stored() {
        checkpoint(stored).await;
    }
}

async fn checkpoint(stored: Arc<Stored>) {
    let id = stored.id();
    let done = spawn_blocking(move || stored.checkpoint()).await;
    if let Ok(Err(error)) = done {
        // The pieces stay; a reboot would have them hashed again.
        warn!(content_id = %id, %error, "no checkpoint");
    }
}
