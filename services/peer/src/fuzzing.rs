//! Entry points for fuzz targets, built only with `--cfg fuzzing`: private parsers.

use std::net::IpAddr;

use bytes::Bytes;
use prost::Message as _;
use shoal_common::advertised::AdvertisedAddresses;
use shoal_core::{
    content::{BlockRange, ContentId, Layout},
    peer_list::{Arrival, Origin},
    swarm::PeerMessage,
};
use shoal_proto::peer::v1::{ExchangeRequest, RequestPieceRequest};

use crate::{
    link::{
        Hello,
        wire::{self, InLink, Received},
    },
    transfer::parse_ranges,
};
pub use crate::{store::fuzzing::*, transfer::fuzzing::*};

/// A message of a neighbour after its Hello.
#[derive(Debug)]
pub enum Said {
    /// For the swarm state machine.
    Message(PeerMessage),
    /// A request for blocks on the link.
    Asked(Vec<BlockRange>),
    /// About requested blocks.
    Answered,
}

/// The peer that sends Hello as the first message on a link, observed at an IP address; none if it
/// violates the protocol.
pub fn hello(message: Bytes, observed: IpAddr) -> Option<(ContentId, Arrival)> {
    let hello = Hello::from_wire(ExchangeRequest::decode(message).ok()?.message).ok()?;
    let address = AdvertisedAddresses::Observed.accept(hello.address, observed).ok();
    let arrival = Arrival {
        peer: hello.peer,
        address,
        complete: hello.complete,
        origin: Origin::Seen(observed.to_canonical(), hello.peer),
    };
    Some((hello.content, arrival))
}

/// The content of a later message on a link; none if it violates the protocol.
pub fn said(message: Bytes, layout: &Layout) -> Option<Said> {
    let message = ExchangeRequest::decode(message).ok()?.message;
    Some(match wire::parse(message, layout.piece_count()).ok()? {
        Received::Message(message) => Said::Message(message),
        Received::InLink(InLink::Request(request)) => {
            Said::Asked(parse_ranges(layout, &request.ranges).ok()?)
        }
        Received::InLink(InLink::Block(_) | InLink::Cancel(_) | InLink::Refuse(_)) => {
            Said::Answered
        }
    })
}

/// Outputs of the state machine as messages on a link.
pub fn say(message: PeerMessage) -> Vec<Vec<u8>> {
    let messages = wire::encode(message).into_iter().map(wire::message);
    messages.map(|message| ExchangeRequest { message: Some(message) }.encode_to_vec()).collect()
}

/// The content of a call for blocks; none if it is refused.
pub fn asked(message: Bytes, layout: &Layout) -> Option<Vec<BlockRange>> {
    parse_ranges(layout, &RequestPieceRequest::decode(message).ok()?.ranges).ok()
}
