//! Clusters for tests, the simulator, the lab and the benches.

pub mod sim;
