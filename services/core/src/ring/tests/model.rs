//! Every history of a small ring whose lists hold two nodes, within bounds.
//!
//! Nodes join, leave, die and stabilise at any time. Their messages arrive in any order and at any
//! later time: answers are stale, notices of dead nodes arrive, and a node that was restarted
//! receives answers to its earlier life. The number of these events is bounded, and so is the
//! number of messages in flight when a node starts something; what follows may exceed it.
//! In every state reached, faults may end and all messages in flight may be lost: the members must
//! then settle into one ring.
//!
//! This assumes, as Zave's proof does, that a member always knows a live one. A list of two and the
//! predecessor ensure that for two losses: nodes that die or leave, or lost messages, which make a
//! live node seem dead. Three losses can leave nodes that do not know each other; then each must
//! sometimes consider a node that a seed, gossip or a finger names.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Mutex, PoisonError},
};

use stateright::{Checker, Model, Property};

use super::network::{Network, Number, Seeds, contact, number, position};
use crate::ring::{Contact, Next, Standing, State};

const ORDER: &str = "lists are in order, without their owner";
const ONE_RING: &str = "members settle into one ring";

/// What is explored.
struct Histories {
    start: Network,
    /// Nodes have numbers below this.
    ids: Number,
    budget: Budget,
    max_flights: usize,
    seeds: Seeds,
    /// Whether each network seen settles: many states differ in their messages only.
    settled: Mutex<HashMap<Network, bool>>,
}

/// How often something may still happen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Budget {
    joins: u8,
    /// Nodes that leave or die, and messages that are lost.
    losses: u8,
    hints: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    network: Network,
    flights: Flights,
    budget: Budget,
}

/// Messages in flight, by their hashes: equal sets have the same order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Flights(BTreeMap<u64, Flight>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Flight {
    Question { from: Number, to: Contact, errand: Errand },
    Answer { to: Number, state: State, errand: Errand },
    Silence { to: Number, node: Contact },
    Notice { to: Number, state: State },
}

/// Why a node is asked for its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Errand {
    Join,
    Stabilise,
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    Stabilise(Number),
    Hint {
        to: Number,
        candidate: Number,
    },
    Join {
        joiner: Number,
        asked: Number,
    },
    Leave(Number),
    /// A leaving node stops.
    Go(Number),
    Die(Number),
    Arrive(Flight),
    Lose(Flight),
}

impl Flights {
    fn key(flight: &Flight) -> u64 {
        let mut hasher = DefaultHasher::new();
        flight.hash(&mut hasher);
        hasher.finish()
    }

    fn insert(&mut self, flight: Flight) {
        self.0.insert(Self::key(&flight), flight);
    }

    fn remove(&mut self, flight: &Flight) {
        self.0.remove(&Self::key(flight));
    }

    fn iter(&self) -> impl Iterator<Item = &Flight> {
        self.0.values()
    }
}

impl Flight {
    /// The node that waits for an answer.
    fn asker(&self) -> Option<Number> {
        match self {
            Self::Question { from: asker, .. }
            | Self::Answer { to: asker, .. }
            | Self::Silence { to: asker, .. } => Some(*asker),
            Self::Notice { .. } => None,
        }
    }

    fn can_be_lost(&self) -> bool {
        matches!(self, Self::Question { errand: Errand::Stabilise, .. } | Self::Notice { .. })
    }
}

impl World {
    fn waits(&self, number: Number) -> bool {
        self.flights.iter().any(|flight| flight.asker() == Some(number))
    }

    fn ask(&mut self, from: Number, to: Contact, errand: Errand) {
        self.flights.insert(Flight::Question { from, to, errand });
    }

    fn notify(&mut self, from: Number, to: &Contact) {
        let state = self.network[from].state();
        self.flights.insert(Flight::Notice { to: number(to), state });
    }

    fn follow(&mut self, number: Number, next: Next) {
        match next {
            Next::Rest => {}
            Next::Ask(node) => self.ask(number, node, Errand::Stabilise),
            Next::Notify(node) => self.notify(number, &node),
        }
    }

    /// A node stops, and no longer waits for answers. Its messages still arrive.
    fn stop(&mut self, number: Number) {
        self.network.fail(number);
        self.flights.0.retain(|_, flight| flight.asker() != Some(number));
    }

    fn arrive(&mut self, flight: Flight) {
        match flight {
            Flight::Question { from, to, errand } => {
                self.flights.insert(match self.network.state_of(&to) {
                    Some(state) => Flight::Answer { to: from, state, errand },
                    None => Flight::Silence { to: from, node: to },
                });
            }
            Flight::Answer { to, state, errand: Errand::Stabilise } => {
                let next = self.network[to].answered(&state);
                self.follow(to, next);
            }
            Flight::Answer { to, state, errand: Errand::Join } => {
                match self.network[to].join(&state) {
                    Ok(neighbours) => neighbours.iter().for_each(|node| self.notify(to, node)),
                    Err(_) => self.stop(to),
                }
            }
            Flight::Silence { to, .. } if self.network[to].standing() == Standing::Joining => {
                self.stop(to);
            }
            Flight::Silence { to, node } => {
                let next = self.network[to].dead(&node);
                self.follow(to, next);
            }
            Flight::Notice { to, state } => {
                if self.network.is_up(to) {
                    let next = self.network[to].notified(&state);
                    self.follow(to, next);
                }
            }
        }
    }

    fn lose(&mut self, flight: Flight) {
        if let Flight::Question { from, to, .. } = flight {
            self.flights.insert(Flight::Silence { to: from, node: to });
        }
    }

    fn is_in_order(&self) -> bool {
        self.network.nodes().all(|(number, member)| {
            let distance = |node: &Contact| position(number).distance_to(node.position);
            let distances: Vec<_> = member.successors().iter().map(distance).collect();
            !distances.contains(&0) && distances.is_sorted_by(|a, b| a < b)
        })
    }

    /// Events that no node starts.
    fn befalls(&self, actions: &mut Vec<Action>) {
        actions.extend(self.flights.iter().cloned().map(Action::Arrive));
        let members = self.network.members();
        let leaves = |number: &Number| self.network[*number].standing() == Standing::Leaving;
        let up = self.network.nodes().map(|(number, _)| number);
        actions.extend(up.filter(leaves).map(Action::Go));
        if self.budget.losses > 0 {
            let losable = self.flights.iter().filter(|flight| flight.can_be_lost());
            actions.extend(losable.cloned().map(Action::Lose));
            if members.len() > 1 {
                actions.extend(members.into_iter().map(Action::Die));
            }
        }
    }

    /// Events that nodes start.
    fn starts(&self, ids: Number, actions: &mut Vec<Action>) {
        let members = self.network.members();
        for &to in members.iter().filter(|number| !self.waits(**number)) {
            actions.push(Action::Stabilise(to));
            if self.budget.hints > 0 {
                let considers =
                    |candidate: &&Number| self.network[to].consider(&contact(**candidate));
                let hints = members.iter().filter(considers);
                actions.extend(hints.map(|&candidate| Action::Hint { to, candidate }));
            }
        }
        if self.budget.joins > 0 {
            for joiner in (0..ids).filter(|joiner| !self.network.is_up(*joiner)) {
                actions.extend(members.iter().map(|&asked| Action::Join { joiner, asked }));
            }
        }
        if self.budget.losses > 0 && members.len() > 1 {
            actions.extend(members.into_iter().map(Action::Leave));
        }
    }
}

impl Histories {
    fn settles(&self, network: &Network) -> bool {
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = settled.get(network) {
            return *known;
        }
        let mut rested = network.clone();
        let settles = rested.settle(self.seeds) && rested.shape() == rested.one_ring();
        settled.insert(network.clone(), settles);
        settles
    }
}

impl Model for Histories {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let network = self.start.clone();
        vec![World { network, flights: Flights::default(), budget: self.budget.clone() }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        world.befalls(actions);
        if world.flights.0.len() < self.max_flights {
            world.starts(self.ids, actions);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut world = world.clone();
        match action {
            Action::Stabilise(number) => {
                let head = world.network[number].head()?.clone();
                world.ask(number, head, Errand::Stabilise);
            }
            Action::Hint { to, candidate } => {
                world.budget.hints -= 1;
                world.ask(to, contact(candidate), Errand::Stabilise);
            }
            Action::Join { joiner, asked } => {
                world.budget.joins -= 1;
                world.network.start(joiner);
                world.ask(joiner, contact(asked), Errand::Join);
            }
            Action::Leave(number) => {
                world.budget.losses -= 1;
                for neighbour in world.network[number].leave() {
                    world.notify(number, &neighbour);
                }
            }
            Action::Go(number) => world.stop(number),
            Action::Die(number) => {
                world.budget.losses -= 1;
                world.stop(number);
            }
            Action::Arrive(flight) => {
                world.flights.remove(&flight);
                world.arrive(flight);
            }
            Action::Lose(flight) => {
                world.budget.losses -= 1;
                world.flights.remove(&flight);
                world.lose(flight);
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ORDER, |_, world: &World| world.is_in_order()),
            Property::always(ONE_RING, |histories: &Self, world: &World| {
                histories.settles(&world.network)
            }),
        ]
    }
}

/// Explores what can happen to a ring of the nodes 0 to `nodes`, of which others below `ids` may
/// become members, and returns whether they always settle.
fn explore(nodes: Number, ids: Number, budget: Budget, max_flights: usize, seeds: Seeds) -> bool {
    let start = Network::ring(0..nodes, 2);
    let settled = Mutex::default();
    let histories = Histories { start, ids, budget, max_flights, seeds, settled };
    let checker = histories.checker().threads(2).spawn_bfs().join();
    println!(
        "{} states, {} networks, {} steps deep",
        checker.unique_state_count(),
        checker.model().settled.lock().unwrap_or_else(PoisonError::into_inner).len(),
        checker.max_depth(),
    );
    checker.assert_no_discovery(ORDER);
    if let Some(history) = checker.discovery(ONE_RING) {
        let end = &history.last_state().network;
        println!("does not settle: {:?} after {history}", end.shape());
        return false;
    }
    true
}

#[test]
fn three_members_and_a_joiner_settle_after_a_loss_at_any_time() {
    let budget = Budget { joins: 1, losses: 1, hints: 0 };
    assert!(explore(3, 4, budget, 2, Seeds::NoneIsKnown));
}

#[test]
fn three_members_settle_after_two_losses() {
    let budget = Budget { joins: 0, losses: 2, hints: 0 };
    assert!(explore(3, 3, budget, 2, Seeds::NoneIsKnown));
}

#[test]
fn four_members_and_a_joiner_settle_after_two_losses() {
    let budget = Budget { joins: 1, losses: 2, hints: 0 };
    assert!(explore(4, 5, budget, 1, Seeds::NoneIsKnown));
}

#[test]
fn after_a_third_loss_members_may_no_longer_know_each_other() {
    let budget = Budget { joins: 0, losses: 3, hints: 0 };
    assert!(!explore(3, 3, budget, 1, Seeds::NoneIsKnown));
}

#[test]
fn after_a_third_loss_members_settle_if_they_know_a_seed() {
    let budget = Budget { joins: 1, losses: 3, hints: 0 };
    assert!(explore(3, 4, budget, 1, Seeds::OneIsKnown));
}

#[test]
fn a_hint_at_any_time_does_no_harm() {
    let budget = Budget { joins: 2, losses: 1, hints: 1 };
    assert!(explore(3, 5, budget, 1, Seeds::NoneIsKnown));
}
