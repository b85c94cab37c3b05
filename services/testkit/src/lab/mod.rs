//! The lab: the shipped binaries on shaped links, compared with the textbook's bound.
//!
//! Each host is a network namespace connected to a bridge. `tc tbf` shapes its uplink at the host
//! and its downlink at the bridge. Every engine on such links can be compared with the same lower
//! bound, max{ F/us, F/dmin, N*F/(us + sum ui) }.

mod leftovers;
mod processors;
mod report;
mod run;
mod setup;
mod table;

pub use crate::network::check_requirements;
pub use leftovers::remove as remove_leftovers;
pub use report::{Measurement, Summary};
pub use run::measure;
pub use setup::{Late, LinkRate, PublisherFate, Setup};
pub use table::{repeat, table};

/// The prefix of the names of namespaces and folders. The process id and a dash follow.
const PREFIX: &str = "shoal-lab-";
