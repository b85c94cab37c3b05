//! What all services of shoal share: settings, telemetry, gRPC servers and channels, health,
//! shutdown.

pub mod address;
pub mod admin;
pub mod advertised;
pub mod announced;
pub mod backoff;
pub mod channel;
pub mod chart;
pub mod clock;
pub mod config;
#[cfg(feature = "faults")]
mod faults;
pub mod health;
pub mod http2;
pub mod lock;
pub mod memory;
pub mod names;
pub mod process;
pub mod ring;
mod rpc;
pub mod server;
pub mod shutdown;
pub mod status;
pub mod supervisor;
pub mod telemetry;
pub mod text;
pub mod units;

pub use address::Address;
#[cfg(fuzzing)]
pub use rpc::fuzzing;
