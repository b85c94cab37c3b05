//! What the engine is told by this process: commands of local clients, and the results of its jobs.

use std::sync::Arc;

use shoal_core::{
    Address, PeerId,
    content::{ContentId, Metadata, PieceIndex},
    swarm::{ContentKey, LinkKey},
};
use tokio::sync::{oneshot, watch};
use tracing::Span;

use crate::{
    link::LinkError,
    options::Options,
    status::{Explanation, Status},
    store::{StoreError, Stored},
};

/// An event, over a bounded channel: senders wait for room.
pub(crate) enum Event {
    /// A command of a local client, as part of its span.
    Command(Command, Span),
    /// A content's descriptor was fetched from this address, and room made for the content, or not.
    Resolved { content: ContentKey, at: Address, outcome: Result<Arc<Stored>, StoreError> },
    /// The pieces of a content's manifest were read; pieces that are holes are held from now on.
    ManifestRead { content: ContentKey, outcome: Result<Vec<PieceIndex>, StoreError> },
    /// A dial failed.
    DialFailed { content: ContentKey, peer: PeerId, error: LinkError },
    /// A neighbour that dialled us cannot be dialled.
    Undialable { link: LinkKey },
}

/// A command of a local client.
pub(crate) enum Command {
    /// Share a stored content, and fetch its missing pieces.
    Add {
        stored: Arc<Stored>,
        options: Options,
        done: oneshot::Sender<watch::Receiver<Arc<Status>>>,
    },
    /// Find a content by its id, and fetch it.
    Fetch {
        id: ContentId,
        options: Options,
        make_room: MakeRoom,
        done: oneshot::Sender<watch::Receiver<Arc<Status>>>,
    },
    /// Stop fetching and sharing a content.
    Remove { id: ContentId, done: oneshot::Sender<bool> },
    /// The status of all contents.
    List { done: oneshot::Sender<Vec<Arc<Status>>> },
    /// The status of one content, from now on.
    Watch { id: ContentId, done: oneshot::Sender<Option<watch::Receiver<Arc<Status>>>> },
    /// Why one content is slow.
    Explain { id: ContentId, done: oneshot::Sender<Option<Explanation>> },
}

/// Makes room for a content whose descriptor was fetched.
pub(crate) type MakeRoom = Box<dyn FnOnce(Metadata) -> Result<Arc<Stored>, StoreError> + Send>;
