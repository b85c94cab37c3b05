//! The address that this node advertises, if none is configured.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use shoal_core::Address;

/// An address that no host has (RFC 5737): it is routed by the default route.
const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);

/// The address to advertise for a node that listens on `listening`: that of the interface that
/// routes to the first of `others`, else of the default route, else loopback.
pub(crate) fn find(listening: SocketAddr, others: &[SocketAddr]) -> Address {
    let listening_address = Address::from(listening);
    if !listening_address.is_unspecified() {
        return listening_address;
    }
    let mut towards = others.iter().chain([&ANYWHERE]);
    let local = towards.find_map(|other| source_towards(*other));
    listening_address.or_observed(local.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)))
}

/// The source address of packets to `other`. Connecting a UDP socket sends nothing.
fn source_towards(other: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr =
        if other.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" }.parse().expect("it is an address");
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(other).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(text: &str) -> SocketAddr {
        text.parse().expect(text)
    }

    #[test]
    fn a_node_that_listens_on_one_address_advertises_it() {
        let listening = socket("127.0.0.2:7071");
        assert_eq!(find(listening, &[]).to_string(), "127.0.0.2:7071");
    }

    #[test]
    fn a_node_that_listens_everywhere_advertises_the_address_that_reaches_others() {
        let others = [socket("127.0.0.1:7071")];
        assert_eq!(find(socket("0.0.0.0:7171"), &others).to_string(), "127.0.0.1:7171");
        assert_eq!(find(socket("[::]:7171"), &others).to_string(), "127.0.0.1:7171");
    }
}
