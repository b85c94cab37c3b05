//! A node with a data directory: its contents are kept in the store, and fetched and shared by the
//! node. The local API and the replicator work on it.

mod error;
mod exports;
mod requested;
mod room;

use std::sync::Arc;

use shoal_core::content::{ContentId, Metadata};
use tokio::task::spawn_blocking;
use tonic::Status;

pub(crate) use self::{error::code_of, room::Room};
use self::{exports::Exports, requested::Requested};
use crate::{
    node::{Node, StatusWatch, Stopped},
    options::Options,
    store::{Need, Store, StoreError, Stored},
};

/// A daemon's contents. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Daemon {
    pub(crate) node: Node,
    pub(crate) store: Arc<Store>,
    pub(crate) requested: Requested,
    exports: Exports,
}

impl Daemon {
    pub(crate) fn new(node: Node, store: Arc<Store>) -> Self {
        Self { node, store, requested: Requested::default(), exports: Exports::default() }
    }

    /// Runs work on the store outside the async threads.
    pub(crate) async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Status> {
        let store = self.store.clone();
        let done = spawn_blocking(move || work(&store)).await;
        done.map_err(|_| Status::internal("the disk's worker failed"))?.map_err(Status::from)
    }

    /// Searches for a content, and fetches it into the data directory.
    pub(crate) async fn join(
        &self,
        id: ContentId,
        options: Options,
        pin: bool,
        room: Room,
    ) -> Result<StatusWatch, Stopped> {
        let daemon = self.clone();
        let noted = options.clone();
        let make_room = move |metadata: Metadata| {
            let room = match room {
                Room::Made(spared) if !daemon.store.contains(id) => {
                    let need = Need::of(metadata.descriptor().disk_bytes(), &noted);
                    Some(daemon.evict_for(&spared, need)?)
                }
                Room::Made(_) | Room::Free => None,
            };
            let stored = daemon.store.add_within(room, metadata)?;
            daemon.store.note_options(id, &noted)?;
            daemon.note_exports(id)?;
            if pin {
                daemon.store.pin(id, true)?;
            }
            Ok(stored)
        };
        self.node.fetch(id, options, make_room).await
    }

    /// Joins the swarm of a stored content.
    pub(crate) async fn share(
        &self,
        stored: Arc<Stored>,
        pin: bool,
        options: Options,
    ) -> Result<(), Status> {
        let id = stored.id();
        if pin {
            self.on_disk(move |store| store.pin(id, true)).await?;
        }
        self.node.add(stored, options).await?;
        Ok(())
    }
}
