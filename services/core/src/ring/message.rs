//! The messages of the ring protocol.

use super::{Contact, KeyRange};

/// Whether a node is part of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It looks for its place; it should not be named to others.
    Joining,
    /// It is a member of a ring, which may have no other member.
    Member,
    /// It hands over and leaves; it should not be named to others.
    Leaving,
}

/// A node's description of itself and its neighbours.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The node.
    pub node: Contact,
    /// Whether it is part of a ring.
    pub standing: Standing,
    /// The node before it, if it knows one that is alive.
    pub predecessor: Option<Contact>,
    /// The nodes after it, closest first: the textbook's first and second successor, and more.
    /// Never itself; fewer than the list may hold if the ring has no more.
    pub successors: Vec<Contact>,
}

impl State {
    /// The keys whose closest successor the node is, to its knowledge: all of them if it knows no
    /// other node. None while it is joining, and from its predecessor's death until it learns of
    /// another one.
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

/// A node's knowledge of a position's closest successor.
///
/// It is complete from its predecessor to its last successor. For other positions it names nodes
/// that are closer. On a circle everything lies both before and after everything: the asking node
/// tells by a node's position which of the two is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Found {
    /// The answering node.
    pub node: Contact,
    /// The answering node is a member and the closest successor itself, to its knowledge.
    pub owns: bool,
    /// The nodes at or after the position, closest first and without a gap: the first live one is
    /// the closest successor, to the knowledge of the node with this successor list. Empty unless
    /// the position lies where the node's knowledge is complete. The answering node is included at
    /// its place: first if it owns the position, last if its list goes all the way round, not at
    /// all unless it is a member.
    pub successors: Vec<Contact>,
    /// The nodes to ask next: before the position and closer to it than the answering node, closest
    /// first. Where the node's knowledge is not complete, two that lie at or after the position are
    /// included: the owner by the membership, if it is known, comes first, to be tried at once; the
    /// answering node's predecessor comes last, so that a lookup that went past the owner walks
    /// back.
    pub closer: Vec<Contact>,
}
