//! Entry points for fuzz targets, built only with `--cfg fuzzing`: private parsers. Each returns
//! none if it refuses its input.

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use prost::Message as _;
use shoal_common::advertised::AdvertisedAddresses;
use shoal_core::ring::{
    Answer, Ballot, Entry, Found, KeyRange, MembershipDigest, Proposal, Question, ReplicaSet, State,
};
use shoal_proto::dht::v1 as pb;

pub use crate::{network::calls::fuzzing::*, storage::fuzzing::*};
use crate::{
    storage::Record,
    wire::{self, Provenance},
};

/// A sender on this host, so that most hearsay is accepted.
const HERE: Provenance = Provenance::Hearsay(IpAddr::V4(Ipv4Addr::LOCALHOST));

/// The state of a node that sends it unasked, from this address: a `NotifyRequest`.
pub fn notified(message: Bytes, observed: IpAddr) -> Option<State> {
    let request = pb::NotifyRequest::decode(message).ok()?;
    wire::parse_state(request.state, Provenance::Itself(observed, AdvertisedAddresses::Any)).ok()
}

/// Gossip and the digest of the sender's membership list: a `GossipRequest`.
pub fn gossip(message: Bytes) -> Option<(Vec<Entry>, Option<MembershipDigest>)> {
    let request = pb::GossipRequest::decode(message).ok()?;
    let entries = wire::parse_rumours(request.rumours, HERE).ok()?;
    Some((entries, wire::parse_membership_digest(request.digest).ok()?))
}

/// A node's answer to a question.
pub fn answer(question: &Question, message: Bytes) -> Option<Answer> {
    let state = |state| wire::parse_state(state, HERE).ok();
    Some(match question {
        Question::State => Answer::State(state(pb::GetStateResponse::decode(message).ok()?.state)?),
        Question::Notify(_) => {
            state(pb::NotifyResponse::decode(message).ok()?.state)?;
            Answer::Noticed
        }
        Question::Probe(_) => {
            let response = pb::ProbeResponse::decode(message).ok()?;
            Answer::Probed(state(response.state)?, wire::parse_found(response.next?, HERE).ok()?)
        }
        Question::Gossip(..) => {
            let response = pb::GossipResponse::decode(message).ok()?;
            Answer::Gossip(wire::parse_rumours(response.rumours, HERE).ok()?)
        }
    })
}

/// A node's answer about a position: a `FindSuccessorResponse`.
pub fn found(message: Bytes) -> Option<Found> {
    wire::parse_found(pb::FindSuccessorResponse::decode(message).ok()?, HERE).ok()
}

/// A request to a member of a replica set.
#[derive(Debug)]
pub enum Asked {
    /// Prepare.
    Prepare(KeyRange, ReplicaSet, Ballot),
    /// Accept.
    Accept(KeyRange, ReplicaSet, Proposal),
    /// Learn.
    Learn(KeyRange, ReplicaSet),
    /// Store what the primary writes.
    Replicate(KeyRange, ReplicaSet, Vec<Record>),
    /// Store what is transferred for the next set.
    Supply(KeyRange, ReplicaSet, Option<Ballot>, Vec<Record>),
}

/// The methods that [`asked`] parses.
pub const ASKED: [&str; 5] = ["Prepare", "Accept", "Learn", "Replicate", "Supply"];

/// Parses the request of a method of `ReplicaService`.
pub fn asked(method: &str, message: Bytes) -> Option<Asked> {
    Some(match method {
        "Prepare" => {
            let request = pb::PrepareRequest::decode(message).ok()?;
            let (range, present) = wire::parse_range_replica_set(request.present).ok()?;
            Asked::Prepare(range, present, wire::parse_ballot(request.ballot).ok()?)
        }
        "Accept" => {
            let request = pb::AcceptRequest::decode(message).ok()?;
            let (range, present) = wire::parse_range_replica_set(request.present).ok()?;
            Asked::Accept(range, present, wire::parse_proposal(request.proposal).ok()?)
        }
        "Learn" => {
            let request = pb::LearnRequest::decode(message).ok()?;
            let (range, chosen) = wire::parse_range_replica_set(request.chosen).ok()?;
            Asked::Learn(range, chosen)
        }
        "Replicate" => {
            let request = pb::ReplicateRequest::decode(message).ok()?;
            let (range, set) = wire::parse_range_replica_set(request.present).ok()?;
            Asked::Replicate(range, set, wire::parse_records(request.records).ok()?)
        }
        _ => {
            let request = pb::SupplyRequest::decode(message).ok()?;
            let (range, present) = wire::parse_range_replica_set(request.present).ok()?;
            let ballot = request.ballot.map(|ballot| wire::parse_ballot(Some(ballot)));
            let records = wire::parse_records(request.records).ok()?;
            Asked::Supply(range, present, ballot.transpose().ok()?, records)
        }
    })
}
