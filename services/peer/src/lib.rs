//! The peer service: fetches contents from the swarm, verifies every byte, and shares what it has.
//!
//! [`Node`] is a running peer. The `engine` task owns its state and asks the state machines of
//! `shoal-core` what to do; `link`, `discovery` and `transfer` do the network I/O and report to it;
//! `store` is the disk. A `daemon` is a node with a data directory, which `control` and `replicate`
//! use.

mod checkpoint;
mod control;
mod daemon;
mod discovery;
mod end_notice;
mod engine;
#[cfg(fuzzing)]
pub mod fuzzing;
mod identity;
mod link;
mod memory;
mod node;
mod options;
mod peer_service;
mod replicate;
mod run;
mod settings;
mod status;
pub mod store;
pub mod transfer;

pub use control::{ListenError, SocketError};
pub use node::{Node, NodeConfig, Running, StatusWatch, Stopped, services};
pub use options::Options;
pub use run::{RunError, run};
pub use settings::{
    Control, LimitSettings, Listed, LocationSettings, Replicate, Root, Settings, SwarmSettings,
};
pub use status::{Cause, DiscoverySource, Explanation, Failure, Neighbour, Phase, Status};
