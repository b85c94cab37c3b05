//! Where others are: what names stand for, which nodes of a ring answer, and which advertised
//! addresses are accepted.

pub mod advertised;
pub mod announced;
pub mod dns;
pub mod ring_client;
pub mod trackers;
