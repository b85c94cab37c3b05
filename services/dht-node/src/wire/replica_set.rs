//! Replica sets, and the ballots and proposals by which they are chosen.

use shoal_core::ring::{Ballot, KeyRange, Lineage, Proposal, ReplicaSet, Superseding};
use shoal_proto::dht::v1 as pb;
use uuid::Uuid;

use super::{
    Provenance, WireError, contact,
    error::{at_most, credible},
    field, parse_contact, parse_range, range,
};

/// Members of a set.
const MAX_MEMBERS: usize = 7;
/// Sets in one message.
const MAX_SETS: usize = 1024;

pub(crate) fn range_replica_set(of: KeyRange, set: &ReplicaSet) -> pb::RangeReplicaSet {
    pb::RangeReplicaSet { range: Some(range(of)), replica_set: Some(replica_set(set)) }
}

pub(crate) fn parse_range_replica_set(
    set: Option<pb::RangeReplicaSet>,
) -> Result<(KeyRange, ReplicaSet), WireError> {
    let set = set.ok_or(WireError::Missing("the replica set"))?;
    Ok((parse_range(set.range)?, parse_replica_set(set.replica_set)?))
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
        epoch: credible("epoch", set.epoch)?,
        members: members
            .map(|member| parse_contact(Some(member), Provenance::ReplicaSet))
            .collect::<Result<_, _>>()?,
    })
}

pub(crate) fn ballot(ballot: Ballot) -> pb::Ballot {
    pb::Ballot { round: ballot.round, node_id: ballot.node.to_string() }
}

pub(crate) fn parse_ballot(ballot: Option<pb::Ballot>) -> Result<Ballot, WireError> {
    let ballot = ballot.ok_or(WireError::Missing("the ballot"))?;
    let round = credible("round", ballot.round)?;
    Ok(Ballot { round, node: ballot.node_id.parse().map_err(field)? })
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
    pb::Superseded { by: by.iter().map(|(range, set)| range_replica_set(*range, set)).collect() }
}

pub(crate) fn parse_superseded(superseded: pb::Superseded) -> Result<Superseding, WireError> {
    let by = at_most("sets", superseded.by, MAX_SETS)?.into_iter();
    by.map(|set| parse_range_replica_set(Some(set))).collect()
}

pub(crate) fn parse_promise(promise: pb::Promise) -> Result<Vec<(KeyRange, Proposal)>, WireError> {
    let accepted = at_most("proposals", promise.accepted, MAX_SETS)?.into_iter();
    accepted
        .map(|accepted| Ok((parse_range(accepted.range)?, parse_proposal(accepted.proposal)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shoal_core::ring::{Contact, NodeId, Position};

    use super::*;
    use crate::counters::is_credible;

    fn node() -> Contact {
        let id = NodeId::new(Uuid::from_u128(1));
        let position = Position::of_node(id, 0);
        Contact { position, id, address: "10.0.0.1:7071".parse().expect("an address") }
    }

    fn set(epoch: u64) -> ReplicaSet {
        ReplicaSet { lineage: Lineage(Uuid::nil()), epoch, members: vec![node()] }
    }

    fn proposal_of(round: u64, epoch: u64) -> Proposal {
        Proposal { ballot: Ballot { round, node: node().id }, next: set(epoch) }
    }

    proptest! {
        #[test]
        fn no_epoch_and_no_round_of_a_message_is_absurd(epoch: u64, round: u64) {
            let whole = KeyRange::whole(node().position);
            let parsed = parse_range_replica_set(Some(range_replica_set(whole, &set(epoch))));
            prop_assert_eq!(parsed.is_ok(), is_credible(epoch));
            let parsed = parse_proposal(Some(proposal(&proposal_of(round, epoch))));
            prop_assert_eq!(parsed.is_ok(), is_credible(epoch) && is_credible(round));
        }
    }
}
