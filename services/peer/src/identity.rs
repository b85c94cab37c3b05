//! This peer as others see it.

use shoal_core::{Address, PeerId};
use shoal_proto::types::v1::{Location, PeerInfo};

use crate::{
    link::{Hello, LinkToken},
    store::Stored,
};

/// This peer's description of itself, for all contents.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) peer: PeerId,
    /// The address that others dial; the receiver replaces an unspecified host.
    pub(crate) address: Address,
    pub(crate) location: Location,
}

impl Identity {
    /// The Hello of a new link for this content, with a token of its own.
    pub(crate) fn hello(&self, stored: &Stored) -> Hello {
        Hello {
            content: stored.id(),
            peer: self.peer,
            address: self.address.clone(),
            complete: stored.is_complete(),
            location: self.location.clone(),
            token: LinkToken::random(),
            serves_nothing: false,
        }
    }

    /// For announces; the announce itself says whether it is complete.
    pub(crate) fn info(&self) -> PeerInfo {
        PeerInfo {
            peer_id: self.peer.to_string(),
            address: self.address.to_string(),
            location: Some(self.location.clone()),
            complete: false,
        }
    }
}
