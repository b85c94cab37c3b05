//! How long a ring takes to become one again after an outage.

use std::time::Duration;

use rand::seq::IndexedRandom as _;

use super::world::{Setup, World};

/// Time for a new ring to stabilise.
const WARM_UP: Duration = Duration::from_secs(10);
/// Longest wait for one ring.
const PATIENCE: Duration = Duration::from_secs(120);

/// Adds `joiners` nodes at once to a ring of `nodes`. Returns the time until there is one ring, or
/// `None` if that takes too long.
pub fn mass_join(setup: Setup, nodes: usize, joiners: usize) -> Option<Duration> {
    let mut world = World::with_ring(setup, nodes);
    world.run_for(WARM_UP);
    for _ in 0..joiners {
        world.start();
    }
    world.run_until_one_ring(PATIENCE)
}

/// Crashes `crashes` of a ring's nodes at once. Returns the same.
pub fn mass_crash(setup: Setup, nodes: usize, crashes: usize) -> Option<Duration> {
    let mut world = World::with_ring(setup, nodes);
    world.run_for(WARM_UP);
    for _ in 0..crashes {
        world.crash();
    }
    world.run_until_one_ring(PATIENCE)
}

/// Partitions a ring into two random halves for a while. Returns the time from the end of the
/// partition until there is one ring.
pub fn partition(setup: Setup, nodes: usize, cut_for: Duration) -> Option<Duration> {
    let mut world = World::with_ring(setup, nodes);
    world.run_for(WARM_UP);
    let up = world.up().to_vec();
    let half = up.sample(&mut world.rng, nodes / 2).copied().collect();
    world.cut_off(half);
    world.run_for(cut_for);
    world.cut_off([].into());
    world.run_until_one_ring(PATIENCE)
}
