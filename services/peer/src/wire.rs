//! Conversion between wire messages and the peer's own types: parsed at the edge, then trusted.

use std::net::IpAddr;

use bytes::Bytes;
use shoal_common::{Address, advertised::AdvertisedAddresses};
use shoal_core::{
    PeerId,
    content::{Bitfield, ContentId, Layout, PieceIndex},
    roster::Candidate,
    swarm::PeerMessage,
};
use shoal_proto::{
    peer::v1::{self as pb, link_message::Kind},
    types::v1::{Location, PeerInfo},
};

/// The version of the link protocol of this program.
const VERSION: u32 = 1;

/// Pieces in one HAVE, at most.
const MAX_HAVE: usize = 8192;

/// Pieces in one suggestion, at most.
const MAX_SUGGEST: usize = 64;

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

/// A neighbour's message that violates the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("the first message on a link is a Hello")]
    NoHello,
    #[error("a Hello comes once, and first")]
    SecondHello,
    #[error("the message has no kind that this version knows")]
    Unknown,
    #[error("versions {0} to {1} are spoken there, {VERSION} here; upgrade the older peer")]
    Version(u32, u32),
    #[error("{0}")]
    Field(String),
    #[error("a link token has 16 bytes")]
    Token,
    #[error("piece {0} is not one of the content's")]
    Piece(u32),
    #[error("{0} pieces in one message are more than the {1} allowed")]
    TooMany(usize, usize),
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
        Some(Candidate { peer: self.peer, address: address.to_string(), complete: self.complete })
    }
}

fn field(error: impl std::error::Error) -> WireError {
    WireError::Field(error.to_string())
}

/// A message on a link after the hellos.
#[derive(Debug)]
pub(crate) enum Received {
    /// For the swarm state machine.
    Message(PeerMessage),
    /// A request for blocks on the link itself, or blocks.
    InLink(InLink),
}

/// Blocks on the link itself, for a peer that cannot be dialled.
#[derive(Debug)]
pub(crate) enum InLink {
    Request(pb::Request),
    Block(pb::Block),
    Cancel(u64),
    Refuse(u64),
}

pub(crate) fn receive(
    message: Option<pb::LinkMessage>,
    layout: &Layout,
) -> Result<Received, WireError> {
    let kind = message.and_then(|message| message.kind).ok_or(WireError::Unknown)?;
    let message = match kind {
        Kind::Hello(_) => return Err(WireError::SecondHello),
        Kind::Bitfield(field) => {
            let field = Bitfield::from_wire(&field.pieces, layout.piece_count());
            PeerMessage::Bitfield(field.map_err(|error| WireError::Field(error.to_string()))?)
        }
        Kind::Have(have) => PeerMessage::Have(pieces(&have.pieces, MAX_HAVE, layout)?),
        Kind::Suggest(suggest) => {
            PeerMessage::Suggest(pieces(&suggest.pieces, MAX_SUGGEST, layout)?)
        }
        Kind::Choke(pb::Choke {}) => PeerMessage::Choke,
        Kind::Unchoke(pb::Unchoke {}) => PeerMessage::Unchoke,
        Kind::Interested(pb::Interested {}) => PeerMessage::Interested,
        Kind::NotInterested(pb::NotInterested {}) => PeerMessage::NotInterested,
        Kind::Request(request) => return Ok(Received::InLink(InLink::Request(request))),
        Kind::Block(block) => return Ok(Received::InLink(InLink::Block(block))),
        Kind::Cancel(cancel) => return Ok(Received::InLink(InLink::Cancel(cancel.request_id))),
        Kind::Refuse(refuse) => return Ok(Received::InLink(InLink::Refuse(refuse.request_id))),
    };
    Ok(Received::Message(message))
}

fn pieces(indexes: &[u32], limit: usize, layout: &Layout) -> Result<Vec<PieceIndex>, WireError> {
    if indexes.len() > limit {
        return Err(WireError::TooMany(indexes.len(), limit));
    }
    indexes.iter().map(|index| layout.piece(*index).ok_or(WireError::Piece(*index))).collect()
}

/// The wire messages for an output of the state machine, split where one would be too long.
pub(crate) fn send(message: PeerMessage) -> Vec<pb::LinkMessage> {
    let numbers =
        |pieces: &[PieceIndex]| pieces.iter().map(|piece| piece.get()).collect::<Vec<_>>();
    let kind = match message {
        PeerMessage::Bitfield(field) => {
            Kind::Bitfield(pb::Bitfield { pieces: field.to_wire().into() })
        }
        PeerMessage::Have(pieces) => {
            let haves = pieces.chunks(MAX_HAVE);
            return haves
                .map(|part| self::message(Kind::Have(pb::Have { pieces: numbers(part) })))
                .collect();
        }
        PeerMessage::Suggest(pieces) => {
            let first = &pieces[..pieces.len().min(MAX_SUGGEST)];
            Kind::Suggest(pb::Suggest { pieces: numbers(first) })
        }
        PeerMessage::Choke => Kind::Choke(pb::Choke {}),
        PeerMessage::Unchoke => Kind::Unchoke(pb::Unchoke {}),
        PeerMessage::Interested => Kind::Interested(pb::Interested {}),
        PeerMessage::NotInterested => Kind::NotInterested(pb::NotInterested {}),
    };
    vec![self::message(kind)]
}

pub(crate) const fn message(kind: Kind) -> pb::LinkMessage {
    pb::LinkMessage { kind: Some(kind) }
}
