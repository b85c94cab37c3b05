//! Anti-entropy: brings replicas together whose records were found to differ.

use shoal_common::supervisor::Supervisor;
use tokio::sync::mpsc;
use tracing::debug;

use crate::{
    kv::Values,
    primary::Difference,
    sync::{Sync, SyncError},
};

/// Differences that wait; one more is dropped, as it will be found again.
const QUEUE: usize = 64;

/// Starts the task that repairs. Returns how to tell it of differences.
pub(crate) fn start(
    sync: Sync,
    values: Values,
    supervisor: &Supervisor,
) -> impl Fn(Difference) + Send + std::marker::Sync + use<> {
    let (found, mut queue) = mpsc::channel::<Difference>(QUEUE);
    let work = async move {
        while let Some(difference) = queue.recv().await {
            if let Err(error) = repair(&sync, &values, &difference).await {
                debug!(range = %difference.range, %error, "replicas differ still");
            }
        }
    };
    supervisor.spawn("repair", work);
    move |difference| drop(found.try_send(difference))
}

/// Takes over what another replica has newer, as writes that were never answered, and gives it what
/// it lacks.
async fn repair(
    sync: &Sync,
    values: &Values,
    Difference { range, set, member }: &Difference,
) -> Result<(), SyncError> {
    let newer = sync.newer(*range, member).await?;
    let taken = newer.len();
    if let Err(error) = values.absorb(newer, Some(set)).await {
        debug!(%range, %error, "newer records are not taken over yet");
    }
    let given = sync.restore((*range, set), member).await?;
    metrics::counter!("shoal_dht_repaired_records_total").increment((taken + given) as u64);
    Ok(())
}
