//! How long a ring takes to become one again.

use std::time::Duration;

use rand::seq::IndexedRandom as _;

use super::world::{Setup, World};

/// Time for a new ring to come to rest.
const WARM_UP: Duration = Duration::from_secs(10);
/// Longest wait for one ring.
const PATIENCE: Duration = Duration::from_secs(120);

/// So many nodes join a ring of `nodes` at the same moment. Returns the time until there is one ring;
/// none if there never is.
pub fn mass_join(setup: Setup, nodes: usize, joiners: usize) -> Option<Duration> {
    let mut world = World::with_ring(setup, nodes);
    world.run_for(WARM_UP);
    for _ in 0..joiners {
        world.start();
    }
    world.run_until_one_ring(PATIENCE)
}

/// So many of a ring's nodes die at the same moment.
pub fn mass_crash(setup: Setup, nodes: usize, crashes: usize) -> Option<Duration> {
    let mut world = World::with_ring(setup, nodes);
    world.run_for(WARM_UP);
    for _ in 0..crashes {
        world.crash();
    }
    world.run_until_one_ring(PATIENCE)
}

/// A ring is cut into two halves for so long, at random. Returns the time from healing to one ring.
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
