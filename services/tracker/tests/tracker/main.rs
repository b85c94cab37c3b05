//! The tracker over real sockets, and as a process.

mod metrics;
mod process;
mod rpc;
mod traces;
