//! Messages on a link after the hellos: parsed at the edge, then trusted.

use shoal_core::{
    content::{Bitfield, PieceIndex},
    swarm::PeerMessage,
};
use shoal_proto::peer::v1::{self as pb, link_message::Kind};

/// The version of the link protocol of this program.
pub(super) const VERSION: u32 = 1;

/// Pieces in one HAVE, at most.
const MAX_HAVE: usize = 8192;

/// Pieces in one suggestion, at most.
const MAX_SUGGEST: usize = 64;

/// A neighbour's message that violates the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("the first message on a link is a Hello")]
    NoHello,
    #[error("a Hello comes once, and first")]
    SecondHello,
    #[error("the message has no kind that this version knows")]
    Unknown,
    #[error("the peer speaks versions {0} to {1}, this one {VERSION}; upgrade the older one")]
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

pub(crate) fn parse(
    message: Option<pb::LinkMessage>,
    piece_count: u32,
) -> Result<Received, WireError> {
    let kind = message.and_then(|message| message.kind).ok_or(WireError::Unknown)?;
    let message = match kind {
        Kind::Hello(_) => return Err(WireError::SecondHello),
        Kind::Bitfield(field) => {
            let field = Bitfield::from_wire(&field.pieces, piece_count);
            PeerMessage::Bitfield(field.map_err(|error| WireError::Field(error.to_string()))?)
        }
        Kind::Have(have) => PeerMessage::Have(pieces(&have.pieces, MAX_HAVE, piece_count)?),
        Kind::Suggest(suggest) => {
            PeerMessage::Suggest(pieces(&suggest.pieces, MAX_SUGGEST, piece_count)?)
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

fn pieces(indexes: &[u32], limit: usize, piece_count: u32) -> Result<Vec<PieceIndex>, WireError> {
    if indexes.len() > limit {
        return Err(WireError::TooMany(indexes.len(), limit));
    }
    let known = |index: &u32| (*index < piece_count).then(|| PieceIndex::new(*index));
    indexes.iter().map(|index| known(index).ok_or(WireError::Piece(*index))).collect()
}

/// The messages for an output of the state machine, split where one would be too long.
pub(crate) fn encode(message: PeerMessage) -> Vec<Kind> {
    let numbers =
        |pieces: &[PieceIndex]| pieces.iter().map(|piece| piece.get()).collect::<Vec<_>>();
    let kind = match message {
        PeerMessage::Bitfield(field) => {
            Kind::Bitfield(pb::Bitfield { pieces: field.to_wire().into() })
        }
        PeerMessage::Have(pieces) => {
            let haves = pieces.chunks(MAX_HAVE);
            return haves.map(|part| Kind::Have(pb::Have { pieces: numbers(part) })).collect();
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
    vec![kind]
}

pub(crate) const fn message(kind: Kind) -> pb::LinkMessage {
    pb::LinkMessage { kind: Some(kind) }
}
