//! Calls between the members of a replica set.

use shoal_common::{channel::Channel, units::duration};
use shoal_core::ring::{
    Ballot, Contact, KeyRange, Proposal, Refusal, ReplicaSet, Stamp, Superseding, WriteRefusal,
};
use shoal_proto::dht::v1::{
    self as pb, accept_response, prepare_response, renew_response,
    replica_service_client::ReplicaServiceClient, replicate_response, supply_response,
};
use tonic::service::interceptor::InterceptedService;

use super::{CallError, Calls, ring::parsed};
use crate::{
    replication::local_replica::{Handover, Prepared, Renewal, Renewed},
    storage::{Digest, Key, Record},
    wire::{self, Addressee, WireError},
};

/// The largest message of records: below tonic's limit of 4 MiB.
const MAX_MESSAGE: usize = 4 << 20;

/// A client of this node that no other node accepts, even if it has the address now.
fn client(
    channel: Channel,
    to: &Contact,
) -> ReplicaServiceClient<InterceptedService<Channel, Addressee>> {
    let client = ReplicaServiceClient::with_interceptor(channel, Addressee(to.id));
    client.max_decoding_message_size(MAX_MESSAGE)
}

impl Calls {
    pub(crate) async fn prepare(
        &self,
        (range, present): (KeyRange, &ReplicaSet),
        ballot: Ballot,
        primary_agrees: bool,
        to: &Contact,
    ) -> Result<Prepared, CallError> {
        let request = pb::PrepareRequest {
            present: Some(wire::range_replica_set(range, present)),
            ballot: Some(wire::ballot(ballot)),
            primary_agrees,
        };
        let call = async |channel| client(channel, to).prepare(request).await;
        let response = self.patient(to, call).await?;
        parsed(&to.address, parse_prepared(response))
    }

    pub(crate) async fn accept(
        &self,
        (range, present): (KeyRange, &ReplicaSet),
        proposal: &Proposal,
        to: &Contact,
    ) -> Result<Result<(), Refusal>, CallError> {
        let request = pb::AcceptRequest {
            present: Some(wire::range_replica_set(range, present)),
            proposal: Some(wire::proposal(proposal)),
        };
        let call = async |channel| client(channel, to).accept(request).await;
        let response = self.patient(to, call).await?;
        parsed(&to.address, parse_accepted(response))
    }

    pub(crate) async fn learn(
        &self,
        (range, chosen): (KeyRange, &ReplicaSet),
        to: &Contact,
    ) -> Result<Superseding, CallError> {
        let request = pb::LearnRequest { chosen: Some(wire::range_replica_set(range, chosen)) };
        let call = async |channel| client(channel, to).learn(request).await;
        let response = self.patient(to, call).await?;
        parsed(&to.address, wire::parse_superseded(response.superseded.unwrap_or_default()))
    }

    pub(crate) async fn replica_sets(
        &self,
        over: KeyRange,
        of: &Contact,
    ) -> Result<Superseding, CallError> {
        let request = pb::ListReplicaSetsRequest { range: Some(wire::range(over)) };
        let call = async |channel| client(channel, of).list_replica_sets(request).await;
        let response = self.unhurried(&self.at_present(of)?, call).await?;
        let listed = pb::Superseded { by: response.replica_sets };
        parsed(&of.address, wire::parse_superseded(listed))
    }

    pub(crate) async fn renew(
        &self,
        (range, present): (KeyRange, &ReplicaSet),
        digest: Digest,
        purge_before: Option<u64>,
        to: &Contact,
    ) -> Result<Renewed, CallError> {
        let request = pb::RenewRequest {
            present: Some(wire::range_replica_set(range, present)),
            digest: Some(wire::digest(digest)),
            purge_before: purge_before.map(wire::timestamp),
        };
        let call = async |channel| client(channel, to).renew(request).await;
        let response = self.unhurried(&self.at_present(to)?, call).await?;
        parsed(&to.address, parse_renewed(response))
    }

    pub(crate) async fn replicate(
        &self,
        (range, present): (KeyRange, &ReplicaSet),
        records: &[Record],
        to: &Contact,
    ) -> Result<Result<Vec<Record>, WriteRefusal>, CallError> {
        let request = pb::ReplicateRequest {
            present: Some(wire::range_replica_set(range, present)),
            records: records.iter().map(wire::record).collect(),
        };
        let call = async |channel| client(channel, to).replicate(request).await;
        let response = self.patient(to, call).await?;
        parsed(&to.address, parse_replicated(response, records))
    }

    pub(crate) async fn supply(
        &self,
        Handover { range, present, ballot }: &Handover,
        records: &[Record],
        to: &Contact,
    ) -> Result<Result<(), Refusal>, CallError> {
        let request = pb::SupplyRequest {
            present: Some(wire::range_replica_set(*range, present)),
            ballot: ballot.map(wire::ballot),
            records: records.iter().map(wire::record).collect(),
        };
        let call = async |channel| client(channel, to).supply(request).await;
        let response = self.patient(to, call).await?;
        parsed(&to.address, parse_supplied(response))
    }

    pub(crate) async fn hand_in(&self, records: &[Record], to: &Contact) -> Result<(), CallError> {
        let request = pb::HandInRequest { records: records.iter().map(wire::record).collect() };
        let call = async |channel| client(channel, to).hand_in(request).await;
        self.patient(to, call).await.map(drop)
    }

    pub(crate) async fn summarize(
        &self,
        ranges: &[KeyRange],
        of: &Contact,
    ) -> Result<Vec<Digest>, CallError> {
        let asked = ranges.iter().copied().map(wire::range).collect();
        let request = pb::SummarizeRequest { ranges: asked };
        let call = async |channel| client(channel, of).summarize(request).await;
        let response = self.patient(of, call).await?;
        parsed(&of.address, wire::parse_digests(response.digests, ranges.len()))
    }

    /// Keys and stamps of a range after a key, and whether there are more.
    pub(crate) async fn stamps(
        &self,
        range: KeyRange,
        after: Option<&Key>,
        of: &Contact,
    ) -> Result<(Vec<(Key, Stamp)>, bool), CallError> {
        let after_key = after.map(|key| key.as_bytes().clone()).unwrap_or_default();
        let request = pb::ListVersionsRequest { range: Some(wire::range(range)), after_key };
        let call = async |channel| client(channel, of).list_versions(request).await;
        let response = self.patient(of, call).await?;
        parsed(&of.address, wire::parse_stamps(response, range, after))
    }

    /// Records of some of the keys, as many as fit into a message.
    pub(crate) async fn records(
        &self,
        keys: &[Key],
        of: &Contact,
    ) -> Result<Vec<Record>, CallError> {
        let asked = keys.iter().map(|key| key.as_bytes().clone()).collect();
        let request = pb::ReadRecordsRequest { keys: asked };
        let call = async |channel| client(channel, of).read_records(request).await;
        let response = self.patient(of, call).await?;
        parsed(&of.address, wire::parse_records_of(response.records, keys.iter()))
    }
}

const NO_KIND: WireError = WireError::Missing("the kind of the answer");

pub(super) fn parse_prepared(response: pb::PrepareResponse) -> Result<Prepared, WireError> {
    use prepare_response::Kind;
    Ok(match response.kind.ok_or(NO_KIND)? {
        Kind::Promised(promise) => Prepared::Promised(wire::parse_promise(promise)?),
        Kind::Outbid(ballot) => Prepared::Refused(outbid(ballot)?),
        Kind::Superseded(by) => Prepared::Refused(superseded(by)?),
        Kind::Leased(wait) => Prepared::Leased(duration::from_message(wait).map_err(wire::field)?),
    })
}

pub(super) fn parse_accepted(
    response: pb::AcceptResponse,
) -> Result<Result<(), Refusal>, WireError> {
    use accept_response::Kind;
    Ok(match response.kind.ok_or(NO_KIND)? {
        Kind::Accepted(pb::Acceptance {}) => Ok(()),
        Kind::Outbid(ballot) => Err(outbid(ballot)?),
        Kind::Superseded(by) => Err(superseded(by)?),
    })
}

pub(super) fn parse_supplied(
    response: pb::SupplyResponse,
) -> Result<Result<(), Refusal>, WireError> {
    use supply_response::Kind;
    Ok(match response.kind.ok_or(NO_KIND)? {
        Kind::Supplied(pb::Supplied {}) => Ok(()),
        Kind::Outbid(ballot) => Err(outbid(ballot)?),
        Kind::Superseded(by) => Err(superseded(by)?),
    })
}

fn outbid(ballot: pb::Ballot) -> Result<Refusal, WireError> {
    wire::parse_ballot(Some(ballot)).map(Refusal::Outbid)
}

fn superseded(by: pb::Superseded) -> Result<Refusal, WireError> {
    wire::parse_superseded(by).map(Refusal::Superseded)
}

pub(super) fn parse_renewed(response: pb::RenewResponse) -> Result<Renewed, WireError> {
    use renew_response::Kind;
    Ok(match response.kind.ok_or(NO_KIND)? {
        Kind::Granted(pb::Renewal { same, full }) => {
            Renewed::Granted(Renewal { is_same: same, is_full: full })
        }
        Kind::Sealed(pb::Sealed {}) => Renewed::Sealed,
        Kind::Superseded(by) => Renewed::Superseded(wire::parse_superseded(by)?),
    })
}

pub(super) fn parse_replicated(
    response: pb::ReplicateResponse,
    sent: &[Record],
) -> Result<Result<Vec<Record>, WriteRefusal>, WireError> {
    use replicate_response::Kind;
    Ok(match response.kind.ok_or(NO_KIND)? {
        Kind::Stored(pb::Stored { newer }) => {
            Ok(wire::parse_records_of(newer, sent.iter().map(|record| &record.key))?)
        }
        Kind::Sealed(pb::Sealed {}) => Err(WriteRefusal::Sealed),
        Kind::Superseded(by) => Err(WriteRefusal::Superseded(wire::parse_superseded(by)?)),
    })
}
