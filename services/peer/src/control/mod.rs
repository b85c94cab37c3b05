//! The local API, `shoal.control.v1`: publish, fetch, observe.

mod change;
mod exports;
mod listen;
mod observe;
mod roots;
mod wire;

use std::{path::Path, sync::Arc};

use shoal_common::Address;
use shoal_core::content::ContentId;
use tokio::task::spawn_blocking;
use tonic::{Code, Status};

pub(crate) use change::Room;
pub(crate) use exports::Exports;
pub(crate) use listen::Listener;
pub use listen::{ListenError, SocketError};
pub(crate) use roots::Roots;

use crate::{
    node::{Node, Stopped},
    replicate::Asked,
    store::{Store, StoreError},
};

/// The state that the local API works on.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) node: Node,
    pub(crate) store: Arc<Store>,
    pub(crate) exports: Exports,
    /// For the replicator.
    pub(crate) asked: Asked,
    /// Named in links.
    pub(crate) trackers: Arc<[Address]>,
    /// The same.
    pub(crate) ring_nodes: Arc<[Address]>,
    /// The directories in which clients may name paths.
    pub(crate) roots: Arc<Roots>,
}

impl Desk {
    /// Runs work on the store outside the async threads.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Status> {
        let store = self.store.clone();
        let done = spawn_blocking(move || work(&store)).await;
        done.map_err(|_| Status::internal("the disk's worker failed"))?.map_err(Status::from)
    }

    /// A link with the id and the trackers and ring nodes to start from.
    fn link(&self, id: ContentId) -> String {
        let trackers = self.trackers.iter().map(|tracker| format!("tr={tracker}"));
        let ring_nodes = self.ring_nodes.iter().map(|node| format!("dht={node}"));
        let places: Vec<_> = trackers.chain(ring_nodes).collect();
        match places.as_slice() {
            [] => format!("shoal:{id}"),
            some => format!("shoal:{id}?{}", some.join("&")),
        }
    }
}

impl From<Stopped> for Status {
    fn from(stopped: Stopped) -> Self {
        Self::unavailable(stopped.to_string())
    }
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        Self::new(code_of(&error), error.to_string())
    }
}

fn code_of(error: &StoreError) -> Code {
    match error {
        StoreError::DiskFull { .. } | StoreError::QuotaExceeded { .. } => Code::ResourceExhausted,
        StoreError::Denied { .. } | StoreError::Outside { .. } => Code::PermissionDenied,
        StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Code::NotFound
        }
        StoreError::Unknown(_) => Code::NotFound,
        StoreError::Interrupted(_) => Code::Cancelled,
        StoreError::Exists(_) => Code::AlreadyExists,
        StoreError::LinkCycle(_)
        | StoreError::NotAFile(_)
        | StoreError::NotUtf8(_)
        | StoreError::Unnamed(_)
        | StoreError::Manifest(_)
        | StoreError::Layout(_)
        | StoreError::Import(_) => Code::InvalidArgument,
        StoreError::SourceChanged(_) | StoreError::Incomplete(_) | StoreError::Downloading(_) => {
            Code::FailedPrecondition
        }
        _ => Code::Internal,
    }
}

fn parse_id(text: &str) -> Result<ContentId, Status> {
    text.parse().map_err(|error| Status::invalid_argument(format!("content_id: {error}")))
}

/// Paths come from another process, which may have another working directory.
fn absolute<'a>(field: &str, path: &'a str) -> Result<&'a Path, Status> {
    let path = Path::new(path);
    if path.is_absolute() {
        return Ok(path);
    }
    Err(Status::invalid_argument(format!("{field}: {:?} is not an absolute path", path.display())))
}
