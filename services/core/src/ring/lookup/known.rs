//! Whom a lookup heard of, and what it may conclude.
//!
//! All nodes are kept by their distance clockwise from the position looked for. So the first of them
//! are candidates for its owner, and the last lie right before it. Between the first that lives and
//! the last that answered with something useful lies all that is still open.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
};

use crate::ring::{Contact, Found, Position};

/// What a lookup is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// The position's owner.
    Owner,
    /// The owner, and the live node right before the position.
    Place,
}

/// How far a lookup got with a node.
#[derive(Clone, Debug)]
pub(super) enum Status {
    /// It was only named.
    Named,
    /// It was asked in this round.
    Asked(usize),
    /// It did not answer, or not with sense.
    Failed,
    /// It answered.
    Answered(Answer),
}

/// What counts of an answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    owns: bool,
    /// It is first after the position, but leaves that to the nodes after it: it goes.
    defers: bool,
    /// It named somebody nearer. Who does not is a dead end, not the closest so far.
    useful: bool,
    /// Its successor list from the position on, if that reaches past it.
    list: Vec<Contact>,
}

#[derive(Clone, Debug)]
struct Node {
    contact: Contact,
    /// Steps from the node that looks: it is at 0, those that it names at 1.
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

    const fn is_named(&self) -> bool {
        matches!(self.status, Status::Named)
    }

    const fn is_asked(&self) -> bool {
        matches!(self.status, Status::Asked(_))
    }

    /// Does not own the position, whatever else is found out.
    fn is_out(&self) -> bool {
        matches!(self.status, Status::Failed) || self.answer().is_some_and(|answer| answer.defers)
    }
}

/// Everybody that a lookup heard of.
#[derive(Clone, Debug)]
pub(super) struct Known {
    position: Position,
    goal: Goal,
    /// By their distance clockwise from the position.
    nodes: BTreeMap<u128, Node>,
    /// No node is missing from the position up to this distance, as nodes before it told.
    covered: Option<u128>,
}

impl Known {
    pub(super) const fn new(position: Position, goal: Goal) -> Self {
        Self { position, goal, nodes: BTreeMap::new(), covered: None }
    }

    /// Adds a node that is so many steps away, unless its position is known. Returns its distance.
    pub(super) fn insert(&mut self, contact: &Contact, hops: usize) -> u128 {
        let distance = self.position.distance_to(contact.position);
        let new = || Node { contact: contact.clone(), hops, status: Status::Named };
        self.nodes.entry(distance).or_insert_with(new);
        distance
    }

    /// Asks the node at this distance in a round.
    pub(super) fn ask(&mut self, distance: u128, round: usize) -> Option<Contact> {
        self.set(distance, Status::Asked(round));
        self.nodes.get(&distance).map(|node| node.contact.clone())
    }

    pub(super) fn set(&mut self, distance: u128, status: Status) {
        if let Some(node) = self.nodes.get_mut(&distance) {
            node.status = status;
        }
    }

    /// The distance and round of a node whose answer is awaited.
    pub(super) fn under_way(&self, contact: &Contact) -> Option<(u128, usize)> {
        let distance = self.position.distance_to(contact.position);
        match self.nodes.get(&distance) {
            Some(Node { contact: known, status: Status::Asked(round), .. })
                if known.id == contact.id =>
            {
                Some((distance, *round))
            }
            _ => None,
        }
    }

    /// Nobody's answer is awaited.
    pub(super) fn is_idle(&self) -> bool {
        !self.nodes.values().any(Node::is_asked)
    }

    /// Takes in what the node at this distance answered. Returns whether that brings the lookup
    /// closer.
    pub(super) fn absorb(&mut self, distance: u128, found: &Found) -> bool {
        let before = (self.first_alive(), self.last_useful(), self.covered.is_some());
        let hops = self.nodes.get(&distance).map_or(0, |node| node.hops) + 1;
        let (list, following) = self.checked_successors(distance, found);
        let defers =
            !found.owns && !following.is_empty() && before.0.is_none_or(|first| distance < first);
        if let Some(last) = list.last() {
            self.covered = self.covered.max(Some(self.position.distance_to(last.position)));
        }
        if defers && self.covered.is_some_and(|covered| distance <= covered) {
            let last = following.last().map(|last| self.position.distance_to(last.position));
            self.covered = self.covered.max(last);
        }
        let closer = self.checked_closer(distance, found);
        let nearer = |node: &Contact| self.position.distance_to(node.position) > distance;
        let useful = !list.is_empty() || closer.iter().any(nearer);
        let named = if defers { following } else { list.clone() };
        for contact in named.iter().chain(&closer) {
            self.insert(contact, hops);
        }
        self.set(distance, Status::Answered(Answer { owns: found.owns, defers, useful, list }));
        before != (self.first_alive(), self.last_useful(), self.covered.is_some())
    }

    /// The owner, if it is known: the first that lives, if it says so itself or if nobody is left
    /// before it.
    pub(super) fn owner(&self) -> Option<u128> {
        let first = self.first_alive()?;
        let claims =
            self.nodes.get(&first).and_then(Node::answer).is_some_and(|answer| answer.owns);
        let is_next = || {
            self.covered.is_some_and(|covered| first <= covered)
                && self.nodes.range(..first).all(|(_, node)| node.is_out())
        };
        (claims || is_next()).then_some(first)
    }

    /// Nothing is left to find out once the owner is known.
    pub(super) fn is_done(&self) -> bool {
        let is_open = |node: &Node| node.is_named() || node.is_asked();
        match self.goal {
            Goal::Owner => true,
            Goal::Place => {
                self.predecessor().is_some() && !self.nearer().any(|(_, node)| is_open(node))
            }
        }
    }

    /// A node that was found, and its steps from the node that looks.
    pub(super) fn found(&self, distance: u128) -> (Contact, usize) {
        let node = &self.nodes[&distance];
        (node.contact.clone(), node.hops)
    }

    /// The last before the position whose list reaches past it, and the part of that list that may
    /// live.
    pub(super) fn predecessor(&self) -> Option<(Contact, Vec<Contact>)> {
        let mut lists =
            self.nodes.values().rev().filter_map(|node| Some((node, &node.answer()?.list)));
        let (node, list) = lists.find(|(_, list)| !list.is_empty())?;
        let distance = |contact: &Contact| self.position.distance_to(contact.position);
        let is_out =
            |contact: &Contact| self.nodes.get(&distance(contact)).is_some_and(Node::is_out);
        let list = list.iter().filter(|contact| !is_out(contact)).cloned().collect();
        Some((node.contact.clone(), list))
    }

    /// Whom to ask, the most promising first.
    ///
    /// Once a list is known that reaches past the position, these are the nodes at or after it. Before
    /// that it is the one that somebody takes for the owner, and those before the position. `starved`:
    /// if nobody is under way either, those that seemed too far before.
    pub(super) fn candidates(&self, branches: usize, starved: bool) -> Vec<u128> {
        let first = self.first_alive();
        let mut candidates = Vec::new();
        if self.owner().is_none() {
            let ahead =
                self.nodes.range(..first.unwrap_or_default()).filter(|(_, node)| !node.is_out());
            let shown = if self.covered.is_some() { branches } else { 1 };
            let ahead: Vec<_> = ahead.take(shown).collect();
            candidates.extend(ahead.iter().filter(|(_, node)| node.is_named()).map(|(at, _)| **at));
            if self.covered.is_some() && (ahead.len() >= branches || self.covered >= first) {
                return candidates;
            }
        }
        let named = |(distance, node): (&u128, &Node)| node.is_named().then_some(*distance);
        candidates.extend(self.nearer().filter_map(named));
        if candidates.is_empty() && starved && self.owner().is_none() {
            let behind = self.nodes.range(first.unwrap_or_default()..).rev();
            candidates.extend(behind.filter_map(named));
        }
        candidates
    }

    /// The nodes before the position and closer to it than any that answered, closest first.
    fn nearer(&self) -> impl Iterator<Item = (&u128, &Node)> {
        let last = self.last_useful().map_or(Unbounded, Excluded);
        self.nodes.range((last, Unbounded)).rev()
    }

    /// The first at or after the position that lives and does not leave it to others.
    fn first_alive(&self) -> Option<u128> {
        let mut answers = self.nodes.iter().filter_map(|(at, node)| Some((at, node.answer()?)));
        answers.find(|(_, answer)| !answer.defers).map(|(at, _)| *at)
    }

    /// The last before the position that answered with something useful.
    fn last_useful(&self) -> Option<u128> {
        let answers = self.nodes.iter().rev().filter_map(|(at, node)| Some((at, node.answer()?)));
        let mut useful = answers.filter(|(_, answer)| answer.useful && !answer.defers);
        useful.next().map(|(at, _)| *at)
    }

    /// The successors that an answer names in their order: those between the position and the node
    /// that answers (which may end them itself), or else those after that node.
    fn checked_successors(&self, from: u128, found: &Found) -> (Vec<Contact>, Vec<Contact>) {
        let (mut list, mut following) = (Vec::new(), Vec::new());
        let mut last = None;
        for contact in &found.successors {
            let distance = self.position.distance_to(contact.position);
            let is_self = distance == from;
            let in_order = last.is_none_or(|last| distance > last);
            let impostor = is_self && contact.id != found.node.id;
            if !in_order || impostor || self.is_ignored(distance) {
                continue;
            }
            last = Some(distance);
            if is_self && following.is_empty() || distance < from {
                list.push(contact.clone());
            } else {
                following.push(contact.clone());
            }
        }
        let begins_with_self =
            list.first().is_some_and(|first| first.position == found.node.position);
        if list.is_empty() || begins_with_self && !following.is_empty() {
            (Vec::new(), following)
        } else {
            (list, Vec::new())
        }
    }

    /// The nodes that an answer names as closer, and that are.
    fn checked_closer(&self, from: u128, found: &Found) -> Vec<Contact> {
        let first = self.first_alive();
        let went_past = first.is_some_and(|first| from < first);
        let last = self.last_useful();
        let is_closer = |index: usize, distance: u128| {
            if went_past {
                return distance < from || last.is_none_or(|last| distance > last);
            }
            // One that comes first may lie at or after the position: the owner by the roll.
            distance > from || index == 0 && distance < first.unwrap_or(from)
        };
        let named = found.closer.iter().enumerate();
        let closer = named.filter(|(index, contact)| {
            let distance = self.position.distance_to(contact.position);
            is_closer(*index, distance) && !self.is_ignored(distance)
        });
        closer.map(|(_, contact)| contact.clone()).collect()
    }

    /// A joiner does not ask itself, though others may remember an earlier life of it.
    fn is_ignored(&self, distance: u128) -> bool {
        self.goal == Goal::Place && distance == 0
    }
}
