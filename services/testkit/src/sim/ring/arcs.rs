//! How evenly keys are distributed over nodes.

use rand::{RngExt as _, SeedableRng as _, rngs::Xoshiro256PlusPlus};
use shoal_core::ring::{NodeId, Position};
use uuid::Uuid;

/// The 99th percentile of the nodes' loads, divided by the mean load.
#[derive(Clone, Copy, Debug)]
pub struct KeyLoad {
    /// The load is the number of keys that a node owns.
    pub keys: f64,
    /// The load is the length of the arcs that a node owns: the limit for infinitely many keys.
    pub arcs: f64,
}

/// Distributes random keys over a ring of random nodes with `positions` positions each.
pub fn key_load(nodes: usize, positions: u32, keys: usize, seed: u64) -> KeyLoad {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut ring: Vec<(Position, usize)> = Vec::with_capacity(nodes * positions as usize);
    for node in 0..nodes {
        let id = NodeId::new(Uuid::from_u128(rng.random()));
        ring.extend((0..positions).map(|number| (Position::of_node(id, number), node)));
    }
    ring.sort_unstable();

    let mut owned = vec![0.0; nodes];
    for _ in 0..keys {
        let key = Position::from_u128(rng.random());
        let first = ring.partition_point(|(position, _)| *position < key);
        owned[ring[first % ring.len()].1] += 1.0;
    }
    let mut lengths = vec![0.0; nodes];
    let before = ring.iter().cycle().skip(ring.len() - 1);
    for ((position, node), (before, _)) in ring.iter().zip(before) {
        lengths[*node] += before.distance_to(*position) as f64;
    }
    KeyLoad { keys: percentile_99_by_mean(owned), arcs: percentile_99_by_mean(lengths) }
}

fn percentile_99_by_mean(mut loads: Vec<f64>) -> f64 {
    let mean = loads.iter().sum::<f64>() / loads.len() as f64;
    loads.sort_unstable_by(f64::total_cmp);
    loads[(loads.len() * 99).div_ceil(100) - 1] / mean
}
