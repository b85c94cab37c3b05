//! The identity of a peer, whatever its address.

use crate::identity::identity;

identity! {
    /// A peer's identity: a UUID stored in its data directory, so that a new address keeps it.
    PeerId, PeerIdError, "a peer id"
}
