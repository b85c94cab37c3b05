//! Membership of the ring: joining it, keeping the place in it, and leaving it.

pub(crate) mod known_nodes;
pub(crate) mod leaving;
pub(crate) mod own_address;
pub(crate) mod ring;
pub(crate) mod snapshot;
