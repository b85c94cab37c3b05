//! The gRPC services of a ring node.

mod dht;
mod operation;
mod replica;
mod status;

pub(crate) use dht::Dht;
pub(crate) use replica::Replica;
