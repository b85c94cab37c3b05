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

use uuid::Uuid;

use super::{Contact, Intervals, KeyRange, NodeId, Position};

/// The founding of a ring: a UUID of version 7, which begins with the time.
///
/// Two rings that were founded separately may meet. The older lineage then takes precedence over
/// the younger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lineage(pub Uuid);

/// The nodes that agreed to keep a range.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReplicaSet {
    /// The founding that it descends from.
    pub lineage: Lineage,
    /// Grows from one set to the next. A lineage and an epoch identify one set of a position.
    pub epoch: u64,
    /// At least one. The first is the primary, which alone serves reads and writes.
    pub members: Vec<Contact>,
}

impl ReplicaSet {
    /// The first set of a ring.
    pub fn founding(lineage: Lineage, founder: Contact) -> Self {
        Self { lineage, epoch: 1, members: vec![founder] }
    }

    /// The number of members that make a majority: any two majorities share a member.
    pub const fn majority(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// The member that serves reads and writes.
    pub fn primary(&self) -> &Contact {
        self.members.first().expect("a replica set has a member")
    }

    /// The node is a member.
    pub fn holds(&self, node: NodeId) -> bool {
        self.members.iter().any(|member| member.id == node)
    }

    /// Takes precedence over `other`, for a position of both.
    pub fn supersedes(&self, other: &Self) -> bool {
        match self.lineage.cmp(&other.lineage) {
            std::cmp::Ordering::Equal => self.epoch > other.epoch,
            older => older.is_lt(),
        }
    }

    /// May be chosen as the set after `other`: of the same founding, with a higher epoch.
    pub fn comes_after(&self, other: &Self) -> bool {
        self.lineage == other.lineage && self.epoch > other.epoch
    }

    /// Is the same set as `other`, for a position of both.
    fn is(&self, other: &Self) -> bool {
        (self.lineage, self.epoch) == (other.lineage, other.epoch)
    }
}

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
pub struct Agreement {
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

impl Agreement {
    /// What `node` knows once `present` was chosen, if it knew `before`.
    fn after(before: Option<Self>, present: ReplicaSet, node: NodeId) -> Self {
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
    Unsettled,
    /// The proposed set does not follow the given one, and would be learnt by no node.
    #[error("the proposal does not follow the present replica set")]
    NoNext,
    /// See [`Configurations::MAX_PIECES`].
    #[error("this node tracks too many ranges to add another one")]
    TooManyPieces,
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
    /// See [`Configurations::MAX_PIECES`].
    #[error("this node tracks too many ranges to add another one")]
    TooManyPieces,
}

/// A node's configurations. A change must be on disk before other nodes hear of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Configurations {
    node: NodeId,
    agreements: Intervals<Agreement>,
}

impl Configurations {
    /// Pieces of the circle with different state. A node knows a few around its own range, and a
    /// stranger can name as many as there are positions. A message that would make more of them is
    /// treated as lost: known state cannot be dropped instead, or a set could be chosen after an
    /// old one.
    pub const MAX_PIECES: usize = 1_024;

    /// The configurations of a node that knows no set yet.
    pub fn new(node: NodeId) -> Self {
        Self { node, agreements: Intervals::default() }
    }

    /// What is known about a position.
    pub fn at(&self, position: Position) -> Option<&Agreement> {
        self.agreements.at(position)
    }

    /// What is known about a position, with the range around it that shares it.
    pub fn piece(&self, position: Position) -> Option<(KeyRange, &Agreement)> {
        self.agreements.around(position)
    }

    /// What is known about a range, clockwise.
    pub fn over(&self, range: KeyRange) -> Vec<(KeyRange, Option<&Agreement>)> {
        self.agreements.pieces(range)
    }

    /// Everything that is known, in the order of positions.
    pub fn known(&self) -> impl Iterator<Item = (KeyRange, &Agreement)> {
        self.agreements.known()
    }

    /// Restores an agreement from the disk.
    pub fn restore(&mut self, range: KeyRange, agreement: &Agreement) {
        self.agreements.update(range, |known| *known = Some(agreement.clone()));
    }

    /// Learns a chosen set, wherever it takes precedence over the known one. Returns the known sets
    /// that take precedence over it. If that would make too many pieces, nothing changes.
    pub fn learn(&mut self, range: KeyRange, chosen: &ReplicaSet) -> Superseding {
        let node = self.node;
        let _ = self.change(range, |known| {
            if known.as_ref().is_none_or(|known| chosen.supersedes(&known.present)) {
                *known = Some(Agreement::after(known.take(), chosen.clone(), node));
            }
        });
        let pieces = self.agreements.pieces(range).into_iter();
        let newer = pieces.filter_map(|(piece, known)| {
            let present = &known?.present;
            present.supersedes(chosen).then(|| (piece, present.clone()))
        });
        newer.collect()
    }

    /// The records of the members of a set of a younger lineage were merged into `present`, or into
    /// a later set.
    pub fn settle(&mut self, range: KeyRange, present: &ReplicaSet) {
        self.agreements.update(range, |known| {
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
        let pieces = self.agreements.pieces(range).into_iter();
        Ok(pieces.filter_map(|(piece, known)| Some((piece, known?.accepted.clone()?))).collect())
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
            return Err(Refusal::Unsettled);
        }
        Ok(self.remains(range))
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
        let remains = self.copy(range, present)?;
        self.change_known(range, |known| {
            known.promised = Some(ballot);
            known.supplied = true;
        })?;
        Ok(remains)
    }

    /// The parts of a range whose records this node may discard: it is no member of the present
    /// set, the records were not transferred for the next one, and they need not be merged.
    pub fn remains(&self, range: KeyRange) -> Vec<KeyRange> {
        let known = self.over(range).into_iter();
        let remains = known.filter(|(_, known)| known.is_some_and(|known| self.are_remains(known)));
        remains.map(|(piece, _)| piece).collect()
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
            Some(known) if !known.present.is(set) => Err(WriteRefusal::TooManyPieces),
            Some(known) if !known.is_sealed() => Ok(()),
            Some(_) => Err(WriteRefusal::Sealed),
            None => Err(WriteRefusal::TooManyPieces),
        }
    }

    fn are_remains(&self, known: &Agreement) -> bool {
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
        let pieces = self.agreements.pieces(range);
        if !pieces.iter().all(|(_, known)| known.is_some_and(|known| known.present.is(present))) {
            return Err(Refusal::TooManyPieces);
        }
        Ok(pieces.into_iter().filter_map(|(_, known)| known?.promised).max())
    }

    /// Changes the state of a range in which every position is known.
    fn change_known(
        &mut self,
        range: KeyRange,
        mut change: impl FnMut(&mut Agreement),
    ) -> Result<(), Refusal> {
        self.change(range, |known| change(known.as_mut().expect("it was just learnt")))
    }

    /// Changes the state of a range, unless there would be too many pieces. If there are too many
    /// already, their number must not grow.
    fn change(
        &mut self,
        range: KeyRange,
        change: impl FnMut(&mut Option<Agreement>),
    ) -> Result<(), Refusal> {
        /// A range, which may wrap around position 0, is cut at both ends and there.
        const CUTS: usize = 3;
        let before = self.agreements.count();
        if before + CUTS <= Self::MAX_PIECES {
            self.agreements.update(range, change);
            return Ok(());
        }
        let mut changed = self.agreements.clone();
        changed.update(range, change);
        if changed.count() > before.max(Self::MAX_PIECES) {
            return Err(Refusal::TooManyPieces);
        }
        self.agreements = changed;
        Ok(())
    }
}

/// What to propose to a majority that has promised: where one of its members had accepted a set,
/// that of the highest ballot, because it may have been chosen; elsewhere `wanted`.
pub fn proposals(
    range: KeyRange,
    accepted: impl IntoIterator<Item = (KeyRange, Proposal)>,
    wanted: &ReplicaSet,
) -> Vec<(KeyRange, ReplicaSet)> {
    let mut bound: Intervals<Proposal> = Intervals::default();
    for (piece, proposal) in accepted {
        bound.update(piece, |known| {
            if known.as_ref().is_none_or(|known| known.ballot < proposal.ballot) {
                *known = Some(proposal.clone());
            }
        });
    }
    let pieces = bound.pieces(range).into_iter();
    pieces
        .map(|(piece, known)| (piece, known.map_or(wanted, |known| &known.next).clone()))
        .collect()
}

/// The members of the set after `present`: the owner and the nodes after it, `replicas` in all;
/// while the ring has too few, also the present members that did not leave in order. So a set
/// shrinks only by orderly departures, and a majority stays a majority of the members that may
/// return.
pub fn next_members(
    present: &ReplicaSet,
    owner: &Contact,
    successors: &[Contact],
    has_left: impl Fn(NodeId) -> bool,
    replicas: usize,
) -> Vec<Contact> {
    let mut members: Vec<Contact> = Vec::with_capacity(replicas);
    let staying = present.members.iter().filter(|member| !has_left(member.id));
    for node in std::iter::once(owner).chain(successors).chain(staying) {
        if members.len() < replicas && members.iter().all(|member| member.id != node.id) {
            members.push(node.clone());
        }
    }
    members
}

#[cfg(test)]
mod takeover;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::Bits;

    fn four(value: u128) -> Position {
        Bits::new(4).expect("four bits are a ring").position(value)
    }

    fn range(after: u128, last: u128) -> KeyRange {
        KeyRange { after: four(after), last: four(last) }
    }

    fn id(number: u128) -> NodeId {
        NodeId::new(Uuid::from_u128(number))
    }

    fn node(number: u128) -> Contact {
        Contact { position: four(number), id: id(number), address: "".into() }
    }

    fn set(epoch: u64, members: &[u128]) -> ReplicaSet {
        let members = members.iter().map(|member| node(*member)).collect();
        ReplicaSet { lineage: Lineage(Uuid::nil()), epoch, members }
    }

    fn ballot(round: u64, number: u128) -> Ballot {
        Ballot { round, node: id(number) }
    }

    fn knowing(range: KeyRange, set: &ReplicaSet) -> Configurations {
        let mut configurations = Configurations::new(id(5));
        assert_eq!(configurations.learn(range, set), []);
        configurations
    }

    #[test]
    fn a_later_set_goes_before_an_earlier_one_and_says_so() {
        let (first, second) = (set(1, &[5, 8, 10]), set(2, &[4, 5, 8]));
        let mut configurations = knowing(range(1, 5), &first);
        assert_eq!(configurations.learn(range(1, 4), &second), []);
        assert_eq!(configurations.learn(range(1, 5), &first), [(range(1, 4), second.clone())]);
        assert_eq!(configurations.at(four(4)).map(|known| &known.present), Some(&second));
        assert_eq!(configurations.at(four(5)).map(|known| &known.present), Some(&first));
    }

    #[test]
    fn the_older_lineage_goes_before_the_younger_one_whatever_the_epochs() {
        let young = ReplicaSet { lineage: Lineage(Uuid::max()), ..set(9, &[1, 5]) };
        let mut configurations = knowing(range(0, 0), &young);
        assert_eq!(configurations.learn(range(0, 0), &set(1, &[2])), []);
        assert_eq!(configurations.learn(range(0, 0), &young), [(range(0, 0), set(1, &[2]))]);
        let displaced =
            |configurations: &Configurations| configurations.at(four(3))?.displaced.clone();
        assert_eq!(displaced(&configurations), Some(young));
    }

    #[test]
    fn what_was_kept_in_a_younger_lineage_is_no_remains_until_it_is_handed_in() {
        let founded = |founding, members: &[u128]| ReplicaSet {
            lineage: Lineage(Uuid::from_u128(founding)),
            ..set(1, members)
        };
        let (oldest, middle, youngest) = (founded(1, &[1]), founded(2, &[2]), founded(3, &[5]));
        let mut configurations = knowing(range(0, 0), &youngest);
        configurations.learn(range(0, 0), &middle);
        configurations.learn(range(0, 0), &oldest);
        let ballot = ballot(1, 1);
        assert_eq!(configurations.remains(range(0, 0)), []);
        assert_eq!(configurations.supply(range(1, 5), &oldest, ballot), Err(Refusal::Unsettled));
        configurations.settle(range(1, 5), &oldest);
        assert_eq!(configurations.remains(range(0, 0)), [range(1, 5)]);
        assert_eq!(configurations.supply(range(1, 5), &oldest, ballot), Ok(vec![range(1, 5)]));
        assert_eq!(configurations.remains(range(0, 0)), [], "what was handed in is kept");
        let late = Ballot { round: 0, ..ballot };
        assert_eq!(configurations.supply(range(1, 5), &oldest, late), Err(Refusal::Outbid(ballot)));
        configurations.learn(range(1, 5), &ReplicaSet { epoch: 2, ..oldest });
        assert_eq!(configurations.remains(range(0, 0)), [range(1, 5)], "somebody else was chosen");
    }

    #[test]
    fn who_promised_takes_no_more_writes_until_the_next_set_is_known() {
        let (first, second) = (set(1, &[5, 8, 10]), set(2, &[4, 5, 8]));
        let mut configurations = knowing(range(1, 5), &first);
        let whole = range(1, 5);
        assert_eq!(configurations.write(four(3), whole, &first), Ok(()));
        assert_eq!(configurations.prepare(range(1, 4), &first, ballot(1, 4)), Ok(vec![]));
        assert_eq!(configurations.write(four(3), whole, &first), Err(WriteRefusal::Sealed));
        assert_eq!(configurations.write(four(5), whole, &first), Ok(()), "the rest is not sealed");
        assert_eq!(
            configurations.write(four(3), range(1, 4), &second),
            Ok(()),
            "a write tells of a set"
        );
        let newer = vec![(range(1, 4), second)];
        assert_eq!(
            configurations.write(four(3), whole, &first),
            Err(WriteRefusal::Superseded(newer))
        );
    }

    #[test]
    fn a_lower_ballot_is_refused_after_a_higher_one() {
        let first = set(1, &[5, 8, 10]);
        let mut configurations = knowing(range(1, 5), &first);
        assert_eq!(configurations.prepare(range(3, 5), &first, ballot(2, 8)), Ok(vec![]));
        let outbid = Err(Refusal::Outbid(ballot(2, 8)));
        assert_eq!(configurations.prepare(range(1, 5), &first, ballot(1, 4)), outbid);
        let low = Proposal { ballot: ballot(1, 4), next: set(2, &[4, 5, 8]) };
        assert!(configurations.accept(range(1, 5), &first, &low).is_err());
        assert_eq!(configurations.at(four(2)).and_then(|known| known.promised), None);
    }

    /// Pieces of 2^118 positions each, 1,024 in all.
    fn sliver(number: u128) -> KeyRange {
        let at = |number: u128| Position::from_u128((number << 118).wrapping_sub(1));
        KeyRange { after: at(number), last: at(number + 1) }
    }

    #[test]
    fn more_pieces_than_are_told_apart_are_taken_for_lost_on_their_way() {
        let own = sliver(0);
        let first = set(1, &[5, 8, 10]);
        let mut configurations = knowing(own, &first);
        // Every other one, and each part of a known piece.
        for number in 1..1024 {
            configurations.learn(sliver(number), &set(number as u64 % 2 + 2, &[5, 8, 10]));
        }
        let full = configurations.agreements.count();
        assert!(
            full <= Configurations::MAX_PIECES && full > Configurations::MAX_PIECES - 4,
            "{full}"
        );
        let middle = |range: KeyRange| {
            let half = |at: Position| Position::from_u128(at.to_u128().wrapping_add(1 << 110));
            KeyRange { after: half(range.after), last: half(half(range.after)) }
        };
        for number in 0..1023 {
            let part = middle(sliver(number));
            configurations.learn(part, &set(9, &[5, 8, 10]));
            let known = configurations.at(part.last).expect("it is known").present.clone();
            assert!(
                configurations.prepare(part, &known, ballot(1, 8)).is_err() || known.epoch == 9
            );
            assert!(configurations.supply(part, &known, ballot(1, 8)).is_err() || known.epoch == 9);
            assert!(configurations.agreements.count() <= Configurations::MAX_PIECES);
        }
        assert_eq!(
            configurations.prepare(middle(own), &first, ballot(1, 8)),
            Err(Refusal::TooManyPieces)
        );
        let write = configurations.write(middle(own).last, middle(own), &set(2, &[5, 8, 10]));
        assert_eq!(write, Err(WriteRefusal::TooManyPieces));
        // What makes no more of them continues.
        assert_eq!(configurations.write(own.last, own, &first), Ok(()));
        assert_eq!(configurations.prepare(own, &first, ballot(1, 8)), Ok(vec![]));
        let proposal = Proposal { ballot: ballot(1, 8), next: set(2, &[5, 8]) };
        assert_eq!(configurations.accept(own, &first, &proposal), Ok(()));
        assert_eq!(configurations.learn(own, &set(2, &[5, 8])), []);
        assert_eq!(configurations.write(own.last, own, &set(2, &[5, 8])), Ok(()));
        assert_eq!(configurations.learn(KeyRange::whole(own.last), &set(20, &[5, 8])), []);
        assert_eq!(configurations.agreements.count(), 1, "and one that tells of all leaves one");
    }

    #[test]
    fn what_may_have_been_chosen_is_proposed_again() {
        let (first, wanted) = (set(1, &[5, 8, 10]), set(2, &[4, 5, 8]));
        let (earlier, later) = (set(2, &[8, 10, 12]), set(2, &[10, 12, 15]));
        let mut configurations = knowing(range(1, 5), &first);
        let proposal = Proposal { ballot: ballot(2, 8), next: later.clone() };
        assert_eq!(configurations.accept(range(2, 4), &first, &proposal), Ok(()));
        let accepted =
            configurations.prepare(range(1, 5), &first, ballot(3, 4)).expect("it is higher");
        assert_eq!(accepted, [(range(2, 4), proposal)]);
        let other = Proposal { ballot: ballot(1, 10), next: earlier };
        let accepted = accepted.into_iter().chain([(range(2, 3), other)]);
        assert_eq!(
            proposals(range(1, 5), accepted, &wanted),
            [(range(1, 2), wanted.clone()), (range(2, 4), later), (range(4, 5), wanted)]
        );
    }

    #[test]
    fn a_member_that_missed_the_last_choice_learns_it_when_asked_for_the_next() {
        let (first, second) = (set(1, &[5, 8, 10]), set(2, &[4, 5, 8]));
        let mut configurations = knowing(range(1, 5), &first);
        assert_eq!(configurations.prepare(range(1, 4), &second, ballot(1, 3)), Ok(vec![]));
        let newer = vec![(range(1, 4), second)];
        assert_eq!(
            configurations.prepare(range(1, 5), &first, ballot(9, 8)),
            Err(Refusal::Superseded(newer))
        );
    }

    #[test]
    fn the_next_members_are_the_owner_and_the_nodes_after_it() {
        let present = set(1, &[5, 8, 10]);
        let nobody = |_| false;
        let ids = |members: Vec<Contact>| members.iter().map(|node| node.id).collect::<Vec<_>>();
        let successors = [node(5), node(8), node(10)];
        let members = next_members(&present, &node(4), &successors, nobody, 3);
        assert_eq!(ids(members), [id(4), id(5), id(8)]);
    }

    #[test]
    fn a_set_shrinks_only_by_those_that_left_in_order() {
        let present = set(1, &[5, 8, 10]);
        let ids = |members: Vec<Contact>| members.iter().map(|node| node.id).collect::<Vec<_>>();
        let crashed = next_members(&present, &node(8), &[node(10)], |_| false, 3);
        assert_eq!(ids(crashed), [id(8), id(10), id(5)]);
        let left = next_members(&present, &node(8), &[node(10)], |gone| gone == id(5), 3);
        assert_eq!(ids(left), [id(8), id(10)]);
    }
}
