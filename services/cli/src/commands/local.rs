//! Hashing on this machine, with its progress.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use shoal_peer::store::{self, Hashed};
use tokio::{task::spawn_blocking, time::interval};

use crate::progress::{Progress, Snapshot, State};

/// How often the display looks how far it is.
const LOOK: Duration = Duration::from_millis(100);

/// Hashes a file or tree on all cores.
pub(crate) async fn hash(path: &Path, progress: &mut Progress) -> anyhow::Result<Hashed> {
    let done = Arc::new(AtomicU64::new(0));
    let total = Arc::new(AtomicU64::new(0));
    let mut hashing = spawn_blocking({
        let (path, done) = (path.to_owned(), done.clone());
        move || store::hash(&path, None, |bytes| drop(done.fetch_max(bytes, Ordering::Relaxed)))
    });
    let mut looks = interval(LOOK);
    loop {
        tokio::select! {
            hashed = &mut hashing => return Ok(hashed??),
            _ = looks.tick() => {
                let done = done.load(Ordering::Relaxed);
                progress.update(&Snapshot::local(State::Hashing, done, total.load(Ordering::Relaxed)))?;
            }
        }
    }
}
