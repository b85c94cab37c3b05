//! A deterministic simulation of one swarm: every host runs the real brain, only hosts' links and
//! time are made up.
//!
//! The model has no TCP: a connection takes blocks while little of what it took is unsent, an uplink
//! sends one block after another, by turns among connections, a downlink drains what arrives in its
//! order, and a receiver whose downlink falls behind stops its senders. Messages take the latency.

pub mod ring;

mod event;
mod host;
mod network;
mod queue;
mod report;
mod setup;
mod shell;
mod table;
mod world;

pub use report::{Idle, Report};
pub use setup::{Fault, HostSetup, MBIT, Setup};
pub use table::{Row, rows};
pub use world::run;
