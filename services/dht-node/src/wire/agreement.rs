//! Replica sets, and the agreement on them.

use shoal_core::ring::{
    Agreement, Ballot, Configurations, KeyRange, Lineage, NodeId, Proposal, ReplicaSet, Superseding,
};
use shoal_proto::dht::v1 as pb;
use tracing::warn;
use uuid::Uuid;

use super::{
    Told, WireError, at_most, contact, count::mend, credible, field, parse_contact, parse_range,
    range,
};

/// Members of a set.
const MAX_MEMBERS: usize = 7;
/// Sets in one message.
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
        epoch: credible("epoch", set.epoch)?,
        members: members
            .map(|member| parse_contact(Some(member), Told::InAgreement))
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

/// The agreed sets and promises of a node, as stored on disk.
pub(crate) fn configurations(configurations: &Configurations) -> pb::Custody {
    let known = configurations.known().map(|(range, known)| pb::KnownAgreement {
        present: Some(agreement(range, &known.present)),
        promised: known.promised.map(ballot),
        accepted: known.accepted.as_ref().map(proposal),
        displaced: known.displaced.as_ref().map(replica_set),
        supplied: known.supplied,
    });
    pb::Custody { agreements: known.collect() }
}

/// The stored sets and promises. Absurd counts, which earlier versions accepted from anybody, would
/// disable a range forever: no next set could follow them.
pub(crate) fn parse_configurations(
    stored: pb::Custody,
    node: NodeId,
) -> Result<Configurations, WireError> {
    let mut configurations = Configurations::new(node);
    for mut known in stored.agreements {
        if mend_counts(&mut known) {
            let range = known.present.as_ref().and_then(|present| present.range.clone());
            warn!(?range, "absurd epochs or rounds on the disk were replaced");
        }
        let (range, present) = parse_agreement(known.present)?;
        let agreement = Agreement {
            present,
            promised: known.promised.map(|ballot| parse_ballot(Some(ballot))).transpose()?,
            accepted: known.accepted.map(|proposal| parse_proposal(Some(proposal))).transpose()?,
            displaced: known.displaced.map(|set| parse_replica_set(Some(set))).transpose()?,
            supplied: known.supplied,
        };
        configurations.restore(range, &agreement);
    }
    Ok(configurations)
}

/// Replaces absurd stored counts. A promise stays one, above all valid ballots.
fn mend_counts(known: &mut pb::KnownAgreement) -> bool {
    let present = known.present.as_mut().and_then(|present| present.replica_set.as_mut());
    let accepted = known.accepted.as_mut();
    let (ballot, next) =
        accepted.map_or((None, None), |it| (it.ballot.as_mut(), it.replica_set.as_mut()));
    let epochs = present.into_iter().chain(next).chain(&mut known.displaced);
    let rounds = ballot.into_iter().chain(&mut known.promised);
    let counts = epochs.map(|set| &mut set.epoch).chain(rounds.map(|ballot| &mut ballot.round));
    counts.fold(false, |any, count| mend(count) | any)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shoal_core::ring::{Contact, Position};

    use super::*;
    use crate::wire::is_credible;

    fn node() -> Contact {
        let id = NodeId::new(Uuid::from_u128(1));
        let position = Position::of_node(id, 0);
        Contact { position, id, address: "10.0.0.1:7071".into() }
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
            let told = parse_agreement(Some(agreement(whole, &set(epoch))));
            prop_assert_eq!(told.is_ok(), is_credible(epoch));
            let told = parse_proposal(Some(proposal(&proposal_of(round, epoch))));
            prop_assert_eq!(told.is_ok(), is_credible(epoch) && is_credible(round));
        }

        /// Whatever an earlier version has stored, there is a next epoch and a next round.
        #[test]
        fn what_is_on_the_disk_disables_no_range(
            epoch: u64,
            promised: u64,
            round: u64,
            next: u64,
            displaced: u64,
        ) {
            let mut configurations = Configurations::new(node().id);
            let kept = Agreement {
                present: set(epoch),
                promised: Some(Ballot { round: promised, node: node().id }),
                accepted: Some(proposal_of(round, next)),
                displaced: Some(set(displaced)),
                supplied: true,
            };
            configurations.restore(KeyRange::whole(node().position), &kept);
            let read = parse_configurations(super::configurations(&configurations), node().id).expect("it is read");
            let known = read.at(node().position).expect("it is known");
            let (ballot, accepted) = (known.promised.expect("a promise"), known.accepted.as_ref());
            let accepted = accepted.expect("a proposal");
            for count in [
                known.present.epoch,
                ballot.round,
                accepted.ballot.round,
                accepted.next.epoch,
                known.displaced.as_ref().expect("a set").epoch,
            ] {
                prop_assert!(is_credible(count + 1));
            }
            if is_credible(epoch) {
                prop_assert_eq!(known.present.epoch, epoch);
            }
        }
    }
}
