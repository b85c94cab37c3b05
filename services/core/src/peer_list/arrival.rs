//! Peers as they are named, or as their links come up, and the decision about a link.

use super::Origin;
use crate::{Address, PeerId};

/// A peer that may become a neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its identity.
    pub peer: PeerId,
    /// The address to dial.
    pub address: Address,
    /// It holds every piece, as far as is known.
    pub complete: bool,
}

/// A peer whose link came up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Its claimed identity.
    pub peer: PeerId,
    /// Where it can be dialled; none if unknown.
    pub address: Option<Address>,
    /// It claims to hold every piece.
    pub complete: bool,
    /// What is proven about it.
    pub origin: Origin,
}

/// The decision about a new link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is kept.
    Keep,
    /// It is kept, and replaces the present link with this peer.
    Replace,
    /// It is closed.
    Refuse(Refusal),
}

/// Why a link is closed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The peer or its address is banned, as far as it can be recognised.
    #[error("the peer is banned")]
    Banned,
    /// The peer is this peer itself.
    #[error("a peer does not link to itself")]
    Myself,
    /// There is a link with this peer already, and that one is kept.
    #[error("there is a link between the two peers already")]
    Duplicate,
    /// There is no room for another neighbour.
    #[error("the peer has all the neighbours it takes")]
    Full,
    /// There is no room for another neighbour of the same host.
    #[error("the peer has all the neighbours of your host that it takes")]
    Crowded,
    /// The content is no longer here.
    #[error("the content is not here")]
    NoContent,
}
