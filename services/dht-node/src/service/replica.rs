//! `shoal.dht.v1.ReplicaService`: calls between the members of a replica set.

use std::{error::Error, time::Duration};

use shoal_core::ring::{KeyRange, Refusal, Stamp, Superseding, Version, WriteRefusal};
use shoal_proto::dht::v1::{
    self as pb, accept_response, prepare_response, renew_response,
    replica_service_server::ReplicaService, replicate_response, supply_response,
};
use tonic::{Request, Response, Status};

use crate::{
    replication::{
        kv::Values,
        local_replica::{Handover, LocalReplica, Prepared, SupplyError},
    },
    storage::{Key, Record},
    time::unix_ms,
    wire::{self, WireError},
};

/// Ranges digested in one call.
const MAX_RANGES: usize = 64;
/// Keys and versions in one answer.
const MAX_VERSIONS: usize = 4096;
/// Records read in one call.
const MAX_KEYS: usize = 1000;
/// Bytes of records in one answer.
const MAX_RECORD_BYTES: usize = 2 << 20;

/// Answers other nodes from the local replica.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    pub(crate) local: LocalReplica,
    pub(crate) values: Values,
}

#[tonic::async_trait]
impl ReplicaService for Replica {
    async fn prepare(
        &self,
        request: Request<pb::PrepareRequest>,
    ) -> Result<Response<pb::PrepareResponse>, Status> {
        use prepare_response::Kind;
        let request = request.into_inner();
        let (range, present) = wire::parse_range_replica_set(request.present)?;
        let ballot = wire::parse_ballot(request.ballot)?;
        let prepared = self.local.prepare(range, present, ballot, request.primary_agrees).await?;
        let kind = match prepared {
            Prepared::Promised(accepted) => {
                let accepted = accepted.iter().map(|(range, proposal)| pb::AcceptedProposal {
                    range: Some(wire::range(*range)),
                    proposal: Some(wire::proposal(proposal)),
                });
                Kind::Promised(pb::Promise { accepted: accepted.collect() })
            }
            Prepared::Refused(Refusal::Outbid(ballot)) => Kind::Outbid(wire::ballot(ballot)),
            Prepared::Refused(Refusal::Superseded(by)) => Kind::Superseded(wire::superseded(&by)),
            Prepared::Refused(refusal) => return Err(refusal_status(&refusal)),
            Prepared::Leased(wait) => Kind::Leased(duration(wait)),
        };
        Ok(Response::new(pb::PrepareResponse { kind: Some(kind) }))
    }

    async fn accept(
        &self,
        request: Request<pb::AcceptRequest>,
    ) -> Result<Response<pb::AcceptResponse>, Status> {
        use accept_response::Kind;
        let request = request.into_inner();
        let (range, present) = wire::parse_range_replica_set(request.present)?;
        let proposal = wire::parse_proposal(request.proposal)?;
        let kind = match self.local.accept(range, present, proposal).await? {
            Ok(()) => Kind::Accepted(pb::Acceptance {}),
            Err(Refusal::Outbid(ballot)) => Kind::Outbid(wire::ballot(ballot)),
            Err(Refusal::Superseded(by)) => Kind::Superseded(wire::superseded(&by)),
            Err(refusal) => return Err(refusal_status(&refusal)),
        };
        Ok(Response::new(pb::AcceptResponse { kind: Some(kind) }))
    }

    async fn learn(
        &self,
        request: Request<pb::LearnRequest>,
    ) -> Result<Response<pb::LearnResponse>, Status> {
        let (range, chosen) = wire::parse_range_replica_set(request.into_inner().chosen)?;
        let newer = self.local.learn(range, chosen).await?;
        let superseded = Some(wire::superseded(&newer));
        Ok(Response::new(pb::LearnResponse { superseded }))
    }

    async fn list_replica_sets(
        &self,
        request: Request<pb::ListReplicaSetsRequest>,
    ) -> Result<Response<pb::ListReplicaSetsResponse>, Status> {
        let range = wire::parse_range(request.into_inner().range)?;
        let configurations = self.local.configurations();
        let known = configurations.over(range).into_iter();
        let known: Superseding =
            known.filter_map(|(range, known)| Some((range, known?.present.clone()))).collect();
        let replica_sets = wire::superseded(&known).by;
        Ok(Response::new(pb::ListReplicaSetsResponse { replica_sets }))
    }

    async fn renew(
        &self,
        request: Request<pb::RenewRequest>,
    ) -> Result<Response<pb::RenewResponse>, Status> {
        use renew_response::Kind;
        let request = request.into_inner();
        let (range, present) = wire::parse_range_replica_set(request.present)?;
        let theirs = wire::parse_digest(request.digest)?;
        let purge_before = request.purge_before.map(wire::parse_timestamp).transpose()?;
        let kind = match self.local.renew(range, present).await? {
            Ok(()) => {
                if let Some(before) = purge_before {
                    self.local.purge(range, before).await?;
                }
                let same = self.local.store.digest(range)? == theirs;
                Kind::Granted(pb::Renewal { same, full: self.local.is_full() })
            }
            Err(WriteRefusal::Sealed) => Kind::Sealed(pb::Sealed {}),
            Err(WriteRefusal::Superseded(by)) => Kind::Superseded(wire::superseded(&by)),
            Err(refusal @ (WriteRefusal::NoMember | WriteRefusal::TooManyRanges)) => {
                return Err(refusal_status(&refusal));
            }
        };
        Ok(Response::new(pb::RenewResponse { kind: Some(kind) }))
    }

    async fn replicate(
        &self,
        request: Request<pb::ReplicateRequest>,
    ) -> Result<Response<pb::ReplicateResponse>, Status> {
        use replicate_response::Kind;
        let request = request.into_inner();
        let (range, set) = wire::parse_range_replica_set(request.present)?;
        let records = records_within(range, request.records)?;
        let kind = match self.local.replicate(range, set, records).await? {
            Ok(newer) => {
                Kind::Stored(pb::Stored { newer: newer.iter().map(wire::record).collect() })
            }
            Err(WriteRefusal::Sealed) => Kind::Sealed(pb::Sealed {}),
            Err(WriteRefusal::Superseded(by)) => Kind::Superseded(wire::superseded(&by)),
            Err(refusal @ (WriteRefusal::NoMember | WriteRefusal::TooManyRanges)) => {
                return Err(refusal_status(&refusal));
            }
        };
        Ok(Response::new(pb::ReplicateResponse { kind: Some(kind) }))
    }

    async fn supply(
        &self,
        request: Request<pb::SupplyRequest>,
    ) -> Result<Response<pb::SupplyResponse>, Status> {
        use supply_response::Kind;
        let request = request.into_inner();
        let (range, present) = wire::parse_range_replica_set(request.present)?;
        let ballot = request.ballot.map(|ballot| wire::parse_ballot(Some(ballot))).transpose()?;
        let records = records_within(range, request.records)?;
        let kind = match self.local.supply(&Handover { range, present, ballot }, records).await {
            Ok(()) => Kind::Supplied(pb::Supplied {}),
            Err(SupplyError::Refused(Refusal::Outbid(by))) => Kind::Outbid(wire::ballot(by)),
            Err(SupplyError::Refused(Refusal::Superseded(by))) => {
                Kind::Superseded(wire::superseded(&by))
            }
            Err(SupplyError::Refused(refusal)) => return Err(refusal_status(&refusal)),
            Err(SupplyError::Store(error)) => return Err(error.into()),
        };
        Ok(Response::new(pb::SupplyResponse { kind: Some(kind) }))
    }

    async fn hand_in(
        &self,
        request: Request<pb::HandInRequest>,
    ) -> Result<Response<pb::HandInResponse>, Status> {
        let mut records = wire::parse_records(request.into_inner().records)?;
        for record in &mut records {
            // Epochs of separately founded rings cannot be compared. Times can, except those of a
            // clock that was ahead.
            let version = record.stamp.version;
            let wall_ms = version.wall_ms.min(unix_ms());
            record.stamp = Stamp::of(Version { epoch: 0, wall_ms, ..version });
        }
        self.values.absorb(records, None).await?;
        Ok(Response::new(pb::HandInResponse {}))
    }

    async fn summarize(
        &self,
        request: Request<pb::SummarizeRequest>,
    ) -> Result<Response<pb::SummarizeResponse>, Status> {
        let ranges = request.into_inner().ranges;
        let got = ranges.len();
        if got > MAX_RANGES {
            return Err(WireError::TooMany { what: "ranges", got, max: MAX_RANGES }.into());
        }
        let digest = |range: KeyRange| self.local.store.digest(range).map(wire::digest);
        let parse = |range| Ok(digest(wire::parse_range(Some(range))?)?);
        let digests = ranges.into_iter().map(parse).collect::<Result<_, Status>>()?;
        Ok(Response::new(pb::SummarizeResponse { digests }))
    }

    async fn list_versions(
        &self,
        request: Request<pb::ListVersionsRequest>,
    ) -> Result<Response<pb::ListVersionsResponse>, Status> {
        let request = request.into_inner();
        let range = wire::parse_range(request.range)?;
        let after = Some(request.after_key).filter(|key| !key.is_empty());
        let after = after.map(Key::try_from).transpose().map_err(wire::field)?;
        let page = self.local.store.stamps(range, after.as_ref(), MAX_VERSIONS)?;
        let more = page.len() == MAX_VERSIONS;
        let versions = page.into_iter().map(|(key, stamp)| pb::KeyVersion {
            key: key.as_bytes().clone(),
            version: stamp.version.to_string(),
            epoch: wire::epoch(stamp),
        });
        Ok(Response::new(pb::ListVersionsResponse { versions: versions.collect(), more }))
    }

    async fn read_records(
        &self,
        request: Request<pb::ReadRecordsRequest>,
    ) -> Result<Response<pb::ReadRecordsResponse>, Status> {
        let keys = request.into_inner().keys;
        let got = keys.len();
        if got > MAX_KEYS {
            return Err(WireError::TooMany { what: "keys", got, max: MAX_KEYS }.into());
        }
        let mut records = Vec::new();
        let mut bytes = 0;
        for key in keys {
            let key = Key::try_from(key).map_err(wire::field)?;
            let Some(record) = self.local.store.get(&key)? else { continue };
            bytes += record.size();
            if bytes > MAX_RECORD_BYTES && !records.is_empty() {
                break;
            }
            records.push(wire::record(&record));
        }
        Ok(Response::new(pb::ReadRecordsResponse { records }))
    }
}

/// Records whose keys lie in a range.
fn records_within(range: KeyRange, records: Vec<pb::Record>) -> Result<Vec<Record>, Status> {
    let records = wire::parse_records(records)?;
    if records.iter().all(|record| range.contains(record.key.position())) {
        Ok(records)
    } else {
        Err(Status::invalid_argument("a key does not lie in the range"))
    }
}

/// A refusal that the answer cannot express: the caller takes this node for another.
fn refusal_status(refusal: &impl Error) -> Status {
    Status::failed_precondition(refusal.to_string())
}

fn duration(duration: Duration) -> prost_types::Duration {
    duration.try_into().unwrap_or_default()
}
