//! Rings of many nodes whose tables are perfect, and what lookups cost in them.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
};

use rand::{Rng, RngExt as _, SeedableRng as _, rngs::StdRng, seq::index};
use uuid::Uuid;

use crate::ring::{
    Bits, Census, Contact, FingerBase, Fingers, Found, Lookup, LookupSettings, NodeId, Outcome,
    Position, Standing, State, View,
};

/// Milliseconds after which an ask is given up.
const TIMEOUT: u64 = 500;

/// How a ring is built.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) nodes: usize,
    pub(super) successors: usize,
    pub(super) base: FingerBase,
}

/// A ring that nobody joins or leaves.
pub(super) struct StaticRing {
    /// In the order of positions.
    nodes: Vec<Contact>,
    views: Vec<View>,
    places: HashMap<Position, usize>,
    dead: Vec<bool>,
}

/// A lookup that ended.
pub(super) struct Run {
    pub(super) outcome: Outcome,
}

pub(super) fn random_node(rng: &mut impl Rng) -> Contact {
    let id = NodeId::new(Uuid::from_u128(rng.random()));
    Contact { position: Position::of_node(id, 0), id, address: Arc::from("node:7073") }
}

impl StaticRing {
    pub(super) fn random(shape: Shape, rng: &mut impl Rng) -> Self {
        Self::new((0..shape.nodes).map(|_| random_node(rng)).collect(), Bits::FULL, shape)
    }

    pub(super) fn new(mut nodes: Vec<Contact>, bits: Bits, shape: Shape) -> Self {
        nodes.sort();
        let census = Census::new(nodes.iter().cloned());
        let view = |place: usize| {
            let around = nodes.iter().cycle().skip(place + 1);
            let me = nodes[place].clone();
            let mut fingers = Fingers::new(me.position, bits, shape.base);
            fingers.fill_from(&census);
            let state = State {
                node: me,
                standing: Standing::Member,
                predecessor: nodes.iter().cycle().nth(place + nodes.len() - 1).cloned(),
                successors: around.take(shape.successors.min(nodes.len() - 1)).cloned().collect(),
            };
            View { state, fingers: Arc::new(fingers), census: None }
        };
        let views = (0..nodes.len()).map(view).collect();
        let places = nodes.iter().enumerate().map(|(place, node)| (node.position, place)).collect();
        let dead = vec![false; nodes.len()];
        Self { nodes, views, places, dead }
    }

    /// So many die at once; nobody has noticed.
    pub(super) fn fail(&mut self, count: usize, rng: &mut impl Rng) {
        index::sample(rng, self.nodes.len(), count)
            .iter()
            .for_each(|place| self.dead[place] = true);
    }

    pub(super) fn random_alive(&self, rng: &mut impl Rng) -> usize {
        loop {
            let place = rng.random_range(0..self.nodes.len());
            if !self.dead[place] {
                return place;
            }
        }
    }

    /// The closest successor that lives.
    pub(super) fn owner_of(&self, key: Position) -> &Contact {
        let first = self.nodes.partition_point(|node| node.position < key);
        let around = (0..self.nodes.len()).map(|step| (first + step) % self.nodes.len());
        &self.nodes[around.into_iter().find(|place| !self.dead[*place]).expect("one lives")]
    }

    /// The answer of a node, if it lives.
    fn ask(&self, node: &Contact, key: Position) -> Option<Found> {
        let place = self.places.get(&node.position).filter(|place| !self.dead[**place])?;
        Some(self.views[*place].find_successor(key))
    }

    /// Runs a lookup. Answers take from 10 to 100 ms, silence [`TIMEOUT`].
    pub(super) fn look_up(
        &self,
        from: usize,
        key: Position,
        settings: LookupSettings,
        rng: &mut impl Rng,
    ) -> Run {
        let mut lookup = Lookup::new(key, &self.views[from].find_for_lookup(key), settings);
        let mut now = 0;
        let mut events = BinaryHeap::new();
        loop {
            if let Some(outcome) = lookup.outcome() {
                let outcome = outcome.clone().unwrap_or_else(|failure| panic!("{key}: {failure}"));
                return Run { outcome };
            }
            for node in lookup.next_asks() {
                let answer = self.ask(&node, key);
                let takes = answer.as_ref().map_or(TIMEOUT, |_| rng.random_range(10..=100));
                events.push(Reverse((now + takes, node)));
            }
            let Reverse((at, node)) = events.pop().expect("a lookup waits for somebody or ends");
            now = at;
            match self.ask(&node, key) {
                Some(found) => lookup.answered(&node, &found),
                None => lookup.failed(&node),
            }
        }
    }
}

#[test]
fn lookups_go_round_half_of_a_ring_that_failed_at_once() {
    let shape = Shape { nodes: 1_000, successors: 20, base: FingerBase::Sixteen };
    let mut rng = StdRng::seed_from_u64(1);
    let (mut timeouts, lookups) = (0, 2_000);
    for _ in 0..10 {
        let mut ring = StaticRing::random(shape, &mut rng);
        ring.fail(shape.nodes / 2, &mut rng);
        for _ in 0..lookups / 10 {
            let key = Position::from_u128(rng.random());
            let from = ring.random_alive(&mut rng);
            let run = ring.look_up(from, key, LookupSettings::default(), &mut rng);
            assert_eq!(run.outcome.owner, *ring.owner_of(key));
            timeouts += run.outcome.timeouts;
        }
    }
    println!("timeouts: {timeouts} of {lookups}");
}
