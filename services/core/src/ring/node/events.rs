//! What a node is told, and what it asks for.

use std::time::Instant;

use super::joining::Seeds;
use crate::{
    Address,
    ring::{Contact, Entry, Found, Introducer, MembershipDigest, Outcome, Position, State},
};

/// A question to another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// For its state.
    State,
    /// Notifies it of this node's state.
    Notify(State),
    /// For the nodes around this one, to its knowledge.
    Probe(State),
    /// Gossip, which is answered with gossip.
    Gossip(Vec<Entry>, MembershipDigest),
}

/// The answer of another node.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To [`Question::State`].
    State(State),
    /// To [`Question::Notify`].
    Noticed,
    /// To [`Question::Probe`]: its state, and what it knows about the position after this node's.
    Probed(State, Found),
    /// To [`Question::Gossip`].
    Gossip(Vec<Entry>),
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Nothing listens at the address.
    Refused,
    /// None came in time, or an invalid one.
    NoAnswer,
}

/// The purpose of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To find this node's place.
    Join,
    /// To find the node of a finger.
    Finger(Position),
}

/// An event.
#[derive(Clone, Debug)]
pub enum Input {
    /// The addresses to join through.
    Seeds(Seeds),
    /// A node answered at an address.
    Met(Address, State),
    /// No node answered there.
    Unmet(Address),
    /// A node at this source sent its state: see [`Question::Notify`].
    Notified(Introducer, State),
    /// A node answered a question.
    Answered(Contact, Answer),
    /// A node did not answer a question.
    Unanswered {
        /// The node.
        node: Contact,
        /// The question.
        question: Question,
        /// When it was asked.
        asked: Instant,
        /// Why there is no answer.
        why: Silence,
    },
    /// A lookup has ended; none if it failed.
    LookedUp(Purpose, Option<Outcome>),
    /// The node shall leave.
    Leave,
    /// Time has passed: see [`super::Node::next_deadline`].
    Tick,
}

/// An action that a node requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Ask a node.
    Ask(Contact, Question),
    /// Ask the node at an address for its state.
    Meet(Address),
    /// Look up a position, starting from a node, or from this node's own routing table.
    LookUp(Purpose, Position, Option<Contact>),
    /// The routing table has changed.
    Changed,
}
