//! Events for the engine, over one bounded channel: senders wait for room.

use std::sync::Arc;

use shoal_common::Address;
use shoal_core::{
    PeerId,
    content::{ContentId, Manifest, PieceHashes},
    roster::Candidate,
    swarm::{ContentKey, Input, LinkKey},
};
use tokio::sync::{oneshot, watch};
use tracing::Span;

use crate::{
    announce::{Report, Source},
    link::{Admitted, Handshake, LinkError},
    options::Options,
    status::{Explanation, Status},
    store::{StoreError, Stored},
    wire::{InLink, WireError},
};

/// An event.
pub(crate) enum Event {
    /// An input of the swarm state machine.
    Brain(Input),
    /// A peer dialled us for a content whose manifest is still being fetched.
    Called { content: ContentId, candidate: Candidate },
    /// The hellos of a link were exchanged.
    Handshake(Box<Handshake>, oneshot::Sender<Admitted>),
    /// An accepted link has ended, whether it was read or not; with an offence if the neighbour
    /// violated the protocol. Sent exactly once for each such link.
    LinkEnded { link: LinkKey, offence: Option<WireError> },
    /// Blocks on the link itself.
    InLink { link: LinkKey, message: InLink },
    /// A neighbour that dialled us cannot be dialled.
    Undialable { link: LinkKey },
    /// A dial failed.
    DialFailed { content: ContentKey, peer: PeerId, error: LinkError },
    /// A tracker or a ring node answered, or failed.
    Announced(Report),
    /// Trackers that a content is announced to from now on, and those that it no longer is.
    Sources { content: ContentKey, come: Vec<Source>, gone: Vec<Source> },
    /// A content's manifest was fetched from this address, and room made for the content, or not.
    Resolved { content: ContentKey, at: Address, outcome: Result<Arc<Stored>, StoreError> },
    /// A command of a local client, as part of its span.
    Command(Command, Span),
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
        place: Place,
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

/// Makes room for a content whose manifest was fetched.
pub(crate) type Place =
    Box<dyn FnOnce(Manifest, PieceHashes) -> Result<Arc<Stored>, StoreError> + Send>;
