//! A node's place in the ring: its predecessor, its successor list, and their maintenance.
//!
//! This is Chord (Stoica et al., "Chord", ToN 2003) as corrected by Pamela Zave ("Reasoning about
//! Identifier Spaces: How to Make Chord Correct", 2017): a joiner takes over its predecessor's
//! whole list; a list is replaced by a successor's and never merged with it; a predecessor is
//! replaced by a closer one, or when it is dead. In addition, a joiner notifies its predecessor at
//! once, a leaving node says so, and a node that has lost all successors follows its predecessor.
//!
//! A [`ChordNode`] is a value without time or I/O. It is told the states of nodes and which of them
//! are silent, and returns the next step: a [`Next`]. Between a question and its answer anything
//! may happen, so an answer is judged by the state when it arrives.
//!
//! Invariant, whatever others tell: distances from this node strictly increase along its successor
//! list. So the list never contains this node, and no node twice; and in a ring no larger than a
//! list it ends where the circle does.
//!
//! Invariant of a ring (Zave): while each member knows a live one, stabilising forms one ordered
//! ring. A list of r nodes ensures that for r losses between two repairs (`tests/model.rs`). A node
//! that falls out of its ring all the same returns by [`ChordNode::consider`].

use std::iter;

use super::{Contact, KeyRange, Standing, State};

/// A node's predecessor and successors in a ring.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChordNode {
    me: Contact,
    standing: Standing,
    predecessor: Option<Contact>,
    /// The predecessor if the present one turns out to be dead: it takes this node for its closest
    /// successor.
    heir: Option<Contact>,
    successors: Vec<Contact>,
    max_successors: usize,
}

/// The step that follows from a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Next {
    /// None, until it is time to stabilise again.
    Rest,
    /// Ask this node for its [`State`]: its answer goes to [`ChordNode::answered`], its silence to
    /// [`ChordNode::dead`].
    Ask(Contact),
    /// Send this node the own [`State`], for its [`ChordNode::notified`].
    Notify(Contact),
}

/// Why a node could not join.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// It has joined already, or is leaving.
    #[error("the node is not looking for its place in a ring")]
    NotJoining,
    /// The other node is in no ring, or is leaving its ring.
    #[error("{0:?} is not a member of a ring; ask another node")]
    NoMember(Contact),
    /// The other node knows a node between itself and the joiner.
    #[error("{0:?} is not the node before this one; look it up again")]
    NoPredecessor(Contact),
}

impl ChordNode {
    /// A node that is in no ring and knows no other. Its list will hold up to `max_successors`
    /// nodes, and at least one.
    pub fn new(me: Contact, max_successors: usize) -> Self {
        Self {
            me,
            standing: Standing::Joining,
            predecessor: None,
            heir: None,
            successors: Vec::new(),
            max_successors: max_successors.max(1),
        }
    }

    /// Its state, as told to others.
    pub fn state(&self) -> State {
        State {
            node: self.me.clone(),
            standing: self.standing,
            predecessor: self.predecessor.clone(),
            successors: self.successors.clone(),
        }
    }

    /// The node.
    pub const fn me(&self) -> &Contact {
        &self.me
    }

    /// Its standing in the ring.
    pub const fn standing(&self) -> Standing {
        self.standing
    }

    /// The node before it, if it knows one that is alive.
    pub const fn predecessor(&self) -> Option<&Contact> {
        self.predecessor.as_ref()
    }

    /// The nodes after it, closest first.
    pub fn successors(&self) -> &[Contact] {
        &self.successors
    }

    /// The keys whose closest successor it is, to its knowledge: all of them if it knows no other
    /// node. None while it is joining, and from its predecessor's death until it learns of another
    /// one.
    pub fn owned(&self) -> Option<KeyRange> {
        let last = self.me.position;
        match &self.predecessor {
            Some(predecessor) => Some(KeyRange { after: predecessor.position, last }),
            None if self.standing == Standing::Joining || !self.successors.is_empty() => None,
            None => Some(KeyRange::whole(last)),
        }
    }

    /// Sets how many successors it keeps, at least one: as many as a ring of this size needs.
    pub fn set_max_successors(&mut self, max_successors: usize) {
        self.max_successors = max_successors.max(1);
        self.successors.truncate(self.max_successors);
    }

    /// Founds a ring of this node alone, unless it is in one.
    pub fn found(&mut self) {
        if self.standing == Standing::Joining {
            self.standing = Standing::Member;
        }
    }

    /// Joins right after `predecessor`, as that node describes itself. Returns the nodes to send
    /// the own [`State`] to: the node after it, and the one before it.
    pub fn join(&mut self, predecessor: &State) -> Result<Vec<Contact>, JoinError> {
        let before = &predecessor.node;
        if self.standing != Standing::Joining {
            return Err(JoinError::NotJoining);
        }
        if predecessor.standing != Standing::Member {
            return Err(JoinError::NoMember(before.clone()));
        }
        // It may still list an earlier life of this node.
        let mut after: Vec<_> =
            predecessor.successors.iter().filter(|node| !self.is_me(node)).collect();
        if after.is_empty() {
            after.extend(predecessor.predecessor.iter().filter(|node| !self.is_me(node)));
        }
        let head = after.first().map_or(before.position, |head| head.position);
        if self.is_me(before) || !self.me.position.is_between(before.position, head) {
            return Err(JoinError::NoPredecessor(before.clone()));
        }
        // A list with room left goes round the circle, to the node whose list it is.
        self.successors = self.cut(after.into_iter().chain([before]));
        self.predecessor = Some(before.clone());
        self.standing = Standing::Member;
        Ok(self.neighbours())
    }

    /// Begins to leave. Returns the nodes to send the own [`State`] to, so that they close the gap.
    pub fn leave(&mut self) -> Vec<Contact> {
        self.standing = Standing::Leaving;
        self.neighbours()
    }

    /// The node to ask for its [`State`] when it is time to stabilise: the closest successor. With
    /// no successor left the predecessor is the closest; if there is none either, the node is
    /// alone.
    pub fn head(&self) -> Option<&Contact> {
        self.successors.first().or(self.predecessor.as_ref())
    }

    /// A hint names a node: it may be a closer successor than the present one. If so, it should be
    /// asked for its [`State`].
    pub fn consider(&self, candidate: &Contact) -> bool {
        self.standing != Standing::Joining && self.is_closer(candidate)
    }

    /// A node answered with its [`State`], whatever the reason for the question.
    ///
    /// The list of the closest successor is taken over, and that of a node which is closer. Then
    /// its predecessor is asked if that is closer still; otherwise it is notified of this node.
    pub fn answered(&mut self, state: &State) -> Next {
        if self.standing == Standing::Joining || self.is_me(&state.node) {
            return Next::Rest;
        }
        if state.standing != Standing::Member {
            return self.departed(state);
        }
        self.refresh(&state.node);
        if self.predecessor.as_ref().is_some_and(|known| is_at(known, &state.node)) {
            self.heir = None;
        }
        let is_head = self.head().is_some_and(|head| is_at(head, &state.node));
        if !is_head && !self.is_closer(&state.node) {
            return Next::Rest;
        }
        self.adopt(state);
        match &state.predecessor {
            Some(candidate) if self.is_closer(candidate) => Next::Ask(candidate.clone()),
            _ => Next::Notify(state.node.clone()),
        }
    }

    /// A node does not answer at this address; if it has returned at another one it stays.
    pub fn dead(&mut self, node: &Contact) -> Next {
        let was_head = self.head() == Some(node);
        self.successors.retain(|known| known != node);
        self.heir.take_if(|known| known == node);
        if self.predecessor.take_if(|known| known == node).is_some() {
            self.predecessor = self.heir.take();
        }
        self.go_on_without(node, was_head)
    }

    /// A node sent its [`State`] unasked: it takes this node for its closest successor, or it is
    /// new and takes this node for its predecessor, or it is leaving.
    ///
    /// If the present predecessor has to be asked first and is dead, the sender replaces it.
    pub fn notified(&mut self, by: &State) -> Next {
        if self.standing == Standing::Joining || self.is_me(&by.node) {
            return Next::Rest;
        }
        if by.standing != Standing::Member {
            return self.departed(by);
        }
        self.refresh(&by.node);
        if self.is_closer(&by.node) {
            self.adopt(by);
        }
        self.rectify(by)
    }

    /// A node is no longer a member: it is leaving, or has restarted and has not rejoined. What it
    /// told last helps to close the gap.
    fn departed(&mut self, state: &State) -> Next {
        let gone = &state.node;
        let was_head = self.head().is_some_and(|head| is_at(head, gone));
        if let Some(index) = self.successors.iter().position(|known| is_at(known, gone)) {
            let (before, after) = (&self.successors[..index], &self.successors[index + 1..]);
            let its = self.cut(before.iter().chain(&state.successors));
            // Its last state is newer than the one before, unless it tells nothing useful.
            self.successors = if its.len() > index { its } else { [before, after].concat() };
        }
        self.heir.take_if(|known| is_at(known, gone));
        if self.predecessor.take_if(|known| is_at(known, gone)).is_some() {
            let precedes = |node: &&Contact| {
                !self.is_me(node) && gone.position.is_between(node.position, self.me.position)
            };
            let its = state.predecessor.as_ref().filter(precedes).cloned();
            self.predecessor = its.or(self.heir.take());
        }
        self.go_on_without(gone, was_head)
    }

    /// Continues stabilising after a node that was asked turned out not to be a node to follow.
    fn go_on_without(&self, node: &Contact, was_head: bool) -> Next {
        if was_head {
            return self.head().cloned().map_or(Next::Rest, Next::Ask);
        }
        match self.successors.first() {
            // The head named it as its predecessor, and will not notice unless another node
            // notifies it.
            Some(head) if self.is_closer(node) => Next::Notify(head.clone()),
            _ => Next::Rest,
        }
    }

    /// Follows a node from now on: its list replaces the present one. Merging them would keep dead
    /// nodes alive, and could order a ring wrongly for good (Zave).
    fn adopt(&mut self, state: &State) {
        self.successors = self.cut(iter::once(&state.node).chain(&state.successors));
    }

    /// Takes the sender for its predecessor if that is right.
    fn rectify(&mut self, by: &State) -> Next {
        let (candidate, me) = (&by.node, self.me.position);
        let follows = |node: &Contact| node.position.is_between(candidate.position, me);
        // A joiner notifies its predecessor too, which would otherwise take it for its own.
        if by.successors.first().is_some_and(follows) {
            return Next::Rest;
        }
        match &self.predecessor {
            Some(known)
                if !is_at(known, candidate)
                    && !candidate.position.is_between(known.position, me) =>
            {
                self.heir = Some(candidate.clone());
                Next::Ask(known.clone())
            }
            _ => {
                self.predecessor = Some(candidate.clone());
                self.heir = None;
                Next::Rest
            }
        }
    }

    /// Adopts the address by which a node calls itself.
    fn refresh(&mut self, node: &Contact) {
        for known in self.successors.iter_mut().chain(&mut self.predecessor).chain(&mut self.heir) {
            if is_at(known, node) {
                known.clone_from(node);
            }
        }
    }

    /// As many of these as a list may hold, up to the first that does not lead further away.
    fn cut<'a>(&self, nodes: impl Iterator<Item = &'a Contact>) -> Vec<Contact> {
        let mut distance = 0;
        let further = |node: &&Contact| {
            let nearer = distance;
            distance = self.me.position.distance_to(node.position);
            distance > nearer
        };
        nodes.take_while(further).take(self.max_successors).cloned().collect()
    }

    /// The first successor and the predecessor.
    fn neighbours(&self) -> Vec<Contact> {
        let mut neighbours: Vec<_> =
            self.successors.first().into_iter().chain(&self.predecessor).cloned().collect();
        neighbours.dedup_by(|a, b| is_at(a, b));
        neighbours
    }

    /// The node lies between this one and its first successor.
    fn is_closer(&self, node: &Contact) -> bool {
        let me = self.me.position;
        let end = self.successors.first().map_or(me, |head| head.position);
        node.position.is_between(me, end)
    }

    fn is_me(&self, node: &Contact) -> bool {
        is_at(&self.me, node)
    }
}

/// Both are at the same position: they are the same node, perhaps at two addresses.
fn is_at(a: &Contact, b: &Contact) -> bool {
    a.position == b.position
}
