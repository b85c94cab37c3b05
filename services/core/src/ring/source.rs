//! The source of information about a node.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// The host that told of a node: an IPv4 address, the /64 that a host on IPv6 has to itself, or a
/// name that was dialled. The number of nodes that one source may introduce is bounded, whatever
/// ids it invents.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source(Arc<str>);

impl Source {
    /// The host from which a call was observed to come.
    pub fn of_ip(ip: IpAddr) -> Self {
        let network = match ip.to_canonical() {
            IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & !u128::from(u64::MAX)).into()),
            ip @ IpAddr::V4(_) => ip,
        };
        Self(network.to_string().into())
    }

    /// The host of HOST:PORT, which answers when it is dialled there.
    pub fn of_address(address: &str) -> Self {
        if let Ok(number) = address.parse::<SocketAddr>() {
            return Self::of_ip(number.ip());
        }
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        Self(host.to_ascii_lowercase().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_from_a_host_and_answers_from_it_have_one_source() {
        let ip = |text: &str| Source::of_ip(text.parse().expect(text));
        for (address, seen) in [
            ("10.0.0.1:7071", "10.0.0.1"),
            ("10.0.0.1:7071", "::ffff:10.0.0.1"),
            ("[2001:db8::1]:7071", "2001:db8::ffff:2"),
        ] {
            assert_eq!(Source::of_address(address), ip(seen), "{address}");
        }
        assert_ne!(Source::of_address("10.0.0.1:7071"), ip("10.0.0.2"));
        assert_ne!(Source::of_address("[2001:db8::1]:7071"), ip("2001:db8:0:1::1"));
        assert_eq!(Source::of_address("Node:1"), Source::of_address("node:2"));
    }
}
