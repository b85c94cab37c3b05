//! Anti-entropy: brings replicas together whose records were found to differ.

use shoal_core::ring::{Contact, KeyRange};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    kv::Values,
    primary::Difference,
    sync::{Sync, SyncError},
};

/// Differences that wait; one more is dropped, as it will be found again.
const QUEUE: usize = 64;

/// Starts the task that repairs, until `end`. Returns how to tell it of differences.
pub(crate) fn start(
    sync: Sync,
    values: Values,
    end: CancellationToken,
) -> impl Fn(Difference) + Send + std::marker::Sync {
    let (found, mut queue) = mpsc::channel::<Difference>(QUEUE);
    let work = async move {
        while let Some(Difference { range, member }) = queue.recv().await {
            if let Err(error) = repair(&sync, &values, range, &member).await {
                debug!(%range, %error, "replicas differ still");
            }
        }
    };
    tokio::spawn(end.run_until_cancelled_owned(work));
    move |difference| drop(found.try_send(difference))
}

/// Takes over what another replica has newer, as writes that were never answered, and gives it what
/// it lacks.
async fn repair(
    sync: &Sync,
    values: &Values,
    range: KeyRange,
    member: &Contact,
) -> Result<(), SyncError> {
    let newer = sync.newer(range, member).await?;
    let taken = newer.len();
    for record in newer {
        values.absorb(record).await;
    }
    let given = sync.push(range, member).await?;
    metrics::counter!("shoal_dht_repaired_records_total").increment((taken + given) as u64);
    Ok(())
}
