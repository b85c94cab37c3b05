//! What every service needs to run: its settings, log and traces, its admin port, the supervision of
//! its tasks, locks, memory, files, and its end.

pub mod admin;
pub mod config;
pub mod durable_files;
#[cfg(feature = "faults")]
pub(crate) mod faults;
pub mod lock;
pub mod memory;
pub mod open_files;
pub mod process;
pub mod shutdown;
pub mod supervisor;
pub mod telemetry;
