//! A deterministic simulation of one swarm: every host runs the real state machine. Only the links
//! and the time are simulated.
//!
//! The model has no TCP. A connection accepts blocks while it has little unsent data, an uplink
//! sends one block at a time, in turn for its connections, a downlink receives blocks in the order
//! of their arrival, and a receiver whose downlink falls behind stops its senders. Messages take
//! the latency.

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
