//! What the calls of the local API work on.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path, sync::Arc};

use shoal_core::{Address, content::ContentId};
use tonic::Status;

use super::roots::Roots;
use crate::daemon::Daemon;

/// The local API: both of its services.
#[derive(Clone)]
pub(crate) struct LocalApi {
    pub(crate) daemon: Daemon,
    /// Named in links.
    pub(crate) trackers: Arc<[Address]>,
    /// The same.
    pub(crate) ring_nodes: Arc<[Address]>,
    /// The directories in which clients may name paths.
    pub(crate) roots: Arc<Roots>,
}

impl LocalApi {
    /// A link with the id and the trackers and ring nodes to start from.
    pub(super) fn link(&self, id: ContentId) -> String {
        let trackers = self.trackers.iter().map(|tracker| format!("tr={tracker}"));
        let ring_nodes = self.ring_nodes.iter().map(|node| format!("dht={node}"));
        let parameters: Vec<_> = trackers.chain(ring_nodes).collect();
        match parameters.as_slice() {
            [] => format!("shoal:{id}"),
            some => format!("shoal:{id}?{}", some.join("&")),
        }
    }
}

pub(super) fn unknown(id: ContentId) -> Status {
    Status::not_found(format!("content {id} is not here; fetch it first"))
}

pub(super) fn parse_id(text: &str) -> Result<ContentId, Status> {
    text.parse().map_err(|error| Status::invalid_argument(format!("content_id: {error}")))
}

/// The bytes of a path or name, which are in a field of their own if they are not UTF-8.
pub(super) fn either<'a>(text: &'a str, bytes: &'a [u8]) -> &'a [u8] {
    if bytes.is_empty() { text.as_bytes() } else { bytes }
}

/// Paths come from another process, which may have another working directory.
pub(super) fn absolute<'a>(field: &str, path: &'a [u8]) -> Result<&'a Path, Status> {
    let path = Path::new(OsStr::from_bytes(path));
    if path.is_absolute() {
        return Ok(path);
    }
    Err(Status::invalid_argument(format!("{field}: {:?} is not an absolute path", path.display())))
}
