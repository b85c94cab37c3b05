//! The identity, position and address of a ring node.

use std::{fmt, str::FromStr, sync::Arc};

use uuid::Uuid;

use super::Position;

/// A ring node's identity: a UUID stored in its data directory, so that a new address keeps its
/// position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(Uuid);

impl NodeId {
    /// The node with this UUID.
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// Its 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text is not a UUID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a node id is a UUID such as 2f1e0c5a-7c1b-4d0e-9d3a-5a4c4cbb6a10")]
pub struct NodeIdError;

impl FromStr for NodeId {
    type Err = NodeIdError;

    fn from_str(text: &str) -> Result<Self, NodeIdError> {
        Uuid::try_parse(text).map(Self).map_err(|_| NodeIdError)
    }
}

/// A node of the ring, as others know it.
///
/// A node that returns under another address keeps its position: compare positions, and use the
/// most recent address. The address's text is shared, so a clone is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Contact {
    /// Its position.
    pub position: Position,
    /// Its identity.
    pub id: NodeId,
    /// HOST:PORT to dial.
    pub address: Arc<str>,
}

impl fmt::Debug for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.position, self.address)
    }
}
