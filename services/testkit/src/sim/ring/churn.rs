//! Lookups while nodes join and crash.

use std::time::Duration;

use rand::RngExt as _;

use super::{
    network::exponential,
    still::Sum,
    world::{Setup, World},
};

/// Longest wait for one ring at the end.
const PATIENCE: Duration = Duration::from_secs(300);

/// Joins, crashes and lookups at random times.
#[derive(Clone, Copy, Debug)]
pub struct Churn {
    /// Nodes at the start.
    pub nodes: usize,
    /// Joins per second, and crashes per second.
    pub rate: f64,
    /// The number of lookups to measure.
    pub lookups: usize,
    /// Lookups per second.
    pub lookups_per_s: f64,
    /// The time before the first join, crash or lookup.
    pub warm_up: Duration,
}

/// The result of a run.
#[derive(Clone, Copy, Debug)]
pub struct ChurnReport {
    /// The lookups.
    pub sum: Sum,
    /// Time from the end of the run until the nodes formed one ring; `None` if they did not.
    pub one_ring_after: Option<Duration>,
    /// Number of simulated events.
    pub events: u64,
}

impl Churn {
    /// Runs the simulation.
    pub fn run(&self, setup: Setup) -> ChurnReport {
        let mut world = World::with_ring(setup, self.nodes);
        world.run_for(self.warm_up);
        let mut sum = Sum::default();
        let all = 2.0 * self.rate + self.lookups_per_s;
        while sum.lookups < self.lookups {
            let wait = exponential(Duration::from_secs_f64(1.0 / all), &mut world.rng);
            world.run_for(wait);
            let drawn = world.rng.random_range(0.0..all);
            if drawn < self.lookups_per_s {
                world.look_up();
            } else if drawn < self.lookups_per_s + self.rate {
                world.start();
            } else if world.up().len() > 1 {
                world.crash();
            }
            take_ended(&mut world, &mut sum);
        }
        let one_ring_after = world.run_until_one_ring(PATIENCE);
        ChurnReport { sum, one_ring_after, events: world.events() }
    }
}

fn take_ended(world: &mut World, sum: &mut Sum) {
    for ended in world.take_ended() {
        sum.add(&ended.result, ended.is_right);
        sum.first_try += usize::from(ended.is_first_try);
    }
}
