//! The nodes that a lookup has heard of, and the conclusions it may draw.
//!
//! All nodes are kept by their clockwise distance from the position: the first of them may own it,
//! the last lie right before it. The open part shrinks from both ends. *Ahead* are the nodes from
//! the position to the first live one, *nearer* those from the last useful one up to the position
//! again. The nodes between the two no longer matter.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
};

use crate::ring::{Contact, Found, Position};

/// The goal of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// The position's owner.
    Owner,
    /// The owner, and the live node right before the position.
    Place,
}

/// The state of a node in a lookup.
#[derive(Clone, Debug)]
enum Status {
    /// It was only named.
    Named,
    /// It was asked in this round.
    Asked(usize),
    /// It was asked, and its answer is late. It may still come.
    Late,
    /// It did not answer, or answered nonsense.
    Failed,
    /// It answered.
    Answered(Answer),
}

/// The useful part of an answer.
#[derive(Clone, Debug)]
struct Answer {
    claim: Claim,
    /// It named a nearer node. A node that does not is a dead end, not the closest so far.
    is_useful: bool,
    /// Its successor list from the position on, if that reaches past it.
    list: Vec<Contact>,
}

/// A node's claim about itself and the position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    Owns,
    /// It is first after the position, but leaves that to those after it, because it is leaving.
    Defers,
    None,
}

#[derive(Clone, Debug)]
struct Node {
    contact: Contact,
    /// Hops from the node that looks up: it is at 0, the nodes that it names are at 1.
    hops: usize,
    status: Status,
}

impl Node {
    const fn answer(&self) -> Option<&Answer> {
        match &self.status {
            Status::Answered(answer) => Some(answer),
            _ => None,
        }
    }

    /// It answered, and stays.
    fn lives(&self) -> bool {
        self.answer().is_some_and(|answer| answer.claim != Claim::Defers)
    }

    fn owns(&self) -> bool {
        self.answer().is_some_and(|answer| answer.claim == Claim::Owns)
    }

    fn is_useful(&self) -> bool {
        self.lives() && self.answer().is_some_and(|answer| answer.is_useful)
    }

    const fn is_named(&self) -> bool {
        matches!(self.status, Status::Named)
    }

    const fn is_asked(&self) -> bool {
        matches!(self.status, Status::Asked(_))
    }

    const fn is_open(&self) -> bool {
        self.is_named() || self.is_asked()
    }

    const fn is_late(&self) -> bool {
        matches!(self.status, Status::Late)
    }

    /// It may still answer.
    const fn is_unsettled(&self) -> bool {
        self.is_open() || self.is_late()
    }
}

/// All nodes that a lookup has heard of.
#[derive(Clone, Debug)]
pub(super) struct Known {
    position: Position,
    goal: Goal,
    /// By their clockwise distance from the position.
    nodes: BTreeMap<u128, Node>,
    /// No node is missing from the position up to this distance, by the list of a node before it.
    covered: Option<u128>,
}

impl Known {
    pub(super) const fn new(position: Position, goal: Goal) -> Self {
        Self { position, goal, nodes: BTreeMap::new(), covered: None }
    }

    /// Adds a node at this number of hops, unless its position is known. Returns its distance.
    pub(super) fn insert(&mut self, contact: &Contact, hops: usize) -> u128 {
        let distance = self.distance(contact);
        let new = || Node { contact: contact.clone(), hops, status: Status::Named };
        self.nodes.entry(distance).or_insert_with(new);
        distance
    }

    /// The node at this distance is asked in a round.
    pub(super) fn ask(&mut self, distance: u128, round: usize) -> Option<Contact> {
        let node = self.nodes.get_mut(&distance)?;
        node.status = Status::Asked(round);
        Some(node.contact.clone())
    }

    /// The node at this distance did not answer, or answered nonsense.
    pub(super) fn fail(&mut self, distance: u128) {
        if let Some(node) = self.nodes.get_mut(&distance) {
            node.status = Status::Failed;
        }
    }

    /// The answer of the node at this distance is late.
    pub(super) fn delay(&mut self, distance: u128) {
        if let Some(node) = self.nodes.get_mut(&distance) {
            node.status = Status::Late;
        }
    }

    /// The distance of a node whose answer is awaited, and its round unless it is late.
    pub(super) fn awaited(&self, contact: &Contact) -> Option<(u128, Option<usize>)> {
        let distance = self.distance(contact);
        let node = self.nodes.get(&distance).filter(|node| node.contact.id == contact.id)?;
        match node.status {
            Status::Asked(round) => Some((distance, Some(round))),
            Status::Late => Some((distance, None)),
            _ => None,
        }
    }

    /// A list that reaches past the position is known.
    pub(super) const fn is_covered(&self) -> bool {
        self.covered.is_some()
    }

    /// No answer is awaited.
    pub(super) fn is_idle(&self) -> bool {
        !self.nodes.values().any(|node| node.is_asked() || node.is_late())
    }

    /// Takes in the answer of the node at this distance. Returns whether that brings the lookup
    /// closer.
    pub(super) fn absorb(&mut self, from: u128, found: &Found) -> bool {
        let before = (self.first_alive(), self.last_useful(), self.covered.is_some());
        let is_first = before.0.is_none_or(|first| from < first);
        let (list, following) = self.split_successors(from, found);
        let claim = match found.owns {
            true => Claim::Owns,
            false if is_first && !following.is_empty() => Claim::Defers,
            false => Claim::None,
        };
        self.cover(&list);
        let mut named = list.clone();
        if claim == Claim::Defers {
            if self.covered >= Some(from) {
                self.cover(&following);
            }
            named = following;
        }
        // A node that was taken for the owner and is not knows one before itself.
        named.extend(self.believable_closer(from, found, is_first && before.0.is_some()));

        let is_useful = !list.is_empty() || named.iter().any(|node| self.distance(node) > from);
        let hops = self.nodes.get(&from).map_or(0, |node| node.hops);
        for contact in &named {
            self.insert(contact, hops + 1);
        }
        if let Some(node) = self.nodes.get_mut(&from) {
            node.status = Status::Answered(Answer { claim, is_useful, list });
        }
        before != (self.first_alive(), self.last_useful(), self.covered.is_some())
    }

    /// The owner and its hops from the node that looks up, if it is known: the first live node, if
    /// it claims ownership or no node is left before it.
    pub(super) fn owner(&self) -> Option<(&Contact, usize)> {
        let first = self.first_alive()?;
        let node = &self.nodes[&first];
        let is_next =
            || self.covered >= Some(first) && !self.ahead().any(|(_, node)| node.is_unsettled());
        (node.owns() || is_next()).then_some((&node.contact, node.hops))
    }

    /// Whether nothing is left to find once the owner is known. A node that does not claim
    /// ownership may not be the owner: a list is older the farther its node lies from the position,
    /// and the live node right before the position may know a recent joiner.
    pub(super) fn is_done(&self) -> bool {
        let first = self.first_alive().and_then(|first| self.nodes.get(&first));
        let is_sure = self.goal == Goal::Owner && first.is_some_and(Node::owns);
        let is_settled = || !self.nearer().any(|(_, node)| node.is_unsettled());
        is_sure || self.predecessor().is_some() && is_settled()
    }

    /// The last node before the position whose list reaches past it, and the part of that list that
    /// may be alive.
    pub(super) fn predecessor(&self) -> Option<(Contact, Vec<Contact>)> {
        let lists = self.nodes.values().rev().filter_map(|node| Some((node, &node.answer()?.list)));
        let (node, list) = lists.into_iter().find(|(_, list)| !list.is_empty())?;
        let may_live = |contact: &&Contact| {
            let known = self.nodes.get(&self.distance(contact));
            known.is_none_or(|known| known.is_unsettled() || known.lives())
        };
        Some((node.contact.clone(), list.iter().filter(may_live).cloned().collect()))
    }

    /// The nodes to ask if this many may be asked at once, the most promising first.
    ///
    /// Once a list is known that reaches past the position, these are the nodes of that list.
    /// Before that they are the one that some node takes for the owner, and those before the
    /// position. `starved`: no question is in flight, and if no other node is left, those that
    /// seemed too far are used.
    pub(super) fn candidates(&self, width: usize, starved: bool) -> Vec<u128> {
        let named = |(distance, node): (&u128, &Node)| node.is_named().then_some(*distance);
        if self.owner().is_some() {
            return self.nearer().filter_map(named).collect();
        }
        let shown = if self.covered.is_some() { width } else { 1 };
        let ahead: Vec<_> = self.ahead().filter(|(_, node)| node.is_open()).take(shown).collect();
        // The node that the membership names as the owner usually is: it is asked alone.
        let is_hinted = self.covered.is_none() && !ahead.is_empty();
        let list_suffices = is_hinted
            || self.covered.is_some()
                && (ahead.len() == width || self.covered >= self.first_alive());
        let mut candidates: Vec<_> = ahead.into_iter().filter_map(named).collect();
        if !list_suffices {
            candidates.extend(self.nearer().filter_map(named));
        }
        // An owner that is late is waited for.
        let is_near = self.ahead().any(|(_, node)| node.is_late());
        if candidates.is_empty() && starved && !is_near {
            candidates.extend(self.nodes.iter().rev().filter_map(named));
        }
        candidates
    }

    /// The nodes from the position to the first live one, closest first.
    fn ahead(&self) -> impl Iterator<Item = (&u128, &Node)> {
        self.nodes.range(..self.first_alive().unwrap_or_default())
    }

    /// The nodes before the position and closer to it than any useful one, closest first.
    fn nearer(&self) -> impl Iterator<Item = (&u128, &Node)> {
        let last = self.last_useful().map_or(Unbounded, Excluded);
        self.nodes.range((last, Unbounded)).rev()
    }

    /// The first live node at or after the position that does not leave it to others.
    fn first_alive(&self) -> Option<u128> {
        self.nodes.iter().find(|(_, node)| node.lives()).map(|(distance, _)| *distance)
    }

    /// The last node before the position with a useful answer.
    fn last_useful(&self) -> Option<u128> {
        self.nodes.iter().rev().find(|(_, node)| node.is_useful()).map(|(distance, _)| *distance)
    }

    /// No node is missing up to the last of these.
    fn cover(&mut self, list: &[Contact]) {
        self.covered = self.covered.max(list.last().map(|last| self.distance(last)));
    }

    /// The successors in an answer, as far as they are in order: those between the position and the
    /// answering node (which may end them itself), and those after that node.
    fn split_successors(&self, from: u128, found: &Found) -> (Vec<Contact>, Vec<Contact>) {
        let (mut list, mut following): (Vec<Contact>, Vec<Contact>) = (Vec::new(), Vec::new());
        let mut last = None;
        for contact in found.successors.iter().filter(|contact| !self.is_ignored(contact)) {
            let distance = self.distance(contact);
            if last >= Some(distance) {
                break;
            }
            last = Some(distance);
            let goes_round = distance == from && !list.is_empty() && contact.id == found.node.id;
            if distance < from || goes_round {
                list.push(contact.clone());
            } else if distance > from && list.is_empty() {
                following.push(contact.clone());
            }
        }
        (list, following)
    }

    /// The closer nodes in an answer, if they can be closer: those between the answering node and
    /// the position, and the first even if it lies elsewhere, as the owner by the membership. The
    /// last one lies right before that node, which counts if the lookup went past the owner.
    fn believable_closer(&self, from: u128, found: &Found, went_past: bool) -> Vec<Contact> {
        let named = found.closer.iter().enumerate();
        let closer = named.filter(|(index, contact)| {
            let distance = self.distance(contact);
            let is_before = distance < from && (*index == 0 || went_past);
            (distance > from || is_before) && !self.is_ignored(contact)
        });
        closer.map(|(_, contact)| contact.clone()).collect()
    }

    /// A joiner does not ask itself, although others may remember an earlier life of it.
    fn is_ignored(&self, contact: &Contact) -> bool {
        self.goal == Goal::Place && contact.position == self.position
    }

    fn distance(&self, to: &Contact) -> u128 {
        self.position.distance_to(to.position)
    }
}
