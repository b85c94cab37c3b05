//! The tracker as its users meet it: over real sockets, and as a process.

mod metrics;
mod process;
mod rpc;
mod traces;
