//! The replica sets of ranges, present and next: the state of a node as a Paxos acceptor and
//! learner.
//!
//! Each position of the circle has one [`ReplicaSet`] at a time. The next one is chosen by Paxos
//! (Lamport, "Paxos Made Simple", 2001) among the members of the present one, as in "Vertical
//! Paxos" (Lamport, Malkhi and Zhou, 2009). A member that has promised a ballot takes no more
//! writes under the present set; so a proposer that holds the promises of a majority and has read
//! from it has seen every acknowledged write, and there are no further ones before the next set is
//! chosen.
//!
//! Positions are independent of each other. Grouping them in ranges saves memory and messages.
//!
//! A chain of sets is never lost: every member of a set, or a majority of its members, knows the
//! next one. So a node with any old set finds the present one.

use super::{Ballot, Configuration, Proposal, Refusal, ReplicaSet, Superseding, WriteRefusal};
use crate::ring::{KeyRange, NodeId, Position, RangeMap};

/// A node's configurations. A change must be on disk before other nodes hear of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Configurations {
    node: NodeId,
    ranges: RangeMap<Configuration>,
}

impl Configurations {
    /// Ranges with different configurations. A node knows a few around its own range, and a
    /// stranger can name as many as there are positions. A message that would make more of them is
    /// treated as lost: known state cannot be dropped instead, or a set could be chosen after an
    /// old one.
    pub const MAX_RANGES: usize = 1_024;

    /// The configurations of a node that knows no set yet.
    pub fn new(node: NodeId) -> Self {
        Self { node, ranges: RangeMap::default() }
    }

    /// What is known about a position.
    pub fn at(&self, position: Position) -> Option<&Configuration> {
        self.ranges.at(position)
    }

    /// What is known about a position, with the range around it that shares it.
    pub fn around(&self, position: Position) -> Option<(KeyRange, &Configuration)> {
        self.ranges.around(position)
    }

    /// What is known about a range, clockwise.
    pub fn over(&self, range: KeyRange) -> Vec<(KeyRange, Option<&Configuration>)> {
        self.ranges.over(range)
    }

    /// Everything that is known, in the order of positions.
    pub fn known(&self) -> impl Iterator<Item = (KeyRange, &Configuration)> {
        self.ranges.known()
    }

    /// Restores a configuration from the disk.
    pub fn restore(&mut self, range: KeyRange, configuration: &Configuration) {
        self.ranges.update(range, |known| *known = Some(configuration.clone()));
    }

    /// Learns a chosen set, wherever it takes precedence over the known one. Returns the known sets
    /// that take precedence over it. If that would make too many ranges, nothing changes.
    pub fn learn(&mut self, range: KeyRange, chosen: &ReplicaSet) -> Superseding {
        let node = self.node;
        let _ = self.change(range, |known| {
            if known.as_ref().is_none_or(|known| chosen.supersedes(&known.present)) {
                *known = Some(Configuration::after(known.take(), chosen.clone(), node));
            }
        });
        let parts = self.ranges.over(range).into_iter();
        let newer = parts.filter_map(|(part, known)| {
            let present = &known?.present;
            present.supersedes(chosen).then(|| (part, present.clone()))
        });
        newer.collect()
    }

    /// The records of the members of a set of a younger lineage were merged into `present`, or into
    /// a later set.
    pub fn merged(&mut self, range: KeyRange, present: &ReplicaSet) {
        self.ranges.update(range, |known| {
            if let Some(known) = known
                && known.present.lineage == present.lineage
            {
                known.displaced = None;
            }
        });
    }

    /// Promises to accept no lower ballot for the set after `present`. Returns what was accepted
    /// before.
    ///
    /// A ballot is promised once. So a proposer that lost its state and uses an old ballot again
    /// never has two sets accepted under one ballot.
    pub fn prepare(
        &mut self,
        range: KeyRange,
        present: &ReplicaSet,
        ballot: Ballot,
    ) -> Result<Vec<(KeyRange, Proposal)>, Refusal> {
        let promised = self.admit_as_member(range, present)?;
        if let Some(promised) = promised.filter(|promised| *promised >= ballot) {
            return Err(Refusal::Outbid(promised));
        }
        self.change_known(range, |known| known.promised = Some(ballot))?;
        let parts = self.ranges.over(range).into_iter();
        Ok(parts.filter_map(|(part, known)| Some((part, known?.accepted.clone()?))).collect())
    }

    /// Accepts a set as the one after `present`, unless a higher ballot was promised.
    pub fn accept(
        &mut self,
        range: KeyRange,
        present: &ReplicaSet,
        proposal: &Proposal,
    ) -> Result<(), Refusal> {
        if !proposal.next.comes_after(present) {
            return Err(Refusal::NoNext);
        }
        let promised = self.admit_as_member(range, present)?;
        if let Some(promised) = promised.filter(|promised| *promised > proposal.ballot) {
            return Err(Refusal::Outbid(promised));
        }
        self.change_known(range, |known| {
            known.promised = Some(proposal.ballot);
            known.accepted = Some(proposal.clone());
        })
    }

    /// Allows records to be copied to this node in advance, where it keeps no records as a member.
    /// Returns those ranges.
    pub fn copy(
        &mut self,
        range: KeyRange,
        present: &ReplicaSet,
    ) -> Result<Vec<KeyRange>, Refusal> {
        self.admit(range, present)?;
        let known = self.over(range).into_iter().filter_map(|(_, known)| known);
        if known.into_iter().any(|known| known.displaced.is_some()) {
            return Err(Refusal::Unmerged);
        }
        Ok(self.discardable(range))
    }

    /// Allows records to be transferred for the set after `present`, by the proposer that holds the
    /// promises of a majority. Returns the ranges whose present records must be discarded first:
    /// this node kept them under an earlier set, and others may have removed them since. The ballot
    /// is promised: otherwise records that a lower one read and sent late would be known to this
    /// node alone.
    pub fn supply(
        &mut self,
        range: KeyRange,
        present: &ReplicaSet,
        ballot: Ballot,
    ) -> Result<Vec<KeyRange>, Refusal> {
        let promised = self.admit(range, present)?;
        if let Some(promised) = promised.filter(|promised| *promised > ballot) {
            return Err(Refusal::Outbid(promised));
        }
        let discardable = self.copy(range, present)?;
        self.change_known(range, |known| {
            known.promised = Some(ballot);
            known.supplied = true;
        })?;
        Ok(discardable)
    }

    /// The parts of a range whose records this node may discard: it is not a member of the present
    /// set, the records were not transferred for the next one, and they need not be merged.
    pub fn discardable(&self, range: KeyRange) -> Vec<KeyRange> {
        let known = self.over(range).into_iter();
        let discardable =
            known.filter(|(_, known)| known.is_some_and(|known| self.is_discardable(known)));
        discardable.map(|(part, _)| part).collect()
    }

    /// Whether a write of a key in `range` under `set` may be accepted. Learns the set.
    pub fn write(
        &mut self,
        position: Position,
        range: KeyRange,
        set: &ReplicaSet,
    ) -> Result<(), WriteRefusal> {
        if self.at(position).is_none_or(|known| !known.present.is(set)) {
            let newer = self.learn(range, set);
            if !newer.is_empty() {
                return Err(WriteRefusal::Superseded(newer));
            }
        }
        match self.at(position) {
            _ if !set.holds(self.node) => Err(WriteRefusal::NoMember),
            Some(known) if !known.present.is(set) => Err(WriteRefusal::TooManyRanges),
            Some(known) if !known.is_sealed() => Ok(()),
            Some(_) => Err(WriteRefusal::Sealed),
            None => Err(WriteRefusal::TooManyRanges),
        }
    }

    fn is_discardable(&self, known: &Configuration) -> bool {
        !known.supplied && known.displaced.is_none() && !known.present.holds(self.node)
    }

    /// The highest ballot that was promised anywhere in the range.
    fn admit_as_member(
        &mut self,
        range: KeyRange,
        present: &ReplicaSet,
    ) -> Result<Option<Ballot>, Refusal> {
        let promised = self.admit(range, present)?;
        if present.holds(self.node) { Ok(promised) } else { Err(Refusal::NoMember) }
    }

    fn admit(&mut self, range: KeyRange, present: &ReplicaSet) -> Result<Option<Ballot>, Refusal> {
        let newer = self.learn(range, present);
        if !newer.is_empty() {
            return Err(Refusal::Superseded(newer));
        }
        let parts = self.ranges.over(range);
        if !parts.iter().all(|(_, known)| known.is_some_and(|known| known.present.is(present))) {
            return Err(Refusal::TooManyRanges);
        }
        Ok(parts.into_iter().filter_map(|(_, known)| known?.promised).max())
    }

    /// Changes the state of a range in which every position is known.
    fn change_known(
        &mut self,
        range: KeyRange,
        mut change: impl FnMut(&mut Configuration),
    ) -> Result<(), Refusal> {
        self.change(range, |known| change(known.as_mut().expect("it was just learnt")))
    }

    /// Changes the state of a range, unless there would be too many ranges. If there are too many
    /// already, their number must not grow.
    fn change(
        &mut self,
        range: KeyRange,
        change: impl FnMut(&mut Option<Configuration>),
    ) -> Result<(), Refusal> {
        /// A range, which may wrap around position 0, is cut at both ends and there.
        const CUTS: usize = 3;
        let before = self.ranges.count();
        if before + CUTS <= Self::MAX_RANGES {
            self.ranges.update(range, change);
            return Ok(());
        }
        let mut changed = self.ranges.clone();
        changed.update(range, change);
        if changed.count() > before.max(Self::MAX_RANGES) {
            return Err(Refusal::TooManyRanges);
        }
        self.ranges = changed;
        Ok(())
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests;
