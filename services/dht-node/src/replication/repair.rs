//! Repair: synchronises replicas whose records were found to differ.

use shoal_common::supervisor::Supervisor;
use tokio::sync::mpsc;
use tracing::debug;

use crate::replication::{
    anti_entropy::{AntiEntropy, AntiEntropyError},
    kv::Values,
    primary::Difference,
};

/// Differences that wait; the next one is dropped, because it will be found again.
const QUEUE: usize = 64;

/// Starts the repair task. Returns a function that reports differences to it.
pub(crate) fn start(
    anti_entropy: AntiEntropy,
    values: Values,
    supervisor: &Supervisor,
) -> impl Fn(Difference) + Send + Sync + use<> {
    let (found, mut queue) = mpsc::channel::<Difference>(QUEUE);
    let work = async move {
        while let Some(difference) = queue.recv().await {
            if let Err(error) = repair(&anti_entropy, &values, &difference).await {
                debug!(range = %difference.range, %error, "replicas differ still");
            }
        }
    };
    supervisor.spawn("repair", work);
    move |difference| drop(found.try_send(difference))
}

/// Adopts newer records of another replica, as writes that were never acknowledged, and sends it
/// the records that it lacks.
async fn repair(
    anti_entropy: &AntiEntropy,
    values: &Values,
    Difference { range, set, member }: &Difference,
) -> Result<(), AntiEntropyError> {
    let newer = anti_entropy.newer(*range, member).await?;
    let taken = newer.len();
    if let Err(error) = values.absorb(newer, Some(set)).await {
        debug!(%range, %error, "newer records are not taken over yet");
    }
    let given = anti_entropy.restore((*range, set), member).await?;
    metrics::counter!("shoal_dht_repaired_records_total").increment((taken + given) as u64);
    Ok(())
}
