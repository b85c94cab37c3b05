//! `HOST:PORT`: as people write it, services advertise it, and clients dial it.

use std::{
    fmt::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

/// The longest DNS name (RFC 1035).
const MAX_NAME_BYTES: usize = 253;
/// Bytes of the longest IPv4 number and port.
const IPV4_BYTES: usize = "255.255.255.255:65535".len();

/// A host, by name or IP address, and a port. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    host: Host,
    port: u16,
}

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Host {
    Name(Arc<str>),
    Ip(IpAddr),
}

impl Address {
    /// The longest address as text: a name, a colon and five digits.
    pub const MAX_BYTES: usize = MAX_NAME_BYTES + 6;

    /// The port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The host without brackets, as resolvers expect it.
    pub fn host(&self) -> String {
        match &self.host {
            Host::Name(name) => name.to_string(),
            Host::Ip(ip) => ip.to_string(),
        }
    }

    fn name(&self) -> Option<&str> {
        match &self.host {
            Host::Name(name) => Some(name),
            Host::Ip(_) => None,
        }
    }

    /// The host's IP address, unless it is a name.
    pub const fn ip(&self) -> Option<IpAddr> {
        match self.host {
            Host::Ip(ip) => Some(ip),
            Host::Name(_) => None,
        }
    }

    /// The IP address and the port, unless the host is a name.
    pub fn socket(&self) -> Option<SocketAddr> {
        self.ip().map(|ip| SocketAddr::new(ip, self.port))
    }

    /// The host is a name of the local host, whatever DNS says about it (RFC 6761).
    pub fn is_localhost(&self) -> bool {
        let Some(name) = self.name() else { return false };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        name == "localhost" || name.ends_with(".localhost")
    }

    /// The host is 0.0.0.0 or `[::]`: "the address you observe" when advertised, "all addresses"
    /// when listened on.
    pub const fn is_unspecified(&self) -> bool {
        matches!(self.host, Host::Ip(ip) if ip.is_unspecified())
    }

    /// This address, with the observed host if its host is unspecified.
    #[must_use]
    pub fn or_observed(self, observed: IpAddr) -> Self {
        if self.is_unspecified() {
            Self { host: Host::Ip(observed.to_canonical()), ..self }
        } else {
            self
        }
    }

    /// This host with another port.
    #[must_use]
    pub fn with_port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// The address at which a process on the same machine reaches a listener on this one.
    #[must_use]
    pub fn or_loopback(self) -> Self {
        match self.ip() {
            Some(IpAddr::V6(ip)) if ip.is_unspecified() => {
                self.or_observed(Ipv6Addr::LOCALHOST.into())
            }
            _ => self.or_observed(Ipv4Addr::LOCALHOST.into()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self { host: Host::Ip(address.ip().to_canonical()), port: address.port() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
        }
    }
}

/// As text in quotes.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Why a text is not an [`Address`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Longer than [`Address::MAX_BYTES`].
    #[error("an address has at most {max} bytes, not {0}", max = Address::MAX_BYTES)]
    TooLong(usize),
    /// No colon before a port.
    #[error("{0:?} has no port; write HOST:PORT, such as 10.0.0.1:7070 or [::1]:7070")]
    NoPort(String),
    /// The port is not a number from 0 to 65535.
    #[error("{0:?} is not a port; write a number from 0 to 65535 after the last colon")]
    Port(String),
    /// An IPv6 address without brackets.
    #[error("{0:?} needs brackets around the IPv6 host, as in [::1]:7070")]
    NoBrackets(String),
    /// Neither a name nor an IP address.
    #[error("{0:?} is not a host; write a name, an IPv4 number, or an IPv6 number in brackets")]
    Host(String),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.len() > Self::MAX_BYTES {
            return Err(AddressError::TooLong(text.len()));
        }
        let (host, port) =
            text.rsplit_once(':').ok_or_else(|| AddressError::NoPort(text.to_owned()))?;
        let host = parse_host(host, text)?;
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        match port.parse() {
            Ok(port) if digits => Ok(Self { host, port }),
            _ => Err(AddressError::Port(port.to_owned())),
        }
    }
}

/// An empty host is unspecified, as in ":7072".
fn parse_host(host: &str, whole: &str) -> Result<Host, AddressError> {
    let refuse = || AddressError::Host(host.to_owned());
    if host.is_empty() {
        return Ok(Host::Ip(Ipv4Addr::UNSPECIFIED.into()));
    }
    if let Some(inside) = host.strip_prefix('[') {
        let number = inside.strip_suffix(']').ok_or_else(refuse)?;
        return Ok(Host::Ip(number.parse::<Ipv6Addr>().map_err(|_| refuse())?.into()));
    }
    if host.contains(':') {
        return Err(AddressError::NoBrackets(whole.to_owned()));
    }
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Ok(Host::Ip(ip.into()));
    }
    let is_name = host.len() <= MAX_NAME_BYTES
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        && !host.starts_with('.');
    // Digits and dots alone are a mistyped IP address, never a name.
    let is_number = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if is_name && !is_number { Ok(Host::Name(host.into())) } else { Err(refuse()) }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<&Address> for String {
    fn from(address: &Address) -> Self {
        // Answers name dozens of addresses: no text that grows while it is written.
        let name = address.name().map_or(0, |name| name.len() + ":65535".len());
        let mut text = Self::with_capacity(name.max(IPV4_BYTES));
        write!(text, "{address}").expect("a String takes all that is written");
        text
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        Self::from(&address)
    }
}

/// The owner of an IP address: on IPv4 a host, on IPv6 the /64 that a host has to itself. Limits
/// for strangers are counted by it.
pub fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & !u128::from(u64::MAX)).into()),
        ip @ IpAddr::V4(_) => ip,
    }
}

/// The address of a valid text.
#[cfg(test)]
pub(crate) fn address(text: &str) -> Address {
    text.parse().expect(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_reads_as_it_is_written() {
        for text in
            ["10.0.0.1:7070", "[::1]:7070", "tracker.shoal.svc.cluster.local:7070", "peer_1:0"]
        {
            assert_eq!(address(text).to_string(), text);
        }
    }

    #[test]
    fn its_text_is_allocated_exactly() {
        for text in ["10.0.0.1:7070", "tracker.shoal.svc.cluster.local:65535"] {
            let written = String::from(&address(text));
            assert_eq!(written, text);
            assert!(written.capacity() <= text.len().max(IPV4_BYTES));
        }
    }

    #[test]
    fn a_host_on_ipv6_is_a_network_of_64_bits() {
        let network = |text: &str| network(text.parse().expect("an IP address"));
        assert_eq!(network("2001:db8::1"), network("2001:db8::2:3"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:10.0.0.1"), network("10.0.0.1"));
    }

    #[test]
    fn each_mistake_is_named() {
        for (text, error) in [
            ("tracker", AddressError::NoPort("tracker".into())),
            ("tracker:", AddressError::Port(String::new())),
            ("tracker:+1", AddressError::Port("+1".into())),
            ("tracker:65536", AddressError::Port("65536".into())),
            ("::1:7070", AddressError::NoBrackets("::1:7070".into())),
            ("[::1:7070", AddressError::Host("[::1".into())),
            ("10.0.0:7070", AddressError::Host("10.0.0".into())),
            ("a b:7070", AddressError::Host("a b".into())),
            ("user@host:7070", AddressError::Host("user@host".into())),
        ] {
            assert_eq!(text.parse::<Address>(), Err(error));
        }
        let long = format!("{}:7070", "a".repeat(300));
        assert_eq!(long.parse::<Address>(), Err(AddressError::TooLong(305)));
    }

    #[test]
    fn an_unspecified_host_is_filled_in_and_the_port_kept() {
        let observed = "10.1.2.3".parse().expect("an address");
        for text in ["0.0.0.0:7072", "[::]:7072", ":7072"] {
            assert_eq!(address(text).or_observed(observed), address("10.1.2.3:7072"));
        }
        assert_eq!(address("peer:7072").or_observed(observed), address("peer:7072"));
    }

    #[test]
    fn an_ipv4_address_seen_through_an_ipv6_socket_is_ipv4() {
        let observed = "::ffff:10.1.2.3".parse().expect("an address");
        assert_eq!(address(":7072").or_observed(observed), address("10.1.2.3:7072"));
    }

    #[test]
    fn a_listener_on_all_addresses_is_reached_over_loopback() {
        assert_eq!(address("0.0.0.0:7070").or_loopback(), address("127.0.0.1:7070"));
        assert_eq!(address("[::]:7070").or_loopback(), address("[::1]:7070"));
        assert_eq!(address("10.0.0.1:7070").or_loopback(), address("10.0.0.1:7070"));
    }

    proptest! {
        #[test]
        fn what_parses_reads_back_the_same(text in "\\PC{0,40}") {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }

        #[test]
        fn every_socket_address_is_an_address(ip: IpAddr, port: u16) {
            let address = Address::from(SocketAddr::new(ip, port));
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }
    }
}
