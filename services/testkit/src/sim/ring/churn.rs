//! Lookups while nodes come and go.

use std::time::Duration;

use rand::RngExt as _;

use super::{
    network::exponential,
    still::Sum,
    world::{Setup, World},
};

/// No more than this is waited for lookups that are under way in the end, and for one ring.
const PATIENCE: Duration = Duration::from_secs(300);

/// Joins, crashes and lookups at random moments.
#[derive(Clone, Copy, Debug)]
pub struct Churn {
    /// Nodes at the start.
    pub nodes: usize,
    /// Joins a second, and as many crashes.
    pub rate: f64,
    /// Lookups to measure.
    pub lookups: usize,
    /// Lookups a second.
    pub lookups_per_s: f64,
    /// Time before the first of all this.
    pub warm_up: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct ChurnReport {
    /// The lookups.
    pub sum: Sum,
    /// How long it took until there was one ring once it was over; none if there never was.
    pub one_ring_after: Option<Duration>,
    /// Events simulated.
    pub events: u64,
}

impl Churn {
    /// Runs it.
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
