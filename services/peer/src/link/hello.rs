//! The first message of each end of a link.

use std::net::IpAddr;

use bytes::Bytes;
use shoal_common::advertised::AdvertisedAddresses;
use shoal_core::{Address, PeerId, content::ContentId, peer_list::Candidate};
use shoal_proto::{
    peer::v1::{self as pb, link_message::Kind},
    types::v1::{Location, PeerInfo},
};

use super::wire::{VERSION, WireError, message};

/// Ties a `RequestPiece` to its link, and so to its choke state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LinkToken([u8; 16]);

impl LinkToken {
    pub(crate) fn random() -> Self {
        Self(rand::random())
    }

    pub(crate) fn to_bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        bytes.try_into().map(Self).map_err(|_| WireError::Token)
    }
}

/// A neighbour's description of itself when a link is made.
#[derive(Clone, Debug)]
pub(crate) struct Hello {
    pub(crate) content: ContentId,
    pub(crate) peer: PeerId,
    /// The address to dial; its host may still be unspecified.
    pub(crate) address: Address,
    pub(crate) complete: bool,
    pub(crate) location: Location,
    pub(crate) token: LinkToken,
    pub(crate) serves_nothing: bool,
}

impl Hello {
    pub(crate) fn to_wire(&self) -> pb::LinkMessage {
        message(Kind::Hello(pb::Hello {
            min_version: VERSION,
            max_version: VERSION,
            content_id: self.content.to_string(),
            peer: Some(PeerInfo {
                peer_id: self.peer.to_string(),
                address: self.address.to_string(),
                location: Some(self.location.clone()),
                complete: self.complete,
            }),
            link_token: self.token.to_bytes(),
            serves_nothing: self.serves_nothing,
        }))
    }

    pub(crate) fn from_wire(message: Option<pb::LinkMessage>) -> Result<Self, WireError> {
        let Some(Kind::Hello(hello)) = message.and_then(|message| message.kind) else {
            return Err(WireError::NoHello);
        };
        if !(hello.min_version..=hello.max_version).contains(&VERSION) {
            return Err(WireError::Version(hello.min_version, hello.max_version));
        }
        let info = hello.peer.ok_or_else(|| WireError::Field("the peer is missing".to_owned()))?;
        Ok(Self {
            content: hello.content_id.parse().map_err(field)?,
            peer: info.peer_id.parse().map_err(field)?,
            address: info.address.parse().map_err(field)?,
            complete: info.complete,
            location: info.location.unwrap_or_default(),
            token: LinkToken::parse(&hello.link_token)?,
            serves_nothing: hello.serves_nothing,
        })
    }

    /// The sender as a peer that can be dialled at the address of its connection; none if it
    /// advertises another one.
    pub(crate) fn candidate(&self, observed: IpAddr) -> Option<Candidate> {
        let address = AdvertisedAddresses::Observed.accept(self.address.clone(), observed).ok()?;
        Some(Candidate { peer: self.peer, address, complete: self.complete })
    }
}

fn field(error: impl std::error::Error) -> WireError {
    WireError::Field(error.to_string())
}
