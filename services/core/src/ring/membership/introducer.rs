//! The source of information about a node.

use std::{net::IpAddr, sync::Arc};

use crate::address::{Address, network};

/// The host that told of a node: an IPv4 address, the /64 that a host on IPv6 has to itself, or a
/// name that was dialled. The number of nodes that one source may introduce is bounded, whatever
/// ids it invents.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Introducer(Source);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Source {
    Network(IpAddr),
    /// In lower case.
    Name(Arc<str>),
}

impl Introducer {
    /// The host from which a call was observed to come.
    pub fn of_ip(ip: IpAddr) -> Self {
        Self(Source::Network(network(ip)))
    }

    /// The host of an address, which answers when it is dialled there.
    pub fn of_address(address: &Address) -> Self {
        match address.ip() {
            Some(ip) => Self::of_ip(ip),
            None => Self(Source::Name(address.host().to_ascii_lowercase().into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::address;

    #[test]
    fn calls_from_a_host_and_answers_from_it_have_one_source() {
        let ip = |text: &str| Introducer::of_ip(text.parse().expect(text));
        let dialled = |text: &str| Introducer::of_address(&address(text));
        for (address, seen) in [
            ("10.0.0.1:7071", "10.0.0.1"),
            ("10.0.0.1:7071", "::ffff:10.0.0.1"),
            ("[2001:db8::1]:7071", "2001:db8::ffff:2"),
        ] {
            assert_eq!(dialled(address), ip(seen), "{address}");
        }
        assert_ne!(dialled("10.0.0.1:7071"), ip("10.0.0.2"));
        assert_ne!(dialled("[2001:db8::1]:7071"), ip("2001:db8:0:1::1"));
        assert_eq!(dialled("Node:1"), dialled("node:2"));
    }
}
