//! Rings of many nodes with perfect tables, and the cost of lookups in them.

use std::{collections::HashMap, net::SocketAddr, ops::AddAssign, sync::Arc};

use rand::{Rng, RngExt as _, seq::index};
use shoal_core::{
    Address,
    ring::{
        Bits, Contact, FingerBase, Fingers, Found, LiveNodes, Lookup, LookupFailure,
        LookupSettings, NodeId, Outcome, Position, RoutingTable, Standing, State,
    },
};
use uuid::Uuid;

use crate::sim::queue::Queue;

/// An answer takes 10 to 100 ms, is late after 500 ms, and is given up after 2,000 ms. All in ms.
const ANSWERS_TAKE: std::ops::RangeInclusive<u64> = 10..=100;
const LATE: u64 = 500;
const TIMEOUT: u64 = 2_000;

/// The result of a question to a node.
enum Event {
    Answer(Found),
    Late,
    Failure,
}

/// The size and tables of a ring.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Number of nodes.
    pub nodes: usize,
    /// Length of each node's successor list.
    pub successors: usize,
    /// The spacing of the fingers.
    pub base: FingerBase,
}

impl Shape {
    /// A ring of `nodes` nodes with shoal's tables: fingers to the base 16, and a successor list
    /// that survives the failure of half of the nodes.
    pub const fn of(nodes: usize) -> Self {
        let successors = 2 * nodes.next_power_of_two().ilog2() as usize;
        Self { nodes, successors, base: FingerBase::Sixteen }
    }

    /// The ring of the Chord paper, with one successor.
    pub const fn classic(nodes: usize) -> Self {
        Self { nodes, successors: 1, base: FingerBase::Two }
    }
}

/// A ring without joins, leaves and repairs.
#[derive(Debug)]
pub struct StillRing {
    /// In the order of their positions.
    nodes: Vec<Contact>,
    tables: Vec<RoutingTable>,
    indexes: HashMap<Position, usize>,
    dead: Vec<bool>,
}

/// The total cost of some lookups.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// Number of lookups.
    pub lookups: usize,
    /// Lookups that found no node.
    pub failures: usize,
    /// Lookups that found another node than the owner.
    pub wrong: usize,
    /// Steps to the owners' predecessors.
    pub hops: usize,
    /// Rounds in which no node answered.
    pub timeouts: usize,
    /// Nodes asked.
    pub asked: usize,
    /// Lookups that asked the owner first, or found it without asking any node.
    pub first_try: usize,
}

impl Sum {
    /// Mean number of hops of the lookups that found a node.
    pub fn mean_hops(&self) -> f64 {
        self.hops as f64 / (self.lookups - self.failures).max(1) as f64
    }

    /// Mean number of timeouts of the lookups that found a node.
    pub fn mean_timeouts(&self) -> f64 {
        self.timeouts as f64 / (self.lookups - self.failures).max(1) as f64
    }

    /// Mean number of nodes asked by the lookups that found a node.
    pub fn mean_asked(&self) -> f64 {
        self.asked as f64 / (self.lookups - self.failures).max(1) as f64
    }

    /// Adds a lookup.
    pub fn add(&mut self, result: &Result<Outcome, LookupFailure>, is_owner: bool) {
        self.lookups += 1;
        match result {
            Ok(outcome) => {
                self.wrong += usize::from(!is_owner);
                self.hops += outcome.hops;
                self.timeouts += outcome.timeouts;
                self.asked += outcome.asked;
            }
            Err(_) => self.failures += 1,
        }
    }
}

impl AddAssign for Sum {
    fn add_assign(&mut self, other: Self) {
        self.lookups += other.lookups;
        self.failures += other.failures;
        self.wrong += other.wrong;
        self.hops += other.hops;
        self.timeouts += other.timeouts;
        self.asked += other.asked;
        self.first_try += other.first_try;
    }
}

/// A node with a random id, at its first position.
pub(super) fn random_node(address: Address, rng: &mut impl Rng) -> Contact {
    let id = NodeId::new(Uuid::from_u128(rng.random()));
    Contact { position: Position::of_node(id, 0), id, address }
}

impl StillRing {
    /// A ring of random nodes.
    pub fn random(shape: Shape, rng: &mut impl Rng) -> Self {
        let address = Address::from(SocketAddr::from(([10, 0, 0, 1], 7071)));
        let mut nodes: Vec<_> =
            (0..shape.nodes).map(|_| random_node(address.clone(), rng)).collect();
        nodes.sort();
        let live_nodes = LiveNodes::new(nodes.iter().cloned());
        let table = |me: &Contact| {
            let mut fingers = Fingers::new(me.position, Bits::FULL, shape.base);
            fingers.fill_from(&live_nodes);
            let after = live_nodes.from(me.position.next());
            let state = State {
                node: me.clone(),
                standing: Standing::Member,
                predecessor: live_nodes.preceding(me.position).next().cloned(),
                successors: after.take(shape.successors.min(shape.nodes - 1)).cloned().collect(),
            };
            RoutingTable { state, fingers: Arc::new(fingers), live_nodes: None }
        };
        let tables = nodes.iter().map(table).collect();
        let indexes =
            nodes.iter().enumerate().map(|(index, node)| (node.position, index)).collect();
        let dead = vec![false; nodes.len()];
        Self { nodes, tables, indexes, dead }
    }

    /// Fails `count` random nodes. No node has noticed yet.
    pub fn fail(&mut self, count: usize, rng: &mut impl Rng) {
        let indexes = index::sample(rng, self.nodes.len(), count);
        indexes.iter().for_each(|index| self.dead[index] = true);
    }

    /// Looks random keys up, each from a random live node that knows of no failure.
    pub fn look_up_many(
        &self,
        lookups: usize,
        settings: &LookupSettings,
        rng: &mut impl Rng,
    ) -> Sum {
        let mut sum = Sum::default();
        for _ in 0..lookups {
            let key = Position::from_u128(rng.random());
            let (result, first_asked) = self.look_up(self.random_alive(rng), key, settings, rng);
            let owner = self.owner_of(key);
            sum.add(&result, result.as_ref().is_ok_and(|outcome| outcome.owner == *owner));
            sum.first_try += usize::from(first_asked.is_none_or(|first| first == *owner));
        }
        sum
    }

    /// Runs a lookup. Also returns the first node that it asked.
    fn look_up(
        &self,
        from: usize,
        key: Position,
        settings: &LookupSettings,
        rng: &mut impl Rng,
    ) -> (Result<Outcome, LookupFailure>, Option<Contact>) {
        let start = self.tables[from].find_for_lookup(key);
        let mut lookup = Lookup::new(key, &start, settings.clone());
        let (mut now, mut first_asked) = (0, None);
        let mut pending = Queue::default();
        loop {
            for node in lookup.next_asks() {
                first_asked.get_or_insert_with(|| node.clone());
                let (takes, event) = match self.ask(&node, key) {
                    Some(found) => (rng.random_range(ANSWERS_TAKE), Event::Answer(found)),
                    None => (LATE, Event::Late),
                };
                pending.push(now + takes, (node, event));
            }
            if let Some(outcome) = lookup.outcome() {
                return (outcome.clone(), first_asked);
            }
            let (at, (node, event)) =
                pending.pop().expect("a lookup has pending answers or has ended");
            now = at;
            match event {
                Event::Answer(found) => lookup.answered(&node, &found),
                Event::Late => {
                    lookup.late(&node);
                    pending.push(now + TIMEOUT - LATE, (node, Event::Failure));
                }
                Event::Failure => lookup.failed(&node),
            }
        }
    }

    /// The answer of a node, if it is alive.
    fn ask(&self, node: &Contact, key: Position) -> Option<Found> {
        let index = self.indexes.get(&node.position).filter(|index| !self.dead[**index])?;
        Some(self.tables[*index].find_successor(key))
    }

    fn random_alive(&self, rng: &mut impl Rng) -> usize {
        loop {
            let index = rng.random_range(0..self.nodes.len());
            if !self.dead[index] {
                return index;
            }
        }
    }

    /// The closest successor that is alive.
    fn owner_of(&self, key: Position) -> &Contact {
        let first = self.nodes.partition_point(|node| node.position < key);
        let mut around = (first..self.nodes.len()).chain(0..first);
        &self.nodes[around.find(|index| !self.dead[*index]).expect("a node is alive")]
    }
}
