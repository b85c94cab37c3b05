//! The settings of a run, and the textbook's lower bound for it.

use std::{
    fmt,
    num::{NonZeroU32, NonZeroU64},
    str::FromStr,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use shoal_common::units::{ByteSize, Rate, UnitError};
use shoal_core::bound::Distribution;

/// Bytes per second of one Mbit/s.
const MBIT: u64 = 125_000;

/// The settings of one distribution, with the textbook's symbols.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// N: number of peers.
    pub peers: NonZeroU32,
    /// F: size of the file.
    pub size: ByteSize,
    /// us: uplink of the server.
    pub server_up: LinkRate,
    /// ui: uplinks, assigned to the peers in turn. Never empty.
    pub peer_up: Vec<LinkRate>,
    /// di: downlink of every peer and of the server.
    pub down: LinkRate,
    /// The peers that start later, if any.
    pub late: Option<Late>,
    /// When the publisher leaves.
    pub publisher: PublisherFate,
    /// The time after which the run fails.
    pub limit: Duration,
}

/// The rate of a link in one direction. `None` means unshaped: as fast as the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkRate(Option<Rate>);

/// The last peers start later than the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    /// Number of late peers.
    pub peers: u32,
    /// Delay of their start.
    pub by: Duration,
}

/// When the publisher leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublisherFate {
    /// It seeds to the end.
    Stays,
    /// It is killed when the first peer is complete.
    DiesAfterOneCopy,
}

impl LinkRate {
    /// As fast as the machine.
    pub const UNSHAPED: Self = Self(None);

    /// Bits per second, the unit of `tc`.
    pub fn bits_per_s(self) -> Option<u64> {
        self.bytes_per_s().map(|rate| rate.get() * 8)
    }

    fn bytes_per_s(self) -> Option<NonZeroU64> {
        self.0.map(Rate::bytes_per_s)
    }
}

impl FromStr for LinkRate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        if text == "0" { Ok(Self::UNSHAPED) } else { text.parse().map(|rate| Self(Some(rate))) }
    }
}

/// In bits, the usual unit of links.
impl fmt::Display for LinkRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bytes_per_s().map(NonZeroU64::get) {
            None => f.write_str("unshaped"),
            Some(rate) if rate.is_multiple_of(MBIT) => write!(f, "{}mbit", rate / MBIT),
            Some(rate) => write!(f, "{}bit", rate * 8),
        }
    }
}

/// Parses `K:S`: K peers start S seconds later.
impl FromStr for Late {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let Some((peers, seconds)) = text.split_once(':') else {
            bail!("{text:?} is not K:S, such as 2:1.5 for two peers that start 1.5 s later")
        };
        let seconds: f64 =
            seconds.parse().with_context(|| format!("{seconds:?} is not a number of seconds"))?;
        let by = Duration::try_from_secs_f64(seconds)?;
        Ok(Self {
            peers: peers.parse().with_context(|| format!("{peers:?} is not a number of peers"))?,
            by,
        })
    }
}

impl Setup {
    /// Fails if the settings are not valid.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(self.size.bytes() > 0, "the file has no bytes");
        ensure!(!self.peer_up.is_empty(), "the peers have no uplinks");
        let late = self.late.map_or(0, |late| late.peers);
        ensure!(late < self.peers.get(), "{late} late peers are too many for {} peers", self.peers);
        Ok(())
    }

    /// The uplink of a peer, by its index from 0.
    pub fn uplink(&self, peer: u32) -> LinkRate {
        self.peer_up[peer as usize % self.peer_up.len()]
    }

    /// The start time of a peer, by its index from 0.
    pub fn start(&self, peer: u32) -> Duration {
        match self.late {
            Some(late) if peer + late.peers >= self.peers.get() => late.by,
            _ => Duration::ZERO,
        }
    }

    /// The input of the textbook's formulas, or `None` if the server's uplink is unshaped.
    pub fn distribution(&self) -> Option<Distribution> {
        let uplinks = (0..self.peers.get()).map(|peer| self.uplink(peer).bytes_per_s());
        Some(Distribution {
            bytes: self.size.bytes(),
            peers: self.peers.into(),
            server_up_per_s: self.server_up.bytes_per_s()?,
            peers_up_per_s: uplinks
                .map(|rate| rate.map_or(u64::MAX, NonZeroU64::get))
                .fold(0, u64::saturating_add),
            slowest_down_per_s: self.down.bytes_per_s(),
        })
    }

    /// Whether no link is shaped, so that only the machine limits the run.
    pub fn is_unshaped(&self) -> bool {
        let mut links = self.peer_up.iter().chain([&self.server_up, &self.down]);
        links.all(|link| *link == LinkRate::UNSHAPED)
    }

    /// The total size of all copies in bytes.
    pub fn copies(&self) -> u64 {
        self.size.bytes() * u64::from(self.peers.get())
    }
}

/// `10 peers, 50MB, us 200mbit, ui 20mbit, di 400mbit`
impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peers, size, server_up, peer_up, down, late, publisher, .. } = self;
        write!(f, "{peers} {}, {size}", if peers.get() == 1 { "peer" } else { "peers" })?;
        if self.is_unshaped() {
            f.write_str(", unshaped")?;
        } else {
            let uplinks = peer_up.iter().map(ToString::to_string).collect::<Vec<_>>().join("/");
            write!(f, ", us {server_up}, ui {uplinks}, di {down}")?;
        }
        if let Some(late) = late {
            write!(f, ", {} of them {} s late", late.peers, late.by.as_secs_f64())?;
        }
        if *publisher == PublisherFate::DiesAfterOneCopy {
            f.write_str(", the publisher dies after one copy")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup() -> Setup {
        Setup {
            peers: NonZeroU32::new(10).unwrap(),
            size: "50MB".parse().unwrap(),
            server_up: "200mbit".parse().unwrap(),
            peer_up: vec!["20mbit".parse().unwrap()],
            down: "400mbit".parse().unwrap(),
            late: None,
            publisher: PublisherFate::Stays,
            limit: Duration::from_secs(300),
        }
    }

    #[test]
    fn the_bound_uses_all_links_together() {
        let distribution = setup().distribution().unwrap();
        assert_eq!(distribution.peer_to_peer().time, Duration::from_secs(10));
        assert_eq!(distribution.client_server().time, Duration::from_secs(20));
    }

    #[test]
    fn uplinks_are_assigned_to_the_peers_in_turn() {
        let links = ["5mbit", "20mbit", "80mbit"].map(|rate| rate.parse().unwrap());
        let setup = Setup { peer_up: links.to_vec(), ..setup() };
        assert_eq!(setup.uplink(0), links[0]);
        assert_eq!(setup.uplink(5), links[2]);
        let sum = setup.distribution().unwrap().peers_up_per_s;
        assert_eq!(sum, (3 * 105 + 5) * MBIT);
    }

    #[test]
    fn unshaped_uplinks_do_not_limit_the_bound() {
        let unshaped = Setup { peer_up: vec![LinkRate::UNSHAPED], ..setup() };
        assert_eq!(unshaped.distribution().unwrap().peer_to_peer().time, Duration::from_secs(2));
        assert!(Setup { server_up: LinkRate::UNSHAPED, ..setup() }.distribution().is_none());
    }

    #[test]
    fn the_last_peers_are_late() {
        let late: Late = "2:1.5".parse().unwrap();
        let setup = Setup { late: Some(late), ..setup() };
        assert_eq!(setup.start(7), Duration::ZERO);
        assert_eq!(setup.start(8), Duration::from_millis(1500));
        assert_eq!(setup.start(9), Duration::from_millis(1500));
        setup.check().unwrap();
        let all = Setup { late: Some(Late { peers: 10, ..late }), ..setup };
        assert!(all.check().is_err());
        for text in ["2", "x:1", "1:x", "1:-1", "1:inf", "-1:1"] {
            assert!(text.parse::<Late>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_setup_is_printed_in_one_line() {
        assert_eq!(setup().to_string(), "10 peers, 50MB, us 200mbit, ui 20mbit, di 400mbit");
        let unshaped: LinkRate = "0".parse().unwrap();
        let one = Setup {
            peers: NonZeroU32::MIN,
            server_up: unshaped,
            peer_up: vec![unshaped],
            down: unshaped,
            ..setup()
        };
        assert_eq!(one.to_string(), "1 peer, 50MB, unshaped");
        assert_eq!("9bit".parse::<LinkRate>().unwrap().to_string(), "8bit");
    }
}
