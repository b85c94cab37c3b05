//! Replication: which nodes hold a range, how they agree on the next ones, and which of two records
//! of a key is the newer.

mod configuration;
mod configurations;
mod leases;
mod placement;
mod replica_set;
mod version;

pub use configuration::{
    Ballot, Configuration, Proposal, Refusal, Superseding, WriteRefusal, proposals,
};
pub use configurations::Configurations;
pub use leases::{LeaderLease, LeaseExpiry, Leases};
pub use placement::replicas;
pub use replica_set::{Lineage, ReplicaSet, next_members};
pub use version::{Stamp, Version, VersionError};
