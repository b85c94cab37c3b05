//! Who this peer is to others.

use shoal_common::Address;
use shoal_core::PeerId;
use shoal_proto::types::v1::{Location, PeerInfo};

use crate::{
    store::Stored,
    wire::{Hello, LinkToken},
};

/// What this peer says of itself, whatever the content.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) peer: PeerId,
    /// Where others dial it; an unspecified host is filled in by who hears it.
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

    /// For announces; whether it is complete, the announce tells.
    pub(crate) fn info(&self) -> PeerInfo {
        PeerInfo {
            peer_id: self.peer.to_string(),
            address: self.address.to_string(),
            location: Some(self.location.clone()),
            complete: false,
        }
    }
}
