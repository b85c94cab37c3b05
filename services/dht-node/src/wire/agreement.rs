//! Replica sets, and how nodes agree on them.

use shoal_core::ring::{
    Agreement, Ballot, Custody, KeyRange, Lineage, NodeId, Proposal, ReplicaSet, Superseding,
};
use shoal_proto::dht::v1 as pb;
use uuid::Uuid;

use super::{Seen, WireError, at_most, contact, field, parse_contact, parse_range, range};

/// Members of a set.
const MAX_MEMBERS: usize = 7;
/// Sets told of in one message.
const MAX_SETS: usize = 1024;

pub(crate) fn agreement(of: KeyRange, set: &ReplicaSet) -> pb::Agreement {
    pb::Agreement { range: Some(range(of)), replica_set: Some(replica_set(set)) }
}

pub(crate) fn parse_agreement(
    agreement: Option<pb::Agreement>,
) -> Result<(KeyRange, ReplicaSet), WireError> {
    let agreement = agreement.ok_or(WireError::Missing("the agreement"))?;
    Ok((parse_range(agreement.range)?, parse_replica_set(agreement.replica_set)?))
}

fn replica_set(set: &ReplicaSet) -> pb::ReplicaSet {
    pb::ReplicaSet {
        lineage: set.lineage.0.to_string(),
        epoch: set.epoch,
        members: set.members.iter().map(contact).collect(),
    }
}

fn parse_replica_set(set: Option<pb::ReplicaSet>) -> Result<ReplicaSet, WireError> {
    let set = set.ok_or(WireError::Missing("the replica set"))?;
    if set.members.is_empty() {
        return Err(WireError::Missing("the first member"));
    }
    let members = at_most("members", set.members, MAX_MEMBERS)?.into_iter();
    Ok(ReplicaSet {
        lineage: Lineage(Uuid::try_parse(&set.lineage).map_err(field)?),
        epoch: set.epoch,
        members: members
            .map(|member| parse_contact(Some(member), Seen::Elsewhere))
            .collect::<Result<_, _>>()?,
    })
}

pub(crate) fn ballot(ballot: Ballot) -> pb::Ballot {
    pb::Ballot { round: ballot.round, node_id: ballot.node.to_string() }
}

pub(crate) fn parse_ballot(ballot: Option<pb::Ballot>) -> Result<Ballot, WireError> {
    let ballot = ballot.ok_or(WireError::Missing("the ballot"))?;
    Ok(Ballot { round: ballot.round, node: ballot.node_id.parse().map_err(field)? })
}

pub(crate) fn proposal(proposal: &Proposal) -> pb::Proposal {
    pb::Proposal {
        ballot: Some(ballot(proposal.ballot)),
        replica_set: Some(replica_set(&proposal.next)),
    }
}

pub(crate) fn parse_proposal(proposal: Option<pb::Proposal>) -> Result<Proposal, WireError> {
    let proposal = proposal.ok_or(WireError::Missing("the proposal"))?;
    Ok(Proposal {
        ballot: parse_ballot(proposal.ballot)?,
        next: parse_replica_set(proposal.replica_set)?,
    })
}

pub(crate) fn superseded(by: &Superseding) -> pb::Superseded {
    pb::Superseded { by: by.iter().map(|(range, set)| agreement(*range, set)).collect() }
}

pub(crate) fn parse_superseded(superseded: pb::Superseded) -> Result<Superseding, WireError> {
    let by = at_most("sets", superseded.by, MAX_SETS)?.into_iter();
    by.map(|agreement| parse_agreement(Some(agreement))).collect()
}

pub(crate) fn parse_promise(promise: pb::Promise) -> Result<Vec<(KeyRange, Proposal)>, WireError> {
    let accepted = at_most("proposals", promise.accepted, MAX_SETS)?.into_iter();
    accepted
        .map(|accepted| Ok((parse_range(accepted.range)?, parse_proposal(accepted.proposal)?)))
        .collect()
}

/// What a node remembers of agreements, as it is kept on disk.
pub(crate) fn custody(custody: &Custody) -> pb::Custody {
    let known = custody.known().map(|(range, known)| pb::KnownAgreement {
        present: Some(agreement(range, &known.present)),
        promised: known.promised.map(ballot),
        accepted: known.accepted.as_ref().map(proposal),
        displaced: known.displaced.as_ref().map(replica_set),
        supplied: known.supplied,
    });
    pb::Custody { agreements: known.collect() }
}

pub(crate) fn parse_custody(stored: pb::Custody, node: NodeId) -> Result<Custody, WireError> {
    let mut custody = Custody::new(node);
    for known in stored.agreements {
        let (range, present) = parse_agreement(known.present)?;
        let agreement = Agreement {
            present,
            promised: known.promised.map(|ballot| parse_ballot(Some(ballot))).transpose()?,
            accepted: known.accepted.map(|proposal| parse_proposal(Some(proposal))).transpose()?,
            displaced: known.displaced.map(|set| parse_replica_set(Some(set))).transpose()?,
            supplied: known.supplied,
        };
        custody.restore(range, &agreement);
    }
    Ok(custody)
}
