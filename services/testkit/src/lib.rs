//! Clusters for tests, the simulator, the lab and the benches.

pub mod cluster;
pub mod process;
pub mod sim;
