//! What the nodes that keep a range ask each other.

use std::time::Duration;

use shoal_common::channel::Channel;
use shoal_core::ring::{Ballot, Contact, KeyRange, Proposal, ReplicaSet, Superseding, Version};
use shoal_proto::dht::v1::{
    self as pb, accept_response, prepare_response, renew_response,
    replica_service_client::ReplicaServiceClient, replicate_response,
};

use super::{CallError, Calls, ring::parsed};
use crate::{
    keeper::{Accepted, Prepared, Renewed, Replicated},
    store::{Digest, Key, Record},
    wire::{self, WireError},
};

/// The largest message of records: below tonic's limit of 4 MiB.
const MAX_MESSAGE: usize = 4 << 20;

fn client(channel: Channel) -> ReplicaServiceClient<Channel> {
    ReplicaServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE)
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
            present: Some(wire::agreement(range, present)),
            ballot: Some(wire::ballot(ballot)),
            primary_agrees,
        };
        let call = async |channel| client(channel).prepare(request).await;
        let response = self.patient(to, call).await?;
        parsed(&to.address, parse_prepared(response))
    }

    pub(crate) async fn accept(
        &self,
        (range, present): (KeyRange, &ReplicaSet),
        proposal: &Proposal,
        to: &Contact,
    ) -> Result<Accepted, CallError> {
        let request = pb::AcceptRequest {
            present: Some(wire::agreement(range, present)),
            proposal: Some(wire::proposal(proposal)),
        };
        let call = async |channel| client(channel).accept(request).await;
        let response = self.patient(to, call).await?;
        parsed(&to.address, parse_accepted(response))
    }

    pub(crate) async fn learn(
        &self,
        (range, chosen): (KeyRange, &ReplicaSet),
        to: &Contact,
    ) -> Result<Superseding, CallError> {
        let request = pb::LearnRequest { agreement: Some(wire::agreement(range, chosen)) };
        let call = async |channel| client(channel).learn(request).await;
        let response = self.patient(to, call).await?;
        parsed(&to.address, wire::parse_superseded(response.superseded.unwrap_or_default()))
    }

    pub(crate) async fn agreements(
        &self,
        over: KeyRange,
        of: &Contact,
    ) -> Result<Superseding, CallError> {
        let request = pb::ListAgreementsRequest { range: Some(wire::range(over)) };
        let call = async |channel| client(channel).list_agreements(request).await;
        let response = self.quick(of, call).await?;
        let listed = pb::Superseded { by: response.agreements };
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
            agreement: Some(wire::agreement(range, present)),
            digest: Some(wire::digest(digest)),
            purge_before: purge_before.map(wire::timestamp),
        };
        let call = async |channel| client(channel).renew(request).await;
        let response = self.quick(to, call).await?;
        parsed(&to.address, parse_renewed(response))
    }

    pub(crate) async fn replicate(
        &self,
        (range, present): (KeyRange, &ReplicaSet),
        record: &Record,
        to: &Contact,
    ) -> Result<Replicated, CallError> {
        let request = pb::ReplicateRequest {
            agreement: Some(wire::agreement(range, present)),
            record: Some(wire::record(record)),
        };
        let call = async |channel| client(channel).replicate(request).await;
        let response = self.patient(to, call).await?;
        parsed(&to.address, parse_replicated(response))
    }

    pub(crate) async fn supply(
        &self,
        range: KeyRange,
        records: &[Record],
        to: &Contact,
    ) -> Result<(), CallError> {
        let records = records.iter().map(wire::record).collect();
        let request = pb::SupplyRequest { range: Some(wire::range(range)), records };
        let call = async |channel| client(channel).supply(request).await;
        self.patient(to, call).await.map(drop)
    }

    pub(crate) async fn summarize(
        &self,
        ranges: &[KeyRange],
        of: &Contact,
    ) -> Result<Vec<Digest>, CallError> {
        let ranges = ranges.iter().copied().map(wire::range).collect();
        let request = pb::SummarizeRequest { ranges };
        let call = async |channel| client(channel).summarize(request).await;
        let response = self.patient(of, call).await?;
        let digests = response.digests.into_iter();
        let digests = digests.map(|digest| wire::parse_digest(Some(digest))).collect();
        parsed(&of.address, digests)
    }

    /// Keys and versions of a range, from a key on; and whether there are more.
    pub(crate) async fn versions(
        &self,
        range: KeyRange,
        after: Option<&Key>,
        of: &Contact,
    ) -> Result<(Vec<(Key, Version)>, bool), CallError> {
        let after_key = after.map(|key| key.as_bytes().clone()).unwrap_or_default();
        let request = pb::ListVersionsRequest { range: Some(wire::range(range)), after_key };
        let call = async |channel| client(channel).list_versions(request).await;
        let response = self.patient(of, call).await?;
        let versions = response.versions.into_iter().map(|listed| {
            let key = Key::try_from(listed.key).map_err(wire::field)?;
            Ok((key, listed.version.parse().map_err(wire::field)?))
        });
        let versions = versions.collect::<Result<_, _>>();
        parsed(&of.address, versions.map(|versions| (versions, response.more)))
    }

    /// Records of some of the keys: as many as fit into a message.
    pub(crate) async fn records(
        &self,
        keys: &[Key],
        of: &Contact,
    ) -> Result<Vec<Record>, CallError> {
        let keys = keys.iter().map(|key| key.as_bytes().clone()).collect();
        let request = pb::ReadRecordsRequest { keys };
        let call = async |channel| client(channel).read_records(request).await;
        let response = self.patient(of, call).await?;
        let records = response.records.into_iter();
        let records = records.map(|record| wire::parse_record(Some(record))).collect();
        parsed(&of.address, records)
    }
}

const NO_KIND: WireError = WireError::Missing("the kind of the answer");

fn parse_prepared(response: pb::PrepareResponse) -> Result<Prepared, WireError> {
    use prepare_response::Kind;
    Ok(match response.kind.ok_or(NO_KIND)? {
        Kind::Promised(promise) => Prepared::Promised(wire::parse_promise(promise)?),
        Kind::Outbid(ballot) => Prepared::Outbid(wire::parse_ballot(Some(ballot))?),
        Kind::Superseded(by) => Prepared::Superseded(wire::parse_superseded(by)?),
        Kind::Leased(wait) => Prepared::Leased(Duration::try_from(wait).map_err(wire::field)?),
    })
}

fn parse_accepted(response: pb::AcceptResponse) -> Result<Accepted, WireError> {
    use accept_response::Kind;
    Ok(match response.kind.ok_or(NO_KIND)? {
        Kind::Accepted(pb::Acceptance {}) => Accepted::Yes,
        Kind::Outbid(ballot) => Accepted::Outbid(wire::parse_ballot(Some(ballot))?),
        Kind::Superseded(by) => Accepted::Superseded(wire::parse_superseded(by)?),
    })
}

fn parse_renewed(response: pb::RenewResponse) -> Result<Renewed, WireError> {
    use renew_response::Kind;
    Ok(match response.kind.ok_or(NO_KIND)? {
        Kind::Granted(pb::Renewal { same: true }) => Renewed::Same,
        Kind::Granted(pb::Renewal { same: false }) => Renewed::Different,
        Kind::Sealed(pb::Sealed {}) => Renewed::Sealed,
        Kind::Superseded(by) => Renewed::Superseded(wire::parse_superseded(by)?),
    })
}

fn parse_replicated(response: pb::ReplicateResponse) -> Result<Replicated, WireError> {
    use replicate_response::Kind;
    Ok(match response.kind.ok_or(NO_KIND)? {
        Kind::Stored(pb::Stored {}) => Replicated::Stored,
        Kind::Newer(record) => Replicated::Newer(wire::parse_record(Some(record))?),
        Kind::Sealed(pb::Sealed {}) => Replicated::Sealed,
        Kind::Superseded(by) => Replicated::Superseded(wire::parse_superseded(by)?),
    })
}
