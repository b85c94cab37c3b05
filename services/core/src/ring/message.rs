//! What nodes of a ring tell each other.

use super::Contact;

/// Whether a node takes part in a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It looks for its place; nobody should name it to others.
    Joining,
    /// It is part of a ring, if only of one that has no other node.
    Member,
    /// It hands over and goes; nobody should name it to others.
    Leaving,
}

/// What a node tells of itself and of its neighbours.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// Who tells.
    pub node: Contact,
    /// Whether it takes part.
    pub standing: Standing,
    /// The node before it, if it knows one that lives.
    pub predecessor: Option<Contact>,
    /// The nodes after it, closest first: the textbook's first and second successor, and more. Never
    /// itself; fewer than the list may hold if the ring has no more.
    pub successors: Vec<Contact>,
}

/// What a node knows of a position's closest successor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Found {
    /// Who answers.
    pub node: Contact,
    /// The answering node is the closest successor itself, to its knowledge.
    pub owns: bool,
    /// Nodes at or after the position, closest first: the first that lives is the closest successor,
    /// to the knowledge of a node whose own successor list this is. Empty unless the position lies
    /// within the stretch that the answering node's predecessor and successor list cover.
    pub successors: Vec<Contact>,
    /// Nodes before the position and closer to it than the answering node, closest first.
    pub closer: Vec<Contact>,
}
