//! Work on this machine, with progress.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use shoal_peer::store::{self, Hashed};
use tokio::{pin, task::spawn_blocking, time::interval};
use tokio_util::sync::CancellationToken;

use crate::{
    args::ContentArgs,
    exit::Failure,
    progress::{Progress, Snapshot, State},
};

/// How often the progress is shown.
const REFRESH: Duration = Duration::from_millis(100);

/// Hashes a file or tree on all cores.
pub(super) async fn hash(
    path: &Path,
    content: &ContentArgs,
    progress: &mut Progress,
) -> anyhow::Result<Hashed> {
    let options = content.hash_options()?;
    let done = Arc::new(AtomicU64::new(0));
    let stop = CancellationToken::new();
    let _stop_with_this = stop.clone().drop_guard();
    let hashing = spawn_blocking({
        let (path, done) = (path.to_owned(), done.clone());
        move || {
            // The threads report their sums in any order.
            store::hash_until(&stop, &path, &options, |bytes| {
                done.fetch_max(bytes, Ordering::Relaxed);
            })
        }
    });
    // The size of a tree is unknown until it is walked.
    let total_bytes =
        path.metadata().map_or(0, |found| if found.is_file() { found.len() } else { 0 });
    let hashed = shown(progress, State::Hashing, total_bytes, &done, hashing).await??;
    Ok(hashed.map_err(Failure::from)?)
}

/// Waits for `work`, and shows how much of `total_bytes` is `done`.
pub(super) async fn shown<T>(
    progress: &mut Progress,
    state: State,
    total_bytes: u64,
    done: &AtomicU64,
    work: impl Future<Output = T>,
) -> anyhow::Result<T> {
    pin!(work);
    let mut ticks = interval(REFRESH);
    loop {
        tokio::select! {
            outcome = &mut work => return Ok(outcome),
            _ = ticks.tick() => {
                let done = done.load(Ordering::Relaxed);
                progress.update(&Snapshot::local(state, done, total_bytes))?;
            }
        }
    }
}
