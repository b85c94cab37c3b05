//! What nodes of a ring tell each other.

use super::{Contact, KeyRange};

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

impl State {
    /// The keys whose closest successor the node is, to its knowledge: all of them if it knows nobody
    /// else. None while it is joining, and after its predecessor died until the next one is heard of.
    pub fn owned(&self) -> Option<KeyRange> {
        let last = self.node.position;
        match &self.predecessor {
            _ if self.standing == Standing::Joining => None,
            Some(predecessor) => Some(KeyRange { after: predecessor.position, last }),
            None if self.successors.is_empty() => Some(KeyRange::whole(last)),
            None => None,
        }
    }
}

/// What a node knows of a position's closest successor.
///
/// It answers for the stretch from its predecessor to its last successor. Of positions elsewhere it
/// names nodes that are closer. On a circle everything lies before and after everything: an asker
/// tells by a node's position which of the two is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Found {
    /// Who answers.
    pub node: Contact,
    /// The answering node is a member and the closest successor itself, to its knowledge.
    pub owns: bool,
    /// The nodes at or after the position, closest first and without a gap: the first that lives is
    /// the closest successor, to the knowledge of a node whose own successor list this is. Empty
    /// unless the position lies within the stretch. The answering node stands where it belongs: first
    /// if it owns the position, last if its list goes all the way round, nowhere unless it is a
    /// member.
    pub successors: Vec<Contact>,
    /// Whom to ask next: nodes before the position and closer to it than the answering node, closest
    /// first. Outside the stretch, two that lie at or after the position stand with them: the owner by
    /// the roll, if it is known, comes first, to be tried at once; the answering node's predecessor
    /// comes last, so that a lookup that went past the owner walks back.
    pub closer: Vec<Contact>,
}
