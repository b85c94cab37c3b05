//! The textbook's least times to distribute a file of F bytes to N peers (Kurose and Ross, *Computer
//! Networking: A Top-Down Approach*, section 2.5):
//!
//! ```text
//! client-server   max{ N*F/us, F/dmin }
//! P2P             max{ F/us, F/dmin, N*F/(us + sum ui) }
//! ```
//!
//! The inside of the network is assumed to be fast: only the access links count, in bytes a second.

use std::{fmt, num::NonZeroU64, time::Duration};

/// A file, and the access links of the server and of the peers that want it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// F: bytes of the file.
    pub bytes: u64,
    /// N: peers that want it.
    pub peers: NonZeroU64,
    /// us: the server's uplink, bytes a second.
    pub server_up_per_s: NonZeroU64,
    /// sum ui: the uplinks of all peers together, bytes a second.
    pub peers_up_per_s: u64,
    /// dmin: the slowest downlink of a peer, bytes a second. None: never the bottleneck.
    pub slowest_down_per_s: Option<NonZeroU64>,
}

/// A lower bound, and the term that determines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// No distribution is faster. [`Duration::MAX`] if it is longer than that.
    pub time: Duration,
    /// The largest term of the maximum.
    pub term: Term,
}

/// A term of the textbook's formulas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term {
    /// N*F/us: the server sends every copy itself.
    ServerCopies,
    /// F/us: each byte leaves the server at least once.
    ServerOnce,
    /// F/dmin: the peer with the slowest downlink.
    SlowestDownlink,
    /// N*F/(us + sum ui): all uplinks together carry every copy.
    AllUplinks,
}

/// As the textbook writes it.
impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ServerCopies => "N*F/us",
            Self::ServerOnce => "F/us",
            Self::SlowestDownlink => "F/dmin",
            Self::AllUplinks => "N*F/(us + sum ui)",
        })
    }
}

impl Distribution {
    /// All peers fetch from the server: it grows linearly with N.
    pub fn client_server(&self) -> Bound {
        let copies = self.copies() / to_f64(self.server_up_per_s);
        self.largest([(copies, Term::ServerCopies)])
    }

    /// Peers redistribute what they have: it stays under F/u, however large N, if all uplinks are
    /// u.
    pub fn peer_to_peer(&self) -> Bound {
        let server = to_f64(self.server_up_per_s);
        self.largest([
            (self.bytes as f64 / server, Term::ServerOnce),
            (self.copies() / (server + self.peers_up_per_s as f64), Term::AllUplinks),
        ])
    }

    fn copies(&self) -> f64 {
        to_f64(self.peers) * self.bytes as f64
    }

    /// The largest of these terms, in seconds, and of F/dmin, which both formulas have.
    fn largest(&self, terms: impl IntoIterator<Item = (f64, Term)>) -> Bound {
        let downlink = self
            .slowest_down_per_s
            .map(|rate| (self.bytes as f64 / to_f64(rate), Term::SlowestDownlink));
        let (seconds, term) = terms
            .into_iter()
            .chain(downlink)
            .max_by(|(a, _), (b, _)| a.total_cmp(b))
            .expect("both formulas have a term of the server");
        let time = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        Bound { time, term }
    }
}

fn to_f64(number: NonZeroU64) -> f64 {
    number.get() as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(number: u64) -> NonZeroU64 {
        NonZeroU64::new(number).unwrap()
    }

    /// F/u = 20 s, us = 10u, dmin >= us: the textbook's figure.
    fn figure(peers: u64) -> Distribution {
        let u = 2_500_000;
        Distribution {
            bytes: 20 * u,
            peers: number(peers),
            server_up_per_s: number(10 * u),
            peers_up_per_s: peers * u,
            slowest_down_per_s: Some(number(10 * u)),
        }
    }

    #[test]
    fn the_chart_matches_the_textbooks_figure() {
        for (peers, client_server, peer_to_peer) in
            [(1, 2.0, 2.0), (5, 10.0, 20.0 / 3.0), (10, 20.0, 10.0), (30, 60.0, 15.0)]
        {
            let (server, swarm) = (figure(peers).client_server(), figure(peers).peer_to_peer());
            assert!(
                (server.time.as_secs_f64() - client_server).abs() < 1e-6,
                "{peers}: {server:?}"
            );
            assert!((swarm.time.as_secs_f64() - peer_to_peer).abs() < 1e-6, "{peers}: {swarm:?}");
        }
        assert_eq!(figure(30).client_server().term, Term::ServerCopies);
        assert_eq!(figure(30).peer_to_peer().term, Term::AllUplinks);
    }

    #[test]
    fn a_swarm_scales_by_itself_below_the_time_of_one_uplink() {
        assert!(figure(1_000_000_000).peer_to_peer().time < Duration::from_secs(20));
    }

    #[test]
    fn the_slowest_part_binds() {
        let slow_downlink = Distribution { slowest_down_per_s: Some(number(1)), ..figure(5) };
        assert_eq!(slow_downlink.client_server().term, Term::SlowestDownlink);
        assert_eq!(slow_downlink.peer_to_peer().term, Term::SlowestDownlink);
        let slow_server =
            Distribution { server_up_per_s: number(1000), slowest_down_per_s: None, ..figure(5) };
        assert_eq!(slow_server.peer_to_peer().term, Term::ServerOnce);
    }

    proptest! {
        #[test]
        fn peers_never_make_it_slower(bytes: u64, peers in 1_u64.., server in 1_u64.., uplinks: u64, down: u64) {
            let distribution = Distribution {
                bytes,
                peers: number(peers),
                server_up_per_s: number(server),
                peers_up_per_s: uplinks,
                slowest_down_per_s: NonZeroU64::new(down),
            };
            prop_assert!(distribution.peer_to_peer().time <= distribution.client_server().time);
        }
    }
}
