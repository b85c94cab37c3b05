//! What all services of shoal share: settings, telemetry, gRPC servers and channels, health,
//! shutdown.

pub mod clock;
pub mod command_line;
mod discovery;
mod grpc;
mod runtime;
pub mod setting;
pub mod text;
pub mod units;

pub use discovery::{advertised, announced, dns, ring_client, trackers};
pub use grpc::{channel, health, http2, server, status};
pub use runtime::{
    admin, config, durable_files, lock, memory, open_files, process, shutdown, supervisor,
    telemetry,
};

#[cfg(fuzzing)]
pub use grpc::rpc::fuzzing;
