//! Who keeps a range, and who keeps it next: the memory of a node that is asked to agree.
//!
//! For each position of the circle there is one [`ReplicaSet`] at a time. The next one is chosen by
//! Paxos (Lamport, "Paxos Made Simple", 2001) among the members of the present one, as in "Vertical
//! Paxos" (Lamport, Malkhi and Zhou, 2009). Who has promised a ballot takes no more writes under
//! the present set; so whoever holds the promises of a majority and has read from it has seen every
//! acknowledged write, and there are no others before the next set is chosen.
//!
//! Positions are independent of each other. That they come in ranges saves memory and messages.
//!
//! A chain of sets is never lost: who was a member of a set knows the next one, or a majority of its
//! members does. So anybody with an old set finds the present one.

use uuid::Uuid;

use super::{Contact, Intervals, KeyRange, NodeId, Position};

/// A founding of a ring: a UUID of version 7, which begins with the time.
///
/// Two rings that were founded apart may meet. The older lineage then goes before the younger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lineage(pub Uuid);

/// The nodes that keep a range, as agreed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReplicaSet {
    /// The founding it goes back to.
    pub lineage: Lineage,
    /// Grows from one set to the next. A lineage and an epoch name one set for a position.
    pub epoch: u64,
    /// At least one. The first is the primary: it alone answers and writes.
    pub members: Vec<Contact>,
}

impl ReplicaSet {
    /// The first set of a ring.
    pub fn founding(lineage: Lineage, founder: Contact) -> Self {
        Self { lineage, epoch: 1, members: vec![founder] }
    }

    /// So many members are a majority: any two majorities share one.
    pub const fn majority(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// Who answers and writes.
    pub fn primary(&self) -> &Contact {
        self.members.first().expect("a replica set has a member")
    }

    /// The node is a member.
    pub fn holds(&self, node: NodeId) -> bool {
        self.members.iter().any(|member| member.id == node)
    }

    /// Goes before `other`, for a position of both.
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

    /// Is `other`, for a position of both.
    fn is(&self, other: &Self) -> bool {
        (self.lineage, self.epoch) == (other.lineage, other.epoch)
    }
}

/// An attempt to have a next set chosen. Attempts of different nodes are never equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ballot {
    /// Higher goes before.
    pub round: u64,
    /// Who proposes.
    pub node: NodeId,
}

/// A next set, under a ballot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proposal {
    /// The attempt.
    pub ballot: Ballot,
    /// What is proposed.
    pub next: ReplicaSet,
}

/// What a node knows of a position: the present set, and how far the choice of the next one is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Agreement {
    /// The latest set that is known to have been chosen.
    pub present: ReplicaSet,
    /// No lower ballot is accepted any more, and no write under the present set.
    pub promised: Option<Ballot>,
    /// What was accepted last.
    pub accepted: Option<Proposal>,
    /// The set of a younger lineage that was the present one, if this node was a member of it. What
    /// it kept has still to be handed in.
    pub displaced: Option<ReplicaSet>,
    /// Records were handed in here for the next set. They stay until a later set is known.
    pub supplied: bool,
}

impl Agreement {
    /// What `node` knows once `present` was chosen, and it knew `before`.
    fn after(before: Option<Self>, present: ReplicaSet, node: NodeId) -> Self {
        let displaced = before.and_then(|Self { present: before, displaced, .. }| {
            let is_displaced = before.lineage != present.lineage && before.holds(node);
            displaced.or_else(|| is_displaced.then_some(before))
        });
        Self { present, promised: None, accepted: None, displaced, supplied: false }
    }

    /// The present set takes no more writes here.
    pub const fn is_sealed(&self) -> bool {
        self.promised.is_some()
    }
}

/// Sets that go before the one spoken of, each with the range it keeps.
pub type Superseding = Vec<(KeyRange, ReplicaSet)>;

/// Why a node does not agree, or takes no records.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// This ballot or a higher one was promised.
    #[error("a ballot as high was promised")]
    Outbid(Ballot),
    /// The set spoken of is no longer the present one.
    #[error("there are later replica sets")]
    Superseded(Superseding),
    /// The set spoken of has other members: the node it was meant for had this address before.
    #[error("this node is no member of the replica set")]
    NoMember,
    /// What this node kept in a ring that was founded apart is not handed in yet.
    #[error("what this node kept in another ring is not handed in yet")]
    Unsettled,
    /// What is proposed does not come after the set spoken of, and nobody would learn it.
    #[error("the proposal does not come after the present replica set")]
    NoNext,
    /// See [`Custody::MAX_PIECES`].
    #[error("this node knows of too many ranges to tell one more apart")]
    TooManyPieces,
}

/// Why a write is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum WriteRefusal {
    /// The next set is being chosen.
    #[error("the next replica set is being chosen")]
    Sealed,
    /// The set spoken of is no longer the present one.
    #[error("there are later replica sets")]
    Superseded(Superseding),
    /// The set spoken of has other members: the node it was meant for had this address before.
    #[error("this node is no member of the replica set")]
    NoMember,
    /// See [`Custody::MAX_PIECES`].
    #[error("this node knows of too many ranges to tell one more apart")]
    TooManyPieces,
}

/// A node's memory of agreements. What it says must be on disk before others hear it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Custody {
    node: NodeId,
    agreements: Intervals<Agreement>,
}

impl Custody {
    /// Pieces of the circle that are told apart. A node knows a few around its own range, and anybody may
    /// tell of as many more as there are positions. What would make more of them is taken for lost on
    /// its way: nothing that is known can be forgotten instead, or old sets might be chosen after.
    pub const MAX_PIECES: usize = 1_024;

    /// The memory of a node that knows of no set yet.
    pub fn new(node: NodeId) -> Self {
        Self { node, agreements: Intervals::default() }
    }

    /// What is known of a position.
    pub fn at(&self, position: Position) -> Option<&Agreement> {
        self.agreements.at(position)
    }

    /// What is known of a position, and around it.
    pub fn piece(&self, position: Position) -> Option<(KeyRange, &Agreement)> {
        self.agreements.around(position)
    }

    /// What is known of a range, clockwise.
    pub fn over(&self, range: KeyRange) -> Vec<(KeyRange, Option<&Agreement>)> {
        self.agreements.pieces(range)
    }

    /// Everything that is known, in the order of positions.
    pub fn known(&self) -> impl Iterator<Item = (KeyRange, &Agreement)> {
        self.agreements.known()
    }

    /// Takes an agreement as it was kept on disk.
    pub fn restore(&mut self, range: KeyRange, agreement: &Agreement) {
        self.agreements.update(range, |known| *known = Some(agreement.clone()));
    }

    /// Takes notice of a set that was chosen, wherever it goes before the one known. Returns those
    /// known that go before it. It is as if nobody had told of it if that would make too many pieces.
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

    /// What the members of a set of a younger lineage kept is handed in to `present`, or to one after
    /// it.
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
    /// A ballot is promised once. So a proposer that has forgotten its last one, and comes with it
    /// again, never has two sets accepted under one ballot.
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

    /// Lets records be copied here ahead of a takeover, among this node's remains. Returns those.
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

    /// Lets records be handed in for the set after `present`, by who holds the promises of a majority.
    /// Returns the ranges whose records have to go first: this node kept them under an earlier set,
    /// and others may have removed them since. The ballot is promised: what a lower one read and sent
    /// late would be known to this node alone.
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

    /// The parts of a range whose records this node need not keep: it is no member of the present
    /// set, they were not handed in for the next one, and nobody waits for them.
    pub fn remains(&self, range: KeyRange) -> Vec<KeyRange> {
        let known = self.over(range).into_iter();
        let remains = known.filter(|(_, known)| known.is_some_and(|known| self.are_remains(known)));
        remains.map(|(piece, _)| piece).collect()
    }

    /// Whether a write of a key in `range`, which `set` keeps, may be taken. The set is learnt.
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

    /// Changes what is known of a range, of which something is known everywhere.
    fn change_known(
        &mut self,
        range: KeyRange,
        mut change: impl FnMut(&mut Agreement),
    ) -> Result<(), Refusal> {
        self.change(range, |known| change(known.as_mut().expect("it was just learnt")))
    }

    /// Changes what is known of a range, unless there would be too many pieces. What is known already
    /// may have more of them, and does not become more.
    fn change(
        &mut self,
        range: KeyRange,
        change: impl FnMut(&mut Option<Agreement>),
    ) -> Result<(), Refusal> {
        /// A range, which may pass position 0, is cut at both ends and there.
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

/// What to propose to a majority that has promised: where one of its members had accepted a set, that
/// of the highest ballot, for it may have been chosen; elsewhere `wanted`.
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

/// The members of the set after `present`: the owner and the nodes after it, `replicas` in all; and
/// while the ring has too few, whoever is a member now and did not leave in order. So a set
/// shrinks only by orderly departures, and a majority stays a majority of those that may come back.
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

    fn knowing(range: KeyRange, set: &ReplicaSet) -> Custody {
        let mut custody = Custody::new(id(5));
        assert_eq!(custody.learn(range, set), []);
        custody
    }

    #[test]
    fn a_later_set_goes_before_an_earlier_one_and_says_so() {
        let (first, second) = (set(1, &[5, 8, 10]), set(2, &[4, 5, 8]));
        let mut custody = knowing(range(1, 5), &first);
        assert_eq!(custody.learn(range(1, 4), &second), []);
        assert_eq!(custody.learn(range(1, 5), &first), [(range(1, 4), second.clone())]);
        assert_eq!(custody.at(four(4)).map(|known| &known.present), Some(&second));
        assert_eq!(custody.at(four(5)).map(|known| &known.present), Some(&first));
    }

    #[test]
    fn the_older_lineage_goes_before_the_younger_one_whatever_the_epochs() {
        let young = ReplicaSet { lineage: Lineage(Uuid::max()), ..set(9, &[1, 5]) };
        let mut custody = knowing(range(0, 0), &young);
        assert_eq!(custody.learn(range(0, 0), &set(1, &[2])), []);
        assert_eq!(custody.learn(range(0, 0), &young), [(range(0, 0), set(1, &[2]))]);
        let displaced = |custody: &Custody| custody.at(four(3))?.displaced.clone();
        assert_eq!(displaced(&custody), Some(young));
    }

    #[test]
    fn what_was_kept_in_a_younger_lineage_is_no_remains_until_it_is_handed_in() {
        let founded = |founding, members: &[u128]| ReplicaSet {
            lineage: Lineage(Uuid::from_u128(founding)),
            ..set(1, members)
        };
        let (oldest, middle, youngest) = (founded(1, &[1]), founded(2, &[2]), founded(3, &[5]));
        let mut custody = knowing(range(0, 0), &youngest);
        custody.learn(range(0, 0), &middle);
        custody.learn(range(0, 0), &oldest);
        let ballot = ballot(1, 1);
        assert_eq!(custody.remains(range(0, 0)), []);
        assert_eq!(custody.supply(range(1, 5), &oldest, ballot), Err(Refusal::Unsettled));
        custody.settle(range(1, 5), &oldest);
        assert_eq!(custody.remains(range(0, 0)), [range(1, 5)]);
        assert_eq!(custody.supply(range(1, 5), &oldest, ballot), Ok(vec![range(1, 5)]));
        assert_eq!(custody.remains(range(0, 0)), [], "what was handed in is kept");
        let late = Ballot { round: 0, ..ballot };
        assert_eq!(custody.supply(range(1, 5), &oldest, late), Err(Refusal::Outbid(ballot)));
        custody.learn(range(1, 5), &ReplicaSet { epoch: 2, ..oldest });
        assert_eq!(custody.remains(range(0, 0)), [range(1, 5)], "somebody else was chosen");
    }

    #[test]
    fn who_promised_takes_no_more_writes_until_the_next_set_is_known() {
        let (first, second) = (set(1, &[5, 8, 10]), set(2, &[4, 5, 8]));
        let mut custody = knowing(range(1, 5), &first);
        let whole = range(1, 5);
        assert_eq!(custody.write(four(3), whole, &first), Ok(()));
        assert_eq!(custody.prepare(range(1, 4), &first, ballot(1, 4)), Ok(vec![]));
        assert_eq!(custody.write(four(3), whole, &first), Err(WriteRefusal::Sealed));
        assert_eq!(custody.write(four(5), whole, &first), Ok(()), "the rest is not sealed");
        assert_eq!(custody.write(four(3), range(1, 4), &second), Ok(()), "a write tells of a set");
        let newer = vec![(range(1, 4), second)];
        assert_eq!(custody.write(four(3), whole, &first), Err(WriteRefusal::Superseded(newer)));
    }

    #[test]
    fn a_lower_ballot_is_refused_after_a_higher_one() {
        let first = set(1, &[5, 8, 10]);
        let mut custody = knowing(range(1, 5), &first);
        assert_eq!(custody.prepare(range(3, 5), &first, ballot(2, 8)), Ok(vec![]));
        let outbid = Err(Refusal::Outbid(ballot(2, 8)));
        assert_eq!(custody.prepare(range(1, 5), &first, ballot(1, 4)), outbid);
        let low = Proposal { ballot: ballot(1, 4), next: set(2, &[4, 5, 8]) };
        assert!(custody.accept(range(1, 5), &first, &low).is_err());
        assert_eq!(custody.at(four(2)).and_then(|known| known.promised), None);
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
        let mut custody = knowing(own, &first);
        // Every other one, and each part of a piece that is known.
        for number in 1..1024 {
            custody.learn(sliver(number), &set(number as u64 % 2 + 2, &[5, 8, 10]));
        }
        let full = custody.agreements.count();
        assert!(full <= Custody::MAX_PIECES && full > Custody::MAX_PIECES - 4, "{full}");
        let middle = |range: KeyRange| {
            let half = |at: Position| Position::from_u128(at.to_u128().wrapping_add(1 << 110));
            KeyRange { after: half(range.after), last: half(half(range.after)) }
        };
        for number in 0..1023 {
            let part = middle(sliver(number));
            custody.learn(part, &set(9, &[5, 8, 10]));
            let known = custody.at(part.last).expect("it is known").present.clone();
            assert!(custody.prepare(part, &known, ballot(1, 8)).is_err() || known.epoch == 9);
            assert!(custody.supply(part, &known, ballot(1, 8)).is_err() || known.epoch == 9);
            assert!(custody.agreements.count() <= Custody::MAX_PIECES);
        }
        assert_eq!(custody.prepare(middle(own), &first, ballot(1, 8)), Err(Refusal::TooManyPieces));
        let write = custody.write(middle(own).last, middle(own), &set(2, &[5, 8, 10]));
        assert_eq!(write, Err(WriteRefusal::TooManyPieces));
        // What makes no more of them goes on.
        assert_eq!(custody.write(own.last, own, &first), Ok(()));
        assert_eq!(custody.prepare(own, &first, ballot(1, 8)), Ok(vec![]));
        let proposal = Proposal { ballot: ballot(1, 8), next: set(2, &[5, 8]) };
        assert_eq!(custody.accept(own, &first, &proposal), Ok(()));
        assert_eq!(custody.learn(own, &set(2, &[5, 8])), []);
        assert_eq!(custody.write(own.last, own, &set(2, &[5, 8])), Ok(()));
        assert_eq!(custody.learn(KeyRange::whole(own.last), &set(20, &[5, 8])), []);
        assert_eq!(custody.agreements.count(), 1, "and one that tells of all leaves one");
    }

    #[test]
    fn what_may_have_been_chosen_is_proposed_again() {
        let (first, wanted) = (set(1, &[5, 8, 10]), set(2, &[4, 5, 8]));
        let (earlier, later) = (set(2, &[8, 10, 12]), set(2, &[10, 12, 15]));
        let mut custody = knowing(range(1, 5), &first);
        let proposal = Proposal { ballot: ballot(2, 8), next: later.clone() };
        assert_eq!(custody.accept(range(2, 4), &first, &proposal), Ok(()));
        let accepted = custody.prepare(range(1, 5), &first, ballot(3, 4)).expect("it is higher");
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
        let mut custody = knowing(range(1, 5), &first);
        assert_eq!(custody.prepare(range(1, 4), &second, ballot(1, 3)), Ok(vec![]));
        let newer = vec![(range(1, 4), second)];
        assert_eq!(
            custody.prepare(range(1, 5), &first, ballot(9, 8)),
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
