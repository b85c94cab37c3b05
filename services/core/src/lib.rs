//! The protocol state machines of shoal, without I/O, clock or global randomness.
//!
//! Time and a seeded random number generator are parameters, so the same code runs in production
//! and in the deterministic simulator.

pub mod address;
pub mod backoff;
pub mod bound;
pub mod content;
mod identity;
pub mod peer_id;
pub mod peer_list;
pub mod registry;
pub mod ring;
pub mod swarm;

pub use address::Address;
pub use peer_id::PeerId;
