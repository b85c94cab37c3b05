//! What links tell the engine, and its answer to a new one.

use shoal_core::{
    content::ContentId,
    peer_list::{Candidate, Refusal},
    swarm::{LinkKey, PeerMessage},
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    handshake::Handshake,
    wire::{InLink, WireError},
};
use crate::end_notice::EndNotice;

/// Events of links for the engine, over one bounded channel: readers wait for room.
pub(crate) enum Event {
    /// A peer dialled us for a content whose manifest is still being fetched.
    Called { content: ContentId, candidate: Candidate },
    /// The hellos of a link were exchanged.
    Handshake(Box<Handshake>, oneshot::Sender<Admitted>),
    /// A message for the swarm state machine.
    Message { link: LinkKey, message: PeerMessage },
    /// Blocks on the link itself.
    InLink { link: LinkKey, message: InLink },
    /// An accepted link has ended, whether it was read or not; with an offence if the neighbour
    /// violated the protocol. Sent exactly once for each such link.
    Ended { link: LinkKey, offence: Option<WireError> },
}

/// The engine's decision about a link.
pub(crate) type Admitted = Result<AdmittedLink, Refusal>;

/// A link that the engine has accepted, for its reader. In any case the engine gets exactly one
/// [`Event::Ended`].
pub(crate) struct AdmittedLink {
    pub(super) link: LinkKey,
    /// Cancelled when the engine closes the link.
    pub(super) closed: CancellationToken,
    pub(super) end: EndNotice<Event>,
}

impl AdmittedLink {
    pub(crate) fn new(
        link: LinkKey,
        closed: CancellationToken,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let end = EndNotice::new(events, Event::Ended { link, offence: None });
        Self { link, closed, end }
    }
}
