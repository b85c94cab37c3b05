//! The tracker's settings.

use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};
use shoal_common::{admin::Admin, advertised::AdvertisedAddresses, process, telemetry::Log, units};
use shoal_core::{Address, registry};

use crate::shards::SHARDS;

/// The settings of a tracker, as in a TOML file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The address to listen on for peers.
    pub listen: Address,
    /// The admin port: metrics and health.
    pub admin: Admin,
    /// The time between two announces of a peer. With 30 s, a dead peer is handed out for about a
    /// minute.
    #[serde(with = "units::duration")]
    pub interval: Duration,
    /// The part of a handout that is filled with peers of the asking peer's node and zone first.
    pub near_percent: Percent,
    /// Which addresses peers may announce.
    pub advertised_addresses: AdvertisedAddresses,
    /// Resource limits.
    pub limits: LimitSettings,
    /// The log.
    pub log: Log,
}

/// Resource limits of a tracker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitSettings {
    /// Open connections.
    pub connections: u32,
    /// Open connections from one source, an IPv4 address or an IPv6 /64; none means half of all.
    pub connections_per_source: Option<u32>,
    /// Swarms.
    pub swarms: u32,
    /// Peers of all swarms together, each counted once per swarm.
    pub peers: u32,
    /// Peers of one swarm.
    pub peers_per_swarm: u32,
    /// Peers that announce from one address, in each shard: a sixteenth of all swarms.
    pub peers_per_address: u32,
}

/// A percentage, from 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Percent(u8);

/// A number above 100.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not a percentage; write a number from 0 to 100")]
pub struct PercentError(u8);

impl TryFrom<u8> for Percent {
    type Error = PercentError;

    fn try_from(percent: u8) -> Result<Self, PercentError> {
        if percent <= 100 { Ok(Self(percent)) } else { Err(PercentError(percent)) }
    }
}

impl From<Percent> for u8 {
    fn from(Percent(percent): Percent) -> Self {
        percent
    }
}

impl Default for Settings {
    fn default() -> Self {
        let everywhere = |port| Address::from(SocketAddr::from(([0, 0, 0, 0], port)));
        Self {
            listen: everywhere(7070),
            admin: Admin::On(everywhere(9070)),
            interval: Duration::from_secs(30),
            near_percent: Percent(25),
            advertised_addresses: AdvertisedAddresses::default(),
            limits: LimitSettings::default(),
            log: Log::default(),
        }
    }
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            connections: 20_000,
            connections_per_source: None,
            swarms: 100_000,
            // At most about 1 kB each.
            peers: 200_000,
            peers_per_swarm: 100_000,
            peers_per_address: 1_000,
        }
    }
}

impl Settings {
    /// The settings of each shard.
    pub(crate) fn of_shard(&self) -> registry::Settings {
        let LimitSettings { swarms, peers, peers_per_swarm, peers_per_address, .. } = self.limits;
        registry::Settings {
            interval: self.interval,
            max_swarms: (swarms as usize).div_ceil(SHARDS),
            max_peers: peers as usize,
            max_peers_per_swarm: peers_per_swarm as usize,
            max_peers_per_address: peers_per_address as usize,
            near_percent: usize::from(u8::from(self.near_percent)),
        }
    }
}

impl process::Settings for Settings {
    fn listen(&self) -> &Address {
        &self.listen
    }

    fn log(&self) -> &Log {
        &self.log
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_is_at_most_100() {
        assert!(Percent::try_from(100).is_ok());
        assert!(Percent::try_from(101).is_err());
    }
}
