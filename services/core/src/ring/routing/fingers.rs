//! Fingers: shortcuts across the ring.
//!
//! A finger is the closest successor of a position at a fixed distance, its target. With base 2 the
//! distances are the powers of two, as in the Chord paper, and each hop at least halves the
//! remaining distance; with base 16 they are the multiples d * 16^j, d from 1 to 15, and each hop
//! leaves at most a sixteenth.
//!
//! Most targets lie so near that they share a few nodes. Only distinct nodes are kept, by their
//! distance: the finger of a target is the first of them at or after it. Invariant: each node kept
//! is the finger of at least one target.

use std::{collections::BTreeMap, iter};

use super::LiveNodes;
use crate::ring::{Bits, Contact, Position};

/// How densely targets are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FingerBase {
    /// At the powers of two.
    Two,
    /// At 1 to 15 times the powers of sixteen.
    Sixteen,
}

impl FingerBase {
    /// Bits of a digit of a distance.
    const fn digit(self) -> u32 {
        match self {
            Self::Two => 1,
            Self::Sixteen => 4,
        }
    }
}

/// The fingers of one node.
#[derive(Clone, Debug)]
pub struct Fingers {
    me: Position,
    bits: Bits,
    base: FingerBase,
    /// By their distance from this node; none is at zero.
    nodes: BTreeMap<u128, Contact>,
    /// The distance of the target that was refreshed last.
    refreshed: u128,
}

impl Fingers {
    /// The fingers of the node at `me`, which knows no other.
    pub const fn new(me: Position, bits: Bits, base: FingerBase) -> Self {
        Self { me, bits, base, nodes: BTreeMap::new(), refreshed: 0 }
    }

    /// All targets, closest first.
    pub fn targets(&self) -> impl Iterator<Item = Position> {
        let distances = iter::successors(self.target_after(0), |last| self.target_after(*last));
        distances.map(|distance| self.me.advanced(distance))
    }

    /// The target whose closest successor should be looked up next: in turn, except those up to
    /// `covered`, the end of the successor list, which is more accurate.
    pub fn next_to_fix(&mut self, covered: Option<Position>) -> Option<Position> {
        let covered = covered.map_or(0, |last| self.me.distance_to(last));
        let next = self.target_after(self.refreshed.max(covered));
        self.refreshed = next.or_else(|| self.target_after(covered))?;
        Some(self.me.advanced(self.refreshed))
    }

    /// Takes a node for the closest successor of a target: no known node between them is alive.
    pub fn learn(&mut self, target: Position, node: Contact) {
        let from = self.me.distance_to(target);
        let distance = self.me.distance_to(node.position);
        if distance == 0 {
            // The target's closest successor is this very node: there is no node between.
            self.nodes.split_off(&from);
            return;
        }
        if distance < from {
            return;
        }
        let mut beyond = self.nodes.split_off(&from);
        let beyond = beyond.split_off(&distance);
        self.nodes.extend(beyond);
        self.nodes.insert(distance, node);
        self.prune(distance);
        let next = self.nodes.range(distance + 1..).next().map(|(distance, _)| *distance);
        if let Some(next) = next {
            self.prune(next);
        }
    }

    /// Forgets a node that is gone.
    pub fn forget(&mut self, node: &Contact) {
        let distance = self.me.distance_to(node.position);
        if self.nodes.get(&distance).is_some_and(|known| known.id == node.id) {
            self.nodes.remove(&distance);
        }
    }

    /// Replaces all fingers by those among the live nodes.
    pub fn fill_from(&mut self, live_nodes: &LiveNodes) {
        self.nodes.clear();
        let mut last = 0;
        while let Some(target) = self.target_after(last) {
            let Some(node) = live_nodes.owner_of(self.me.advanced(target)) else { return };
            last = self.me.distance_to(node.position);
            if last < target {
                // The circle wraps around.
                return;
            }
            self.nodes.insert(last, node.clone());
        }
    }

    /// The nodes strictly between this one and a position, closest to the position first.
    pub fn closest_preceding(&self, position: Position) -> impl Iterator<Item = &Contact> {
        // All of the circle lies between a position and itself.
        let last = self.me.distance_to(position).wrapping_sub(1);
        self.nodes.range(..=last).rev().map(|(_, node)| node)
    }

    /// All nodes, nearest clockwise first.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Contact> {
        self.nodes.values()
    }

    /// Drops a node that is no target's finger: no target lies after the one before it.
    fn prune(&mut self, distance: u128) {
        let before = self.nodes.range(..distance).next_back().map_or(0, |(distance, _)| *distance);
        if self.target_after(before).is_none_or(|target| target > distance) {
            self.nodes.remove(&distance);
        }
    }

    /// The distance of the first target that is farther than `distance`.
    fn target_after(&self, distance: u128) -> Option<u128> {
        let unused = 128 - u32::from(self.bits.count());
        let steps = distance >> unused;
        let Some(top_bit) = steps.checked_ilog2() else { return Some(1 << unused) };
        let digit = self.base.digit();
        let unit = 1 << (top_bit / digit * digit);
        // One more unit of the top digit; after the last digit this is the first of the next higher
        // one.
        let next = (steps / unit + 1).checked_mul(unit)?;
        (next.leading_zeros() >= unused).then_some(next << unused)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::btree_set, prelude::*, sample::select};

    use super::*;
    use crate::ring::testing::{FOUR, four, node, node_at, numbers};

    fn fingers(me: u128, base: FingerBase, others: &[u128]) -> Fingers {
        let mut fingers = Fingers::new(four(me), FOUR, base);
        fingers.fill_from(&LiveNodes::new(others.iter().copied().map(node)));
        fingers
    }

    fn fixed(fingers: &mut Fingers, covered: Option<u128>, times: usize) -> Vec<u128> {
        let next = |_| fingers.next_to_fix(covered.map(four)).expect("there are targets");
        (0..times).map(next).map(|target| FOUR.value(target)).collect()
    }

    #[test]
    fn fingers_are_the_closest_successors_of_powers_of_two() {
        let others = [1, 3, 4, 5, 8, 10, 12, 15];
        assert_eq!(numbers(fingers(1, FingerBase::Two, &others).nodes()), [3, 5, 10]);
        assert_eq!(numbers(fingers(12, FingerBase::Two, &others).nodes()), [15, 1, 4]);
        let all = fingers(1, FingerBase::Sixteen, &others);
        assert_eq!(numbers(all.nodes()), [3, 4, 5, 8, 10, 12, 15]);
    }

    #[test]
    fn the_closest_before_a_position_comes_first() {
        let fingers = fingers(12, FingerBase::Two, &[15, 1, 4]);
        assert_eq!(numbers(fingers.closest_preceding(four(4))), [1, 15]);
        assert_eq!(numbers(fingers.closest_preceding(four(13))), [0; 0]);
        assert_eq!(numbers(fingers.closest_preceding(four(12))), [4, 1, 15]);
    }

    #[test]
    fn each_target_beyond_the_successor_list_is_refreshed_in_turn() {
        let mut fingers = fingers(12, FingerBase::Two, &[]);
        assert_eq!(fixed(&mut fingers, None, 5), [13, 14, 0, 4, 13]);
        assert_eq!(fixed(&mut fingers, Some(14), 3), [0, 4, 0]);
        assert_eq!(fingers.next_to_fix(Some(four(11))), None);
    }

    #[test]
    fn nodes_between_a_target_and_its_closest_successor_are_dropped() {
        let mut fingers = fingers(0, FingerBase::Two, &[4, 9]);
        fingers.learn(four(2), node(5));
        assert_eq!(numbers(fingers.nodes()), [5, 9]);
        fingers.learn(four(8), node(0));
        assert_eq!(numbers(fingers.nodes()), [5]);
    }

    #[test]
    fn a_node_that_is_the_finger_of_no_target_is_dropped() {
        let mut fingers = fingers(0, FingerBase::Two, &[7]);
        fingers.learn(four(4), node(6));
        assert_eq!(numbers(fingers.nodes()), [6]);
    }

    #[test]
    fn the_next_one_takes_the_place_of_a_node_that_is_gone() {
        let mut fingers = fingers(0, FingerBase::Two, &[5, 9]);
        let namesake = Contact { id: node(1).id, ..node(5) };
        fingers.forget(&namesake);
        assert_eq!(numbers(fingers.nodes()), [5, 9]);
        fingers.forget(&node(5));
        assert_eq!(numbers(fingers.nodes()), [9]);
    }

    /// The definition: for each target, the closest successor of all nodes, including this one.
    fn naive(me: Position, base: FingerBase, others: &[Position]) -> BTreeSet<Position> {
        let targets = (0..128).flat_map(|bit| match base {
            FingerBase::Two => vec![1_u128 << bit],
            FingerBase::Sixteen if bit % 4 == 0 => (1..16).map(|digit| digit << bit).collect(),
            FingerBase::Sixteen => Vec::new(),
        });
        let all = || others.iter().copied().chain([me]);
        let closest = |target: Position| all().min_by_key(|node| target.distance_to(*node));
        targets.filter_map(|t| closest(me.advanced(t))).filter(|node| *node != me).collect()
    }

    fn positions() -> impl Strategy<Value = BTreeSet<u128>> {
        // Some near each other, most far apart.
        btree_set(
            prop_oneof![any::<u128>(), 0..40_u128, (0..128_u32).prop_map(|bit| 1 << bit)],
            1..40,
        )
    }

    proptest! {
        #[test]
        fn fingers_match_their_definition_however_they_were_learnt(
            me: u128, places in positions(), base in select(vec![FingerBase::Two, FingerBase::Sixteen])
        ) {
            let me = Position::from_u128(me);
            let others: Vec<_> = places.into_iter().map(|distance| me.advanced(distance)).filter(|p| *p != me).collect();
            let live_nodes = LiveNodes::new(others.iter().copied().chain([me]).map(node_at));
            let mut filled = Fingers::new(me, Bits::FULL, base);
            filled.fill_from(&live_nodes);
            let expected = naive(me, base, &others);
            prop_assert_eq!(filled.nodes().map(|node| node.position).collect::<BTreeSet<_>>(), expected.clone());

            let mut learnt = Fingers::new(me, Bits::FULL, base);
            for target in filled.targets() {
                learnt.learn(target, live_nodes.owner_of(target).expect("nobody is alone").clone());
            }
            prop_assert_eq!(learnt.nodes().map(|node| node.position).collect::<BTreeSet<_>>(), expected);
        }

        #[test]
        fn every_known_node_is_the_finger_of_some_target(
            base in select(vec![FingerBase::Two, FingerBase::Sixteen]),
            events in proptest::collection::vec((0..16_u128, 0..16_u128, any::<bool>()), 0..40),
        ) {
            let mut fingers = Fingers::new(four(0), FOUR, base);
            for (target, number, gone) in events {
                if gone { fingers.forget(&node(number)); } else { fingers.learn(four(target), node(number)); }
                let kept: Vec<_> = fingers.nodes().map(|node| node.position).collect();
                let naive: BTreeSet<_> = fingers.targets()
                    .filter_map(|target| kept.iter().find(|node| **node >= target).copied()).collect();
                prop_assert_eq!(kept, naive.into_iter().collect::<Vec<_>>());
            }
        }
    }
}
