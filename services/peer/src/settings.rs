//! The peer's settings.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use shoal_common::{
    Address,
    address::AddressError,
    admin::Admin,
    process,
    telemetry::Log,
    units::{self, ByteSize, Rate},
};
use shoal_core::{PeerId, roster::RosterSettings, swarm};
use shoal_proto::types::v1::Location;

use crate::{bulk::SocketTuning, node::NodeConfig};

/// The settings of a peer, as a TOML file holds them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Where to listen for peers.
    pub listen: Address,
    /// Where the local API listens.
    pub control: Control,
    /// Where operators look in.
    pub admin: Admin,
    /// What is kept from run to run.
    pub data_dir: PathBuf,
    /// Trackers of every content.
    pub tracker: Vec<Address>,
    /// Nodes of the ring that every content is announced to, through any of them.
    pub dht: Vec<Address>,
    /// Where others dial this peer, if not where they see it.
    pub advertise: Option<Address>,
    /// Caps and limits.
    pub limits: LimitSettings,
    /// The textbook's choker and the picker.
    pub swarm: SwarmSettings,
    /// Where this peer runs.
    pub location: LocationSettings,
    /// The log.
    pub log: Log,
}

/// What a peer uses at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitSettings {
    /// Sent, of all contents together; none is no cap.
    pub upload: Option<Rate>,
    /// Received, of all contents together.
    pub download: Option<Rate>,
    /// Bytes of contents in the data directory; what was used longest ago makes room.
    pub quota: Option<ByteSize>,
}

/// The textbook's numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SwarmSettings {
    /// Neighbours of one content.
    pub max_neighbours: u32,
    /// Links of the process.
    pub max_links: u32,
    /// Neighbours unchoked because they send fastest.
    pub regular_slots: u32,
    /// Neighbours unchoked at random.
    pub optimistic_slots: u32,
    /// Time between two rankings.
    #[serde(with = "units::duration")]
    pub rechoke_interval: Duration,
    /// Time between two random choices.
    #[serde(with = "units::duration")]
    pub optimistic_interval: Duration,
}

/// Where a peer runs, as far as that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LocationSettings {
    /// Of the cloud or company.
    pub region: String,
    /// Of the region.
    pub zone: String,
    /// The machine.
    pub node: String,
}

/// Where the local API listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Control {
    /// HOST:PORT.
    Tcp(Address),
    /// `unix:PATH`.
    Unix(PathBuf),
}

impl FromStr for Control {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp),
        }
    }
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl TryFrom<String> for Control {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Control> for String {
    fn from(control: Control) -> Self {
        control.to_string()
    }
}

impl Default for Settings {
    fn default() -> Self {
        let everywhere = |port| Address::from(SocketAddr::from(([0, 0, 0, 0], port)));
        Self {
            listen: everywhere(7072),
            control: Control::Tcp(Address::from(SocketAddr::from(([127, 0, 0, 1], 7073)))),
            admin: Admin::On(everywhere(9072)),
            data_dir: PathBuf::from("shoal-data"),
            tracker: Vec::new(),
            dht: Vec::new(),
            advertise: None,
            limits: LimitSettings::default(),
            swarm: SwarmSettings::default(),
            location: LocationSettings::default(),
            log: Log::default(),
        }
    }
}

impl Default for SwarmSettings {
    fn default() -> Self {
        let (roster, swarm) = (RosterSettings::default(), swarm::Settings::default());
        Self {
            max_neighbours: roster.max_neighbours as u32,
            max_links: roster.max_links as u32,
            regular_slots: swarm.regular_slots as u32,
            optimistic_slots: swarm.optimistic_slots as u32,
            rechoke_interval: swarm.rechoke_interval,
            optimistic_interval: swarm.optimistic_interval,
        }
    }
}

impl Settings {
    /// What these settings say of the peer with this id.
    pub(crate) fn node(&self, peer: PeerId) -> NodeConfig {
        let SwarmSettings { max_neighbours, max_links, .. } = self.swarm;
        let LocationSettings { region, zone, node } = self.location.clone();
        NodeConfig {
            peer,
            advertise: self.advertise.clone(),
            trackers: self.tracker.clone(),
            ring_nodes: self.dht.clone(),
            max_upload: self.limits.upload,
            max_download: self.limits.download,
            location: Location { region, zone, node },
            swarm: swarm::Settings {
                regular_slots: self.swarm.regular_slots as usize,
                optimistic_slots: self.swarm.optimistic_slots as usize,
                rechoke_interval: self.swarm.rechoke_interval,
                optimistic_interval: self.swarm.optimistic_interval,
                ..swarm::Settings::default()
            },
            roster: RosterSettings {
                max_neighbours: max_neighbours as usize,
                max_links: max_links as usize,
                ..RosterSettings::default()
            },
            sockets: SocketTuning::default(),
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
    fn the_local_api_listens_on_an_address_or_a_socket() {
        for text in ["127.0.0.1:7073", "unix:/run/shoal.sock"] {
            assert_eq!(text.parse::<Control>().unwrap().to_string(), text);
        }
        assert!("7073".parse::<Control>().is_err());
    }
}
