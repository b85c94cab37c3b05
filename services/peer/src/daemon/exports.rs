//! Copies that are requested before a content is complete.
//!
//! A request lasts until the copy exists, cannot be made, or the content is removed: it survives a
//! download that fails and is fetched again, and, once the content is in the store, a restart of
//! the peer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use shoal_common::lock::{Mutex, MutexGuard};
use shoal_core::{backoff::Backoff, content::ContentId};
use tokio::time::sleep;
use tonic::{Code, Status};
use tracing::{info, warn};

use super::Daemon;
use crate::{
    node::Stopped,
    status::Phase,
    store::{RootedPath, StoreError},
};

/// The first pause after a copy found no room; it grows.
const FIRST_BACKOFF: Duration = Duration::from_secs(2);
const MAX_BACKOFF: Duration = Duration::from_secs(300);

/// The requested copies, by content. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Exports(Arc<Mutex<BTreeMap<ContentId, BTreeSet<RootedPath>>>>);

impl Exports {
    /// True if it was not requested yet.
    fn insert(&self, id: ContentId, destination: &RootedPath) -> bool {
        self.lock().entry(id).or_default().insert(destination.clone())
    }

    fn remove(&self, id: ContentId, destination: &RootedPath) {
        let mut requested = self.lock();
        if let Some(destinations) = requested.get_mut(&id) {
            destinations.remove(destination);
            if destinations.is_empty() {
                requested.remove(&id);
            }
        }
    }

    fn of(&self, id: ContentId) -> Vec<RootedPath> {
        self.lock().get(&id).into_iter().flatten().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ContentId, BTreeSet<RootedPath>>> {
        self.0.lock()
    }
}

impl Daemon {
    /// Has a copy of a content in the swarm created at `destination` once the content is complete.
    pub(crate) fn export_later(&self, id: ContentId, destination: RootedPath) {
        if self.exports.insert(id, &destination) {
            let exporting = self.clone().export_when_complete(id, destination);
            tokio::spawn(self.node.supervisor.job("export", exporting));
        }
    }

    /// Stores the requests for copies of a stored content, so that they survive the process.
    pub(crate) fn note_exports(&self, id: ContentId) -> Result<(), StoreError> {
        if !self.store.contains(id) {
            return Ok(());
        }
        self.exports
            .of(id)
            .iter()
            .try_for_each(|destination| self.store.note_export(id, destination.path()))
    }

    async fn export_when_complete(self, id: ContentId, destination: RootedPath) {
        let Ok(()) = self.try_to_export(id, &destination).await else {
            // The peer stops: the next process makes the copy.
            return;
        };
        self.exports.remove(id, &destination);
        let path = destination.path().to_owned();
        if let Err(error) = self.on_disk(move |store| store.forget_export(id, &path)).await {
            let path = destination.path().display();
            warn!(content_id = %id, %path, %error, "the copy is made again after a restart");
        }
    }

    /// Returns when the copy exists, cannot be made, or is not wanted any more.
    async fn try_to_export(&self, id: ContentId, destination: &RootedPath) -> Result<(), Stopped> {
        let mut backoff = Backoff::new(FIRST_BACKOFF, MAX_BACKOFF);
        // A watch ends when the content is removed, or fetched again after it failed.
        while let Some(mut watch) = self.node.watch(id).await? {
            let complete = watch.wait_for(|status| status.phase == Phase::Seeding).await.is_ok();
            if !complete {
                continue;
            }
            let Err(error) = self.export(id, destination.clone()).await else { break };
            warn!(content_id = %id, path = %destination.path().display(), %error, "not exported");
            if !may_work_later(&error) {
                break;
            }
            let wait = backoff.next(&mut rand::rng());
            sleep(wait).await;
        }
        Ok(())
    }

    /// Creates a copy of a complete content at `destination`.
    pub(crate) async fn export(
        &self,
        id: ContentId,
        destination: RootedPath,
    ) -> Result<(), Status> {
        let place = destination.clone();
        let how = self.on_disk(move |store| store.export_to(&*store.load(id)?, &place)).await?;
        info!(content_id = %id, path = %destination.path().display(), ?how, "exported");
        Ok(())
    }
}

/// A disk that is full or fails may recover; a wrong destination stays wrong.
fn may_work_later(error: &Status) -> bool {
    matches!(error.code(), Code::ResourceExhausted | Code::Internal)
}
