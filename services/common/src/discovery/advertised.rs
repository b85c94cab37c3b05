//! Which advertised addresses are accepted: this prevents a stranger from making us dial a third
//! party.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use shoal_core::Address;

/// Which addresses a service accepts from the hosts that advertise them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&str")]
pub enum AdvertisedAddresses {
    /// The IP address at which the sender is observed, with any port.
    #[default]
    Observed,
    /// Names and other IP addresses too: for networks that translate addresses.
    Any,
}

crate::as_word!(AdvertisedAddresses { Observed = "observed", Any = "any" });

/// An address is not accepted from the host that advertises it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAccepted {
    /// It is not where the sender is observed.
    #[error(
        "{advertised} is not where you are seen, which is {observed}; advertise that number or none \
         (0.0.0.0), or have advertised_addresses set to any there"
    )]
    NotObserved {
        /// The advertised address.
        advertised: Address,
        /// The source of the sender's connection.
        observed: IpAddr,
    },
    /// It leads other hosts to themselves, or nowhere.
    #[error("{0} cannot be reached from another host; advertise one that can")]
    HostLocal(Address),
}

impl AdvertisedAddresses {
    /// The address to dial for a host that advertises `address` itself and is observed at
    /// `observed`. An unspecified host stands for the observed one.
    pub fn accept(self, address: Address, observed: IpAddr) -> Result<Address, NotAccepted> {
        let observed = observed.to_canonical();
        let address = address.or_observed(observed);
        let ip = address.ip().map(|ip| ip.to_canonical());
        let is_same_host =
            ip.is_some_and(|ip| ip == observed || ip.is_loopback() && observed.is_loopback());
        if is_same_host {
            return Ok(address);
        }
        if !may_learn(&address, observed) {
            return Err(NotAccepted::HostLocal(address));
        }
        match self {
            Self::Observed => Err(NotAccepted::NotObserved { advertised: address, observed }),
            Self::Any => Ok(address),
        }
    }
}

/// Whether an address that `teacher` names as that of a third party is of any use: an address that
/// works on one host or link only is accepted on this host alone.
pub fn may_learn(address: &Address, teacher: IpAddr) -> bool {
    let is_nowhere = |ip: IpAddr| match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unspecified() || ip.is_multicast(),
    };
    let is_local = |ip: IpAddr| match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
    };
    let is_own_host = teacher.to_canonical().is_loopback();
    match address.ip() {
        Some(ip) => !is_nowhere(ip) && (is_own_host || !is_local(ip)),
        None => is_own_host || !address.is_localhost(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().expect(text)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    fn accepted(rule: AdvertisedAddresses, advertised: &str, observed: &str) -> Option<String> {
        let accepted = rule.accept(address(advertised), ip(observed));
        accepted.ok().map(|address| address.to_string())
    }

    #[test]
    fn an_advertised_number_equals_the_observed_one() {
        let observed = |advertised, seen| accepted(AdvertisedAddresses::Observed, advertised, seen);
        for (advertised, seen, dialled) in [
            ("0.0.0.0:7072", "10.0.0.1", "10.0.0.1:7072"),
            (":7072", "::ffff:10.0.0.1", "10.0.0.1:7072"),
            ("10.0.0.1:7072", "10.0.0.1", "10.0.0.1:7072"),
            ("10.0.0.1:7072", "::ffff:10.0.0.1", "10.0.0.1:7072"),
            ("127.0.0.5:7072", "127.0.0.1", "127.0.0.5:7072"),
            ("[::1]:7072", "127.0.0.1", "[::1]:7072"),
            ("[fe80::1]:7072", "fe80::1", "[fe80::1]:7072"),
        ] {
            assert_eq!(observed(advertised, seen).as_deref(), Some(dialled), "{advertised} {seen}");
        }
        for (advertised, seen) in [
            ("10.0.0.2:7072", "10.0.0.1"),
            ("10.0.0.2:7072", "127.0.0.1"),
            ("127.0.0.1:7072", "10.0.0.1"),
            ("peer.example:7072", "10.0.0.1"),
        ] {
            assert_eq!(observed(advertised, seen), None, "{advertised} {seen}");
        }
    }

    #[test]
    fn a_setting_allows_names_and_other_numbers_but_not_those_of_one_host() {
        let any = |advertised, seen| accepted(AdvertisedAddresses::Any, advertised, seen);
        for advertised in ["10.0.0.2:7072", "peer.example:7072"] {
            assert_eq!(any(advertised, "10.0.0.1").as_deref(), Some(advertised));
        }
        for advertised in
            ["127.0.0.1:22", "[::1]:22", "169.254.169.254:80", "224.0.0.1:7072", "localhost:22"]
        {
            assert_eq!(any(advertised, "10.0.0.1"), None, "{advertised}");
        }
        assert!(any("localhost:22", "127.0.0.1").is_some());
    }

    #[test]
    fn what_leads_nowhere_else_is_learnt_on_this_host_alone() {
        for text in ["127.0.0.1:22", "[::1]:22", "169.254.169.254:80", "[fe80::1]:22"] {
            assert!(!may_learn(&address(text), ip("10.0.0.1")), "{text}");
            assert!(may_learn(&address(text), ip("127.0.0.1")), "{text}");
        }
        for text in ["0.0.0.0:22", "255.255.255.255:22", "[ff02::1]:22"] {
            assert!(!may_learn(&address(text), ip("127.0.0.1")), "{text}");
        }
        assert!(may_learn(&address("10.0.0.2:7072"), ip("10.0.0.1")));
        assert!(!may_learn(&address("LocalHost.:22"), ip("10.0.0.1")));
    }

    #[test]
    fn the_rule_reads_as_it_is_written() {
        for text in ["observed", "any"] {
            let rule = AdvertisedAddresses::try_from(text.to_owned()).expect(text);
            assert_eq!(<&str>::from(rule), text);
        }
        assert!(AdvertisedAddresses::try_from("all".to_owned()).is_err());
    }
}
