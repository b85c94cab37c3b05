//! Deterministic simulations of rings from a handful to ten thousand nodes, and the tables of the
//! Chord paper measured with them.
//!
//! [`StillRing`] is a ring with perfect tables, some of whose nodes may have failed: only lookups
//! are measured. In [`World`] every node runs the real state machine over a network that delays,
//! loses and blocks messages, which tests the membership.

mod arcs;
mod calls;
mod churn;
mod network;
mod outage;
mod still;
mod tables;
mod world;

pub use arcs::{KeyLoad, key_load};
pub use churn::{Churn, ChurnReport};
pub use network::Network;
pub use outage::{mass_crash, mass_join, partition};
pub use still::{Shape, StillRing, Sum};
pub use tables::{ONE_BY_ONE, Table, lookups_in, paper_churn};
pub use world::{Ended, Setup, World};
