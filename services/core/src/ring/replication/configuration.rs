//! The configuration of a position, the ballots and proposals that change it, and why a node
//! refuses them.

use super::ReplicaSet;
use crate::ring::{KeyRange, NodeId, RangeMap};

/// An attempt to have a next set chosen. Attempts of different nodes are never equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// The higher round takes precedence.
    pub round: u64,
    /// The proposer.
    pub node: NodeId,
}

/// A next set, under a ballot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proposal {
    /// The attempt.
    pub ballot: Ballot,
    /// The proposed set.
    pub next: ReplicaSet,
}

/// What a node knows about a position: the present set, and the state of the choice of the next
/// one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Configuration {
    /// The latest set that is known to have been chosen.
    pub present: ReplicaSet,
    /// No lower ballot is accepted any more, and no write under the present set.
    pub promised: Option<Ballot>,
    /// The proposal that was accepted last.
    pub accepted: Option<Proposal>,
    /// The former present set, of a younger lineage, if this node was a member of it. Its records
    /// still have to be merged.
    pub displaced: Option<ReplicaSet>,
    /// Records were transferred to this node for the next set. They stay until a later set is
    /// known.
    pub supplied: bool,
}

impl Configuration {
    /// What `node` knows once `present` was chosen, if it knew `before`.
    pub(super) fn after(before: Option<Self>, present: ReplicaSet, node: NodeId) -> Self {
        let displaced = before.and_then(|Self { present: before, displaced, .. }| {
            let is_displaced = before.lineage != present.lineage && before.holds(node);
            displaced.or_else(|| is_displaced.then_some(before))
        });
        Self { present, promised: None, accepted: None, displaced, supplied: false }
    }

    /// The present set takes no more writes on this node.
    pub const fn is_sealed(&self) -> bool {
        self.promised.is_some()
    }
}

/// Newer sets than the given one, each with its range.
pub type Superseding = Vec<(KeyRange, ReplicaSet)>;

/// Why a node does not agree, or takes no records.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// This ballot or a higher one was promised.
    #[error("this ballot or a higher one was promised")]
    Outbid(Ballot),
    /// The given set is no longer the present one.
    #[error("there is a later replica set")]
    Superseded(Superseding),
    /// The given set has other members: the node that the call was meant for had this address
    /// before.
    #[error("this node is not a member of the replica set")]
    NoMember,
    /// The records that this node kept in another ring are not merged yet.
    #[error("this node's records of another ring are not merged yet")]
    Unmerged,
    /// The proposed set does not follow the given one, and would be learnt by no node.
    #[error("the proposal does not follow the present replica set")]
    NoNext,
    /// See [`super::Configurations::MAX_RANGES`].
    #[error("this node tracks too many ranges to add another one")]
    TooManyRanges,
}

/// Why a write is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum WriteRefusal {
    /// The next set is being chosen.
    #[error("the next replica set is being chosen")]
    Sealed,
    /// The given set is no longer the present one.
    #[error("there is a later replica set")]
    Superseded(Superseding),
    /// The given set has other members: the node that the call was meant for had this address
    /// before.
    #[error("this node is not a member of the replica set")]
    NoMember,
    /// See [`super::Configurations::MAX_RANGES`].
    #[error("this node tracks too many ranges to add another one")]
    TooManyRanges,
}

/// What to propose to a majority that has promised: where one of its members had accepted a set,
/// that of the highest ballot, because it may have been chosen; elsewhere `wanted`.
pub fn proposals(
    range: KeyRange,
    accepted: impl IntoIterator<Item = (KeyRange, Proposal)>,
    wanted: &ReplicaSet,
) -> Vec<(KeyRange, ReplicaSet)> {
    let mut bound: RangeMap<Proposal> = RangeMap::default();
    for (part, proposal) in accepted {
        bound.update(part, |known| {
            if known.as_ref().is_none_or(|known| known.ballot < proposal.ballot) {
                *known = Some(proposal.clone());
            }
        });
    }
    let parts = bound.over(range).into_iter();
    parts.map(|(part, known)| (part, known.map_or(wanted, |known| &known.next).clone())).collect()
}
