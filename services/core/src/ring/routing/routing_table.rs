//! The routing table of a node at one moment, and its answers to lookups.

use std::sync::Arc;

use super::{Fingers, LiveNodes};
use crate::ring::{Contact, Found, KeyRange, Position, Standing, State};

/// The routing table of a node. It is immutable: handlers of calls read it while the owner of the
/// state prepares the next one.
#[derive(Clone, Debug)]
pub struct RoutingTable {
    /// The node, its standing, its predecessor and its successors.
    pub state: State,
    /// Its fingers.
    pub fingers: Arc<Fingers>,
    /// The live nodes by the membership, if that is used as a hint.
    pub live_nodes: Option<LiveNodes>,
}

impl RoutingTable {
    /// Nodes named in [`Found::closer`].
    pub const MAX_CLOSER: usize = 8;
    /// Of these, the closest ones by the membership. More would displace the fingers, which are
    /// maintained better: the membership may name many nodes that died together.
    const MAX_HINTS: usize = 3;
    /// Nodes after and before it that a position's owner names: a lookup ends with its answer; only
    /// a joining node continues, to the live node before it.
    const MAX_NAMED_BY_OWNER: usize = 3;

    /// The answer to another node about a position's closest successor:
    /// [`RoutingTable::MAX_CLOSER`] nodes to ask next.
    ///
    /// Only a member should be asked: a node that joins or leaves names others, but serves nothing.
    pub fn find_successor(&self, position: Position) -> Found {
        self.find(position, Self::MAX_CLOSER)
    }

    /// What this node knows about a position's closest successor, to begin a lookup with: all nodes
    /// that it may ask next.
    pub fn find_for_lookup(&self, position: Position) -> Found {
        self.find(position, usize::MAX)
    }

    fn find(&self, position: Position, max_closer: usize) -> Found {
        let State { node, successors, .. } = &self.state;
        let within = self.is_mine(position);
        let owns = within && self.is_member();
        let (successors, max_closer) = if owns {
            let max = Self::MAX_NAMED_BY_OWNER;
            ([node].into_iter().chain(successors).take(max).cloned().collect(), max)
        } else if within {
            (successors.clone(), max_closer)
        } else {
            (self.successors_of(position), max_closer)
        };
        let beyond = !within && successors.is_empty();
        Found {
            node: node.clone(),
            owns,
            successors,
            closer: self.closer_to(position, beyond, max_closer),
        }
    }

    fn is_member(&self) -> bool {
        self.state.standing == Standing::Member
    }

    /// This node is the first at or after the position, whether it still serves it or not.
    fn is_mine(&self, position: Position) -> bool {
        let State { node, standing, predecessor, successors } = &self.state;
        let last = node.position;
        match predecessor {
            _ if *standing == Standing::Joining => false,
            Some(predecessor) => KeyRange { after: predecessor.position, last }.contains(position),
            None => successors.is_empty() || position == last,
        }
    }

    /// The part of the successor list at or after a position that is not this node's, if the list
    /// reaches it.
    fn successors_of(&self, position: Position) -> Vec<Contact> {
        let State { node: me, standing, predecessor, successors } = &self.state;
        let distance = |to: Position| me.position.distance_to(to);
        let at_or_after = |node: &&Contact| distance(node.position) >= distance(position);
        if *standing == Standing::Joining || position == me.position {
            return Vec::new();
        }
        let mut found: Vec<_> = successors.iter().filter(at_or_after).cloned().collect();
        let goes_round = predecessor.as_ref().is_some_and(|predecessor| {
            successors.last().is_some_and(|last| last.position == predecessor.position)
        });
        if goes_round && !found.is_empty() && self.is_member() {
            found.push(me.clone());
        }
        found
    }

    /// Nodes between this one and the position, closest first; with those at or after it that
    /// belong to them, if the position lies beyond what this node serves.
    fn closer_to(&self, position: Position, beyond: bool, max: usize) -> Vec<Contact> {
        let State { node: me, predecessor, successors, .. } = &self.state;
        let is_between = |node: &&Contact| node.position.is_between(me.position, position);
        let live_nodes = self.live_nodes.as_ref().filter(|_| beyond);
        let hints = live_nodes.into_iter().flat_map(|live_nodes| live_nodes.preceding(position));
        let mut closer: Vec<_> = self
            .fingers
            .closest_preceding(position)
            .take(max)
            .chain(successors.iter().filter(is_between))
            .chain(hints.take(Self::MAX_HINTS).filter(is_between))
            .chain(predecessor.iter().filter(is_between))
            .collect();
        closer.sort_by_key(|node| node.position.distance_to(position));
        closer.dedup_by_key(|node| node.position);

        let owner = live_nodes.and_then(|live_nodes| live_nodes.owner_of(position));
        let owner = owner.filter(|owner| owner.position != me.position);
        let last = predecessor.as_ref().filter(|_| beyond);
        let ends = usize::from(owner.is_some()) + usize::from(last.is_some());
        let closer = spread(&closer, max - ends);
        owner.into_iter().chain(closer).chain(last).cloned().collect()
    }
}

/// This many of the nodes, most promising first: the first half, and a sample of the others,
/// because neighbouring nodes may have died together.
fn spread<'a>(nodes: &[&'a Contact], max: usize) -> Vec<&'a Contact> {
    if nodes.len() <= max {
        return nodes.to_vec();
    }
    let (near, far) = nodes.split_at(max.div_ceil(2));
    let others = max - near.len();
    let some = (0..others).map(|index| &far[index * far.len() / others]);
    near.iter().chain(some).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::{
        FingerBase,
        testing::{FOUR, four, node, numbers},
    };

    const TEXTBOOK: [u128; 8] = [1, 3, 4, 5, 8, 10, 12, 15];

    /// A member of the textbook's ring at 8, with a list of two.
    fn eight() -> RoutingTable {
        let mut fingers = Fingers::new(four(8), FOUR, FingerBase::Two);
        fingers.fill_from(&LiveNodes::new(TEXTBOOK.map(node)));
        let state = State {
            node: node(8),
            standing: Standing::Member,
            predecessor: Some(node(5)),
            successors: vec![node(10), node(12)],
        };
        RoutingTable { state, fingers: Arc::new(fingers), live_nodes: None }
    }

    fn answer(table: &RoutingTable, position: u128) -> (bool, Vec<u128>, Vec<u128>) {
        let found = table.find_successor(four(position));
        assert_eq!(found.node, table.state.node);
        (found.owns, numbers(&found.successors), numbers(&found.closer))
    }

    #[test]
    fn a_member_owns_what_lies_after_its_predecessor_up_to_itself() {
        for position in [6, 7, 8] {
            assert_eq!(answer(&eight(), position), (true, vec![8, 10, 12], vec![5, 1, 12]));
        }
    }

    #[test]
    fn within_its_list_it_names_those_from_the_position_on() {
        assert_eq!(answer(&eight(), 9), (false, vec![10, 12], vec![]));
        assert_eq!(answer(&eight(), 10), (false, vec![10, 12], vec![]));
        assert_eq!(answer(&eight(), 11), (false, vec![12], vec![10]));
    }

    #[test]
    fn beyond_it_names_the_closest_before_the_position_and_last_its_predecessor() {
        assert_eq!(answer(&eight(), 2), (false, vec![], vec![1, 12, 10, 5]));
        // Its predecessor is both: the closest before the position, and the way back.
        let mut table = eight();
        table.state.predecessor = Some(node(4));
        assert_eq!(answer(&table, 4), (false, vec![], vec![1, 12, 10, 4]));
    }

    #[test]
    fn with_the_membership_as_a_hint_the_owner_comes_first() {
        let mut table = eight();
        table.live_nodes = Some(LiveNodes::new(TEXTBOOK.map(node)));
        assert_eq!(answer(&table, 2), (false, vec![], vec![3, 1, 15, 12, 10, 5]));
        assert_eq!(answer(&table, 11), (false, vec![12], vec![10]), "the list knows better");
        table.live_nodes = Some(LiveNodes::new([8, 10].map(node)));
        assert_eq!(answer(&table, 2), (false, vec![], vec![1, 12, 10, 5]));
    }

    #[test]
    fn no_more_than_eight_are_named_and_not_only_the_closest() {
        let mut table = eight();
        let all: LiveNodes = LiveNodes::new((0..16).map(node));
        let mut fingers = Fingers::new(four(8), FOUR, FingerBase::Sixteen);
        fingers.fill_from(&all);
        table.fingers = Arc::new(fingers);
        table.live_nodes = Some(all);
        assert_eq!(answer(&table, 5).2, [5, 4, 3, 2, 1, 15, 13, 5]);
    }

    #[test]
    fn a_member_that_knows_nobody_owns_everything() {
        let mut table = eight();
        table.fingers = Arc::new(Fingers::new(four(8), FOUR, FingerBase::Two));
        table.state.predecessor = None;
        table.state.successors.clear();
        assert_eq!(answer(&table, 3), (true, vec![8], vec![]));
        table.state.standing = Standing::Joining;
        assert_eq!(answer(&table, 3), (false, vec![], vec![]));
    }

    #[test]
    fn without_a_predecessor_it_owns_only_its_own_position() {
        let mut table = eight();
        table.state.predecessor = None;
        assert!(!answer(&table, 7).0);
        assert!(answer(&table, 8).0);
    }

    #[test]
    fn a_list_that_covers_the_whole_circle_ends_with_the_node_itself() {
        let mut table = eight();
        table.state.predecessor = Some(node(12));
        assert_eq!(answer(&table, 11), (false, vec![12, 8], vec![10]));
        assert_eq!(answer(&table, 13), (true, vec![8, 10, 12], vec![12, 10]));
    }

    #[test]
    fn a_node_that_leaves_names_those_after_it_for_its_own_positions() {
        let mut table = eight();
        table.state.standing = Standing::Leaving;
        assert_eq!(answer(&table, 7), (false, vec![10, 12], vec![5, 1, 12, 10]));
        table.state.predecessor = Some(node(12));
        assert_eq!(answer(&table, 11), (false, vec![12], vec![10]));
    }
}
