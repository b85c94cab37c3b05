//! Calls to other nodes of the ring.

pub(crate) mod calls;
pub(crate) mod dial_limiter;
