//! The identity, position and address of a ring node.

use std::fmt;

use super::{NodeId, Position};
use crate::Address;

/// A node of the ring, as others know it. Cheap to clone.
///
/// A node that returns under another address keeps its position: compare positions, and use the
/// most recent address.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Contact {
    /// Its position.
    pub position: Position,
    /// Its identity.
    pub id: NodeId,
    /// The address to dial.
    pub address: Address,
}

impl fmt::Debug for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.position, self.address)
    }
}
