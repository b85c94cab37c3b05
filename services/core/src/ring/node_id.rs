//! The identity of a ring node, whatever its address.

use crate::identity::identity;

identity! {
    /// A ring node's identity: a UUID stored in its data directory, so that a new address keeps its
    /// position.
    NodeId, NodeIdError, "a node id"
}
