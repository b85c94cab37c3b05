//! What is certain about the other end of a link.

use std::net::{IpAddr, SocketAddr};

use super::Direction;
use crate::PeerId;

/// What is proven about the other end of a link. Its id and the address that it advertises are only
/// claims.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// It answers at this HOST:PORT, which we dialled.
    Dialled(String),
    /// It dialled us from this IP address under this id. This says nothing about peers of other
    /// hosts.
    Seen(IpAddr, PeerId),
}

/// A host as addresses name it: the key of per-host limits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Host {
    Ip(IpAddr),
    Name(String),
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
            Self::Dialled(address) => host_of(address),
            Self::Seen(ip, _) => Host::Ip(ip.to_canonical()),
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

/// The host of HOST:PORT.
pub(super) fn host_of(address: &str) -> Host {
    if let Ok(address) = address.parse::<SocketAddr>() {
        return Host::Ip(address.ip().to_canonical());
    }
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    Host::Name(host.to_ascii_lowercase())
}
