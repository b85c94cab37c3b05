//! Routing: finding the owner of a key, and forwarding requests to it.

pub(crate) mod lookup;
pub(crate) mod router;
