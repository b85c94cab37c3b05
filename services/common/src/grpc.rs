//! gRPC on both sides: the places that create servers and channels, the limits for strangers,
//! health, and refusals.

pub mod channel;
pub mod health;
pub mod http2;
pub(crate) mod rpc;
pub mod server;
pub mod status;
