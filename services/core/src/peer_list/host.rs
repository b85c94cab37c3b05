//! Hosts: what limits per host count by.

use std::net::IpAddr;

use crate::Address;

/// A host as addresses name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Host {
    Ip(IpAddr),
    /// In lower case.
    Name(String),
}

impl Host {
    /// The host of an address.
    pub(super) fn of(address: &Address) -> Self {
        match address.ip() {
            Some(ip) => ip.into(),
            None => Self::Name(address.host().to_ascii_lowercase()),
        }
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        Self::Ip(ip.to_canonical())
    }
}
