//! Clusters for tests, the simulator, the lab and the benches.

pub mod chaos;
pub mod cluster;
pub mod collector;
pub mod compose;
pub mod daemon;
pub mod demo;
pub mod files;
pub mod fleet;
pub mod hostile;
pub mod interrupt;
pub mod kube;
pub mod lab;
pub mod metrics;
pub mod network;
pub mod process;
pub mod ring;
pub mod serve;
pub mod sim;
pub mod villain;
