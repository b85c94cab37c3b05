//! The identity of a peer, whatever its address.

use std::{fmt, str::FromStr};

use uuid::Uuid;

/// A peer's identity: a UUID stored in its data directory, so that a new address keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(Uuid);

impl PeerId {
    /// The peer with this UUID.
    pub const fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// Its 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The text is not a UUID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a peer id is a UUID such as 2f1e0c5a-7c1b-4d0e-9d3a-5a4c4cbb6a10")]
pub struct PeerIdError;

impl FromStr for PeerId {
    type Err = PeerIdError;

    fn from_str(text: &str) -> Result<Self, PeerIdError> {
        Uuid::try_parse(text).map(Self).map_err(|_| PeerIdError)
    }
}
