//! A ring of 4 bits whose messages arrive at once, unless a test delays or loses them.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::{
    address::address,
    ring::{Bits, ChordNode, Contact, Next, NodeId, Position, Standing, State},
};

/// More rounds than any of these small rings needs to come to rest.
const MAX_ROUNDS: usize = 40;

/// Whether there are addresses through which split rings find each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seeds {
    NoneIsKnown,
    /// The first other member.
    OneIsKnown,
}

/// A node, by its position.
pub(super) type Number = u8;

/// Each member's predecessor and successors.
pub(super) type Shape = BTreeMap<Number, (Option<Number>, Vec<Number>)>;

/// The running nodes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Network {
    nodes: BTreeMap<Number, ChordNode>,
    max_successors: usize,
}

pub(super) fn position(number: Number) -> Position {
    Bits::new(4).expect("four bits are a ring").position(number.into())
}

pub(super) fn contact(number: Number) -> Contact {
    Contact {
        position: position(number),
        id: NodeId::new(Uuid::from_u128(number.into())),
        address: address(&format!("node{number}:7073")),
    }
}

pub(super) fn number(contact: &Contact) -> Number {
    let value = Bits::new(4).expect("four bits are a ring").value(contact.position);
    Number::try_from(value).expect("four bits fit")
}

pub(super) fn numbers<'a>(contacts: impl IntoIterator<Item = &'a Contact>) -> Vec<Number> {
    contacts.into_iter().map(number).collect()
}

impl Network {
    /// One ring of these nodes, each of which joined by asking the first.
    pub(super) fn ring(numbers: impl IntoIterator<Item = Number>, max_successors: usize) -> Self {
        let mut network = Self { nodes: BTreeMap::new(), max_successors };
        let mut founder = None;
        for number in numbers {
            let Some(known) = founder else {
                network.start(number).found();
                founder = Some(number);
                continue;
            };
            network.join(number, known);
            network.settle(Seeds::NoneIsKnown);
        }
        network
    }

    pub(super) fn start(&mut self, number: Number) -> &mut ChordNode {
        let member = ChordNode::new(contact(number), self.max_successors);
        self.nodes.insert(number, member);
        &mut self[number]
    }

    /// Adds the nodes of another network, which are unknown here.
    pub(super) fn absorb(&mut self, other: Self) {
        self.nodes.extend(other.nodes);
    }

    pub(super) fn is_up(&self, number: Number) -> bool {
        self.nodes.contains_key(&number)
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = (Number, &ChordNode)> {
        self.nodes.iter().map(|(number, member)| (*number, member))
    }

    /// The members, in the order of their positions.
    pub(super) fn members(&self) -> Vec<Number> {
        let is_member = |member: &ChordNode| member.standing() == Standing::Member;
        self.nodes().filter(|(_, member)| is_member(member)).map(|(number, _)| number).collect()
    }

    pub(super) fn shape(&self) -> Shape {
        let of = |number| {
            let member: &ChordNode = &self[number];
            (number, (member.predecessor().map(self::number), numbers(member.successors())))
        };
        self.members().into_iter().map(of).collect()
    }

    /// What [`Network::shape`] is in one ring of all members.
    pub(super) fn one_ring(&self) -> Shape {
        let members = self.members();
        let others = members.len().saturating_sub(1);
        let of = |(index, number): (usize, &Number)| {
            let after = members.iter().cycle().skip(index + 1).take(others).copied();
            let predecessor = after.clone().last();
            (*number, (predecessor, after.take(self.max_successors).collect()))
        };
        members.iter().enumerate().map(of).collect()
    }

    /// The node whose key this is, if exactly one claims it.
    pub(super) fn owner(&self, key: Number) -> Option<Number> {
        let owns = |number: &Number| {
            self[*number].owned().is_some_and(|range| range.contains(position(key)))
        };
        let owners: Vec<_> = self.members().into_iter().filter(owns).collect();
        if let [owner] = owners[..] { Some(owner) } else { None }
    }

    /// A node looks up its predecessor through `asked`, joins after it and tells both neighbours.
    pub(super) fn join(&mut self, number: Number, asked: Number) {
        for neighbour in self.join_silently(number, asked) {
            self.notify(number, &neighbour);
        }
    }

    /// The same, but it tells nobody. Returns the nodes that it should tell.
    pub(super) fn join_silently(&mut self, number: Number, asked: Number) -> Vec<Contact> {
        let mut at = asked;
        while let Some(next) = self.live_successor(at)
            && next != number
            && !position(number).is_between(position(at), position(next))
        {
            at = next;
        }
        let predecessor = self[at].state();
        self.start(number).join(&predecessor).expect("the lookup found its predecessor")
    }

    fn live_successor(&self, number: Number) -> Option<Number> {
        numbers(self[number].successors()).into_iter().find(|next| self.is_up(*next))
    }

    /// A node tells its neighbours that it leaves, and stops.
    pub(super) fn leave(&mut self, number: Number) {
        for neighbour in self[number].leave() {
            self.notify(number, &neighbour);
        }
        self.fail(number);
    }

    /// A node dies without telling anybody.
    pub(super) fn fail(&mut self, number: Number) {
        self.nodes.remove(&number);
    }

    pub(super) fn notify(&mut self, number: Number, to: &Contact) {
        self.follow(number, Next::Notify(to.clone()));
    }

    /// One round of a node's stabilisation.
    pub(super) fn stabilise(&mut self, number: Number) {
        if let Some(head) = self[number].head() {
            let next = Next::Ask(head.clone());
            self.follow(number, next);
        }
    }

    pub(super) fn follow(&mut self, number: Number, mut next: Next) {
        loop {
            next = match next {
                Next::Rest => return,
                Next::Ask(node) => match self.state_of(&node) {
                    Some(state) => self[number].answered(&state),
                    None => self[number].dead(&node),
                },
                Next::Notify(node) => {
                    let state = self[number].state();
                    if let Some(told) = self.nodes.get_mut(&self::number(&node)) {
                        let next = told.notified(&state);
                        self.follow(self::number(&node), next);
                    }
                    return;
                }
            }
        }
    }

    pub(super) fn state_of(&self, node: &Contact) -> Option<State> {
        self.nodes.get(&number(node)).map(ChordNode::state)
    }

    /// Members stabilise in turn until nothing changes; then each considers its seed, if it has
    /// one. Returns false if they do not come to rest.
    pub(super) fn settle(&mut self, seeds: Seeds) -> bool {
        for _ in 0..MAX_ROUNDS {
            let before = self.clone();
            for number in self.members() {
                self.stabilise(number);
            }
            if *self == before && (seeds == Seeds::NoneIsKnown || !self.probe()) {
                return true;
            }
        }
        false
    }

    /// Each member considers the first other one. Returns whether any of them asked it.
    fn probe(&mut self) -> bool {
        let members = self.members();
        let mut asked = false;
        for number in &members {
            let Some(seed) = members.iter().find(|other| *other != number) else { continue };
            if self[*number].consider(&contact(*seed)) {
                self.follow(*number, Next::Ask(contact(*seed)));
                asked = true;
            }
        }
        asked
    }
}

impl std::ops::Index<Number> for Network {
    type Output = ChordNode;

    fn index(&self, number: Number) -> &ChordNode {
        &self.nodes[&number]
    }
}

impl std::ops::IndexMut<Number> for Network {
    fn index_mut(&mut self, number: Number) -> &mut ChordNode {
        self.nodes.get_mut(&number).expect("the node is up")
    }
}
