//! Peers of swarms, and how many there are.

use crate::{Address, PeerId};

/// Where a peer runs, as far as it knows; any part may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Location {
    /// Region, such as a data centre.
    pub region: String,
    /// Zone within the region.
    pub zone: String,
    /// Machine.
    pub node: String,
}

/// A peer's identity, address and state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its identity.
    pub id: PeerId,
    /// The address to dial.
    pub address: Address,
    /// Where it runs.
    pub location: Location,
    /// It holds every piece.
    pub complete: bool,
}

/// The number of peers of a swarm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that hold every piece.
    pub complete: usize,
    /// The others.
    pub incomplete: usize,
}
