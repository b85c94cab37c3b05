//! What reaches the engine, over one bounded channel: who has something to say waits for room.

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

/// One thing that happened.
pub(crate) enum Event {
    /// The brain's business.
    Brain(Input),
    /// A peer dialled us for a content whose manifest is still looked for.
    Called { content: ContentId, candidate: Candidate },
    /// Two hellos are through.
    Handshake(Box<Handshake>, oneshot::Sender<Admitted>),
    /// A link that was let in has ended, read or not; with an offence if the neighbour broke the
    /// protocol. Told once for each such link.
    LinkEnded { link: LinkKey, offence: Option<WireError> },
    /// Bulk on the link itself.
    InLink { link: LinkKey, message: InLink },
    /// A neighbour that dialled us cannot be dialled.
    Undialable { link: LinkKey },
    /// A dial came to nothing.
    DialFailed { content: ContentKey, peer: PeerId, error: LinkError },
    /// A tracker or a ring node answered, or did not.
    Announced(Report),
    /// Trackers that a content is announced to from now on, and those that it is not any more.
    Sources { content: ContentKey, come: Vec<Source>, gone: Vec<Source> },
    /// A content's manifest was found, there, and room made for it, or not.
    Resolved { content: ContentKey, at: Address, outcome: Result<Arc<Stored>, StoreError> },
    /// Someone on this machine wants something, as part of this span.
    Command(Command, Span),
}

/// What someone on this machine wants.
pub(crate) enum Command {
    /// Share what is stored already, and fetch what it lacks.
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
    /// How all contents are.
    List { done: oneshot::Sender<Vec<Arc<Status>>> },
    /// How one content is, from now on.
    Watch { id: ContentId, done: oneshot::Sender<Option<watch::Receiver<Arc<Status>>>> },
    /// Why one content is as slow as it is.
    Explain { id: ContentId, done: oneshot::Sender<Option<Explanation>> },
}

/// Makes room for a content whose manifest was found.
pub(crate) type Place =
    Box<dyn FnOnce(Manifest, PieceHashes) -> Result<Arc<Stored>, StoreError> + Send>;
