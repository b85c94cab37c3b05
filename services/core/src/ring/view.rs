//! What a node knows of the ring at one moment, and how it answers from that.

use std::sync::Arc;

use super::{Census, Contact, Fingers, Found, KeyRange, Position, Standing, State};

/// What a node knows of the ring. It never changes: those who answer calls read it while the owner
/// of the state prepares the next one.
#[derive(Clone, Debug)]
pub struct View {
    /// The node, its standing, its predecessor and its successors.
    pub state: State,
    /// Its shortcuts.
    pub fingers: Arc<Fingers>,
    /// Everybody who lives by the roll, if that is used as a hint.
    pub census: Option<Census>,
}

impl View {
    /// Nodes named in [`Found::closer`].
    pub const MAX_CLOSER: usize = 8;
    /// Of these, the closest by the roll. More would crowd out the fingers, which are looked after
    /// better: the roll may name many that died together.
    const MAX_HINTS: usize = 3;
    /// Nodes after it, and before it, that a position's owner names: a lookup is over with its answer,
    /// and only who joins goes on, to the live node before it.
    const MAX_NAMED_BY_OWNER: usize = 3;

    /// What it tells another node of a position's closest successor: [`View::MAX_CLOSER`] nodes to
    /// ask next.
    ///
    /// Only a member should be asked: one that joins or leaves names others, but answers for nothing.
    pub fn find_successor(&self, position: Position) -> Found {
        self.find(position, Self::MAX_CLOSER)
    }

    /// What it knows itself of a position's closest successor, to begin a lookup with: whomever it
    /// may ask next.
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

    /// This node is the first at or after the position, whether it still answers for it or not.
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

    /// Nodes between this one and the position, closest first; with those at or after it that stand
    /// with them, if it lies beyond what this node answers for.
    fn closer_to(&self, position: Position, beyond: bool, max: usize) -> Vec<Contact> {
        let State { node: me, predecessor, successors, .. } = &self.state;
        let is_between = |node: &&Contact| node.position.is_between(me.position, position);
        let census = self.census.as_ref().filter(|_| beyond);
        let hints = census.into_iter().flat_map(|census| census.preceding(position));
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

        let owner = census.and_then(|census| census.owner_of(position));
        let owner = owner.filter(|owner| owner.position != me.position);
        let last = predecessor.as_ref().filter(|_| beyond);
        let ends = usize::from(owner.is_some()) + usize::from(last.is_some());
        let closer = spread(&closer, max - ends);
        owner.into_iter().chain(closer).chain(last).cloned().collect()
    }
}

/// So many of the nodes, most promising first: the first half, and some of all the others, as those next
/// to each other may have died together.
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
    fn eight() -> View {
        let mut fingers = Fingers::new(four(8), FOUR, FingerBase::Two);
        fingers.fill_from(&Census::new(TEXTBOOK.map(node)));
        let state = State {
            node: node(8),
            standing: Standing::Member,
            predecessor: Some(node(5)),
            successors: vec![node(10), node(12)],
        };
        View { state, fingers: Arc::new(fingers), census: None }
    }

    fn answer(view: &View, position: u128) -> (bool, Vec<u128>, Vec<u128>) {
        let found = view.find_successor(four(position));
        assert_eq!(found.node, view.state.node);
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
        let mut view = eight();
        view.state.predecessor = Some(node(4));
        assert_eq!(answer(&view, 4), (false, vec![], vec![1, 12, 10, 4]));
    }

    #[test]
    fn with_the_roll_as_a_hint_the_owner_comes_first() {
        let mut view = eight();
        view.census = Some(Census::new(TEXTBOOK.map(node)));
        assert_eq!(answer(&view, 2), (false, vec![], vec![3, 1, 15, 12, 10, 5]));
        assert_eq!(answer(&view, 11), (false, vec![12], vec![10]), "the list knows better");
        view.census = Some(Census::new([8, 10].map(node)));
        assert_eq!(answer(&view, 2), (false, vec![], vec![1, 12, 10, 5]));
    }

    #[test]
    fn no_more_than_eight_are_named_and_not_only_the_closest() {
        let mut view = eight();
        let all: Census = Census::new((0..16).map(node));
        let mut fingers = Fingers::new(four(8), FOUR, FingerBase::Sixteen);
        fingers.fill_from(&all);
        view.fingers = Arc::new(fingers);
        view.census = Some(all);
        assert_eq!(answer(&view, 5).2, [5, 4, 3, 2, 1, 15, 13, 5]);
    }

    #[test]
    fn a_member_that_knows_nobody_owns_everything() {
        let mut view = eight();
        view.fingers = Arc::new(Fingers::new(four(8), FOUR, FingerBase::Two));
        view.state.predecessor = None;
        view.state.successors.clear();
        assert_eq!(answer(&view, 3), (true, vec![8], vec![]));
        view.state.standing = Standing::Joining;
        assert_eq!(answer(&view, 3), (false, vec![], vec![]));
    }

    #[test]
    fn without_a_predecessor_it_owns_only_its_own_position() {
        let mut view = eight();
        view.state.predecessor = None;
        assert!(!answer(&view, 7).0);
        assert!(answer(&view, 8).0);
    }

    #[test]
    fn a_list_that_goes_all_the_way_round_ends_with_the_node_itself() {
        let mut view = eight();
        view.state.predecessor = Some(node(12));
        assert_eq!(answer(&view, 11), (false, vec![12, 8], vec![10]));
        assert_eq!(answer(&view, 13), (true, vec![8, 10, 12], vec![12, 10]));
    }

    #[test]
    fn a_node_that_leaves_names_those_after_it_for_its_own_positions() {
        let mut view = eight();
        view.state.standing = Standing::Leaving;
        assert_eq!(answer(&view, 7), (false, vec![10, 12], vec![5, 1, 12, 10]));
        view.state.predecessor = Some(node(12));
        assert_eq!(answer(&view, 11), (false, vec![12], vec![10]));
    }
}
