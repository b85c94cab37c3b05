//! What is certain about the other end of a link.

use std::net::IpAddr;

use super::host::Host;
use crate::{Address, PeerId};

/// Which side dialled a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// We did.
    Outbound,
    /// The neighbour did.
    Inbound,
}

/// What is proven about the other end of a link. Its id and the address that it advertises are only
/// claims.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// It answers at this address, which we dialled.
    Dialled(Address),
    /// It dialled us from this IP address under this id. This says nothing about peers of other
    /// hosts.
    Seen(IpAddr, PeerId),
}

impl Origin {
    /// The side that dialled.
    pub const fn direction(&self) -> Direction {
        match self {
            Self::Dialled(_) => Direction::Outbound,
            Self::Seen(..) => Direction::Inbound,
        }
    }

    pub(super) fn host(&self) -> Host {
        match self {
            Self::Dialled(address) => Host::of(address),
            Self::Seen(ip, _) => (*ip).into(),
        }
    }

    /// Both may be the same peer: a name may have any IP address.
    pub(super) fn may_be_same_host(&self, other: &Self) -> bool {
        match (self.host(), other.host()) {
            (Host::Ip(one), Host::Ip(other)) => one == other,
            _ => true,
        }
    }
}
