//! The data plane over real sockets.

mod caps;
mod fetching;
mod harness;
mod serving;
