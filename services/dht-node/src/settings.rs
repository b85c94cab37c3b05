//! The ring node's settings.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use shoal_common::{
    Address,
    admin::Admin,
    advertised::AdvertisedAddresses,
    process,
    telemetry::Log,
    units::{self, ByteSize},
};

/// What follows the leaving: open calls are ended, and the last tasks.
const GRACE_AFTER_LEAVING: Duration = Duration::from_secs(8);

/// The settings of a ring node, as a TOML file holds them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Where to listen for clients and other nodes.
    pub listen: Address,
    /// Where operators look in.
    pub admin: Admin,
    /// What is kept from run to run.
    pub data_dir: PathBuf,
    /// Nodes of the ring to join. A name may stand for many addresses.
    pub join: Vec<Address>,
    /// Where others dial this node, if not at the address of the interface that leads to them.
    pub advertise: Option<Address>,
    /// How long a removed key is remembered, so that no replica brings it back.
    #[serde(with = "units::duration")]
    pub tombstones_for: Duration,
    /// How long a node that leaves waits for others to take over what it keeps.
    #[serde(with = "units::duration")]
    pub leave_patience: Duration,
    /// Which addresses other nodes, and peers of swarms, may say that they have.
    pub advertised_addresses: AdvertisedAddresses,
    /// What is granted at most.
    pub limits: LimitSettings,
    /// The log.
    pub log: Log,
}

/// What a node grants at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitSettings {
    /// Connections open at a time.
    pub connections: u32,
    /// Of them, those from one source, an IPv4 address or an IPv6 /64; none is half of them.
    pub connections_per_source: Option<u32>,
    /// What the node keeps on its disk before it refuses clients more, about. It goes on to take what
    /// it is handed as a replica, and removals. The database's file may be twice as large, for pages
    /// that are free; so this is a fourth of the chart's volume of 1 GiB.
    pub quota: ByteSize,
    /// The same of keys, those counted that were removed and are remembered still. As many with small
    /// values fill the default quota.
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
