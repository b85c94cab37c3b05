//! Replication: agreed replica sets, their primaries, and the values that they keep (docs/adr/0006).

pub(crate) mod anti_entropy;
pub(crate) mod indeterminate;
pub(crate) mod kv;
pub(crate) mod local_replica;
pub(crate) mod primary;
pub(crate) mod range_cleanup;
pub(crate) mod reconciler;
pub(crate) mod reconfiguration;
pub(crate) mod repair;
