//! The lab: the shipped binaries on shaped links, against the textbook's bound.
//!
//! Each host is a network namespace joined to a bridge. `tc tbf` shapes its uplink where it leaves the
//! host, and its downlink where it leaves the bridge. Every engine that is put on such links can be
//! compared with the same least time, max{ F/us, F/dmin, N*F/(us + sum ui) }.

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

/// What the names of all that the lab makes start with; the process id and a dash follow.
const PREFIX: &str = "shoal-lab-";
