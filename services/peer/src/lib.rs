//! The peer service: fetches contents from the swarm, verifies every byte, and shares what it has.
//!
//! [`Node`] is a running peer. The `engine` task owns its state and asks the state machines of
//! `shoal-core` what to do; `link`, `announce`, `resolve` and `bulk` do the network I/O; `store` is
//! the disk.

mod announce;
pub mod bulk;
mod checkpoint;
mod control;
mod directory;
mod end_notice;
mod engine;
mod event;
#[cfg(fuzzing)]
pub mod fuzzing;
mod identity;
mod link;
mod lists;
mod memory;
mod node;
mod options;
mod replicate;
mod resolve;
mod rpc;
mod run;
mod settings;
mod status;
pub mod store;
mod wire;

pub use control::{ListenError, SocketError};
pub use node::{Node, NodeConfig, Running, StatusWatch, Stopped, services};
pub use options::Options;
pub use run::{RunError, run};
pub use settings::{
    Control, LimitSettings, Listed, LocationSettings, Replicate, Root, Settings, SwarmSettings,
};
pub use status::{Cause, Explanation, Failure, Neighbour, Phase, Source, Status};
