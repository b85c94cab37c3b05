//! Test clusters of real processes, the simulator, the lab, the demo, the chaos test and attacks.

pub mod adversary;
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
pub mod small_disk;
