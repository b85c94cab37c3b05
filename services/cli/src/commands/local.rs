//! Work on this machine, with its progress.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use shoal_peer::store::{self, Found, Hashed};
use tokio::{pin, task::spawn_blocking, time::interval};

use crate::{
    exit::Failure,
    progress::{Progress, Snapshot, State},
};

/// How often the display looks how far it is.
const LOOK: Duration = Duration::from_millis(100);

/// Hashes a file or tree on all cores.
pub(super) async fn hash(path: &Path, progress: &mut Progress) -> anyhow::Result<Hashed> {
    let owned = path.to_owned();
    let tree = spawn_blocking(move || store::walk(&owned)).await?.map_err(Failure::from)?;
    let total_bytes = tree.files.iter().map(Found::size).sum();
    let done = Arc::new(AtomicU64::new(0));
    let hashing = spawn_blocking({
        let (path, done) = (path.to_owned(), done.clone());
        move || {
            // Threads tell their sums in any order.
            store::hash(&path, None, |bytes| {
                done.fetch_max(bytes, Ordering::Relaxed);
            })
        }
    });
    let hashed = shown(progress, State::Hashing, total_bytes, &done, hashing).await??;
    Ok(hashed.map_err(Failure::from)?)
}

/// Waits for `work` and shows meanwhile how much of `total_bytes` is `done`.
pub(super) async fn shown<T>(
    progress: &mut Progress,
    state: State,
    total_bytes: u64,
    done: &AtomicU64,
    work: impl Future<Output = T>,
) -> anyhow::Result<T> {
    pin!(work);
    let mut looks = interval(LOOK);
    loop {
        tokio::select! {
            outcome = &mut work => return Ok(outcome),
            _ = looks.tick() => {
                let done = done.load(Ordering::Relaxed);
                progress.update(&Snapshot::local(state, done, total_bytes))?;
            }
        }
    }
}
