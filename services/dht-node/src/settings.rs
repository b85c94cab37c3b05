//! The ring node's settings.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use shoal_common::{
    admin::Admin,
    advertised::AdvertisedAddresses,
    process,
    telemetry::Log,
    units::{self, ByteSize},
};
use shoal_core::Address;

/// The time after leaving in which open calls and the last tasks end.
const GRACE_AFTER_LEAVING: Duration = Duration::from_secs(8);

/// The settings of a ring node, as in a TOML file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The address to listen on for clients and other nodes.
    pub listen: Address,
    /// The admin port: metrics and health.
    pub admin: Admin,
    /// The data directory.
    pub data_dir: PathBuf,
    /// Nodes of the ring to join. A name may have many addresses.
    pub join: Vec<Address>,
    /// The address that other nodes dial, if not that of the interface that routes to them.
    pub advertise: Option<Address>,
    /// How long a tombstone is kept, so that no replica restores the removed value.
    #[serde(with = "units::duration")]
    pub tombstones_for: Duration,
    /// How long a leaving node waits for others to take over its ranges.
    #[serde(with = "units::duration")]
    pub leave_patience: Duration,
    /// Which addresses other nodes, and peers of swarms, may advertise.
    pub advertised_addresses: AdvertisedAddresses,
    /// Resource limits.
    pub limits: LimitSettings,
    /// The log.
    pub log: Log,
}

/// Resource limits of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitSettings {
    /// Open connections.
    pub connections: u32,
    /// Open connections from one source, an IPv4 address or an IPv6 /64; none means half of all.
    pub connections_per_source: Option<u32>,
    /// Approximate bytes on disk after which writes of clients are refused. Records that the node
    /// receives as a replica, and removals, are still accepted. The database file may be twice as
    /// large because of free pages; so this is a fourth of the chart's volume of 1 GiB.
    pub quota: ByteSize,
    /// The same for keys, including removed keys whose tombstones are kept. This many keys with
    /// small values fill the default quota.
    pub keys: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let everywhere = |port| Address::from(SocketAddr::from(([0, 0, 0, 0], port)));
        Self {
            listen: everywhere(7071),
            admin: Admin::On(everywhere(9071)),
            data_dir: PathBuf::from("shoal-dht-data"),
            join: Vec::new(),
            advertise: None,
            tombstones_for: Duration::from_secs(24 * 3600),
            leave_patience: Duration::from_secs(50),
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
            quota: ByteSize::new(256 << 20),
            keys: 1_000_000,
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

    fn grace(&self) -> Duration {
        self.leave_patience + GRACE_AFTER_LEAVING
    }
}
