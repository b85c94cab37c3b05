//! What the hellos of a link have shown.

use std::time::Duration;

use shoal_core::{Address, PeerId, peer_list::Origin, swarm::ContentKey};

use super::{hello::LinkToken, sender::LinkSender};

/// A link whose hellos were exchanged, for the engine to accept.
#[derive(Debug)]
pub(crate) struct Handshake {
    pub(crate) content: ContentKey,
    pub(crate) peer: PeerId,
    /// The address to dial the neighbour; none if it advertises one that is not accepted.
    pub(crate) address: Option<Address>,
    pub(crate) complete: bool,
    pub(crate) serves_nothing: bool,
    /// What is proven about the neighbour.
    pub(crate) origin: Origin,
    pub(crate) round_trip: Duration,
    /// In the neighbour's calls to us.
    pub(crate) our_token: LinkToken,
    /// In our calls to the neighbour.
    pub(crate) their_token: LinkToken,
    /// Sends to the neighbour.
    pub(crate) sender: LinkSender,
}
