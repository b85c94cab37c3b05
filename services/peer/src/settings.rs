//! The peer's settings.

use std::{
    fmt,
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use shoal_common::{
    Address,
    address::AddressError,
    admin::Admin,
    advertised::AdvertisedAddresses,
    config::Conflict,
    process,
    telemetry::Log,
    units::{self, ByteSize, Rate},
};
use shoal_core::{
    PeerId,
    content::{Wanted, WantedError},
    roster::RosterSettings,
    swarm,
};
use shoal_proto::types::v1::Location;

use crate::{
    bulk::{self, SocketTuning},
    node::NodeConfig,
};

/// The settings of a peer, as a TOML file holds them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Where to listen for peers.
    pub listen: Address,
    /// Where the local API listens, if not on the socket in the data directory.
    pub control: Option<Control>,
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
    /// Which addresses are accepted of peers that dial this one.
    pub advertised_addresses: AdvertisedAddresses,
    /// Directories that clients may have published in place; none is up to who calls, and from where.
    pub publish_roots: Vec<Root>,
    /// Directories that clients may have copies put into; none is up to who calls, and from where.
    pub export_roots: Vec<Root>,
    /// What is fetched and shared without being asked for.
    pub replicate: Replicate,
    /// What that is, if it is listed.
    pub contents: Vec<Listed>,
    /// Caps and limits.
    pub limits: LimitSettings,
    /// The textbook's choker and the picker.
    pub swarm: SwarmSettings,
    /// Where this peer runs.
    pub location: LocationSettings,
    /// The log.
    pub log: Log,
}

/// What a peer fetches and shares without being asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&str")]
pub enum Replicate {
    /// Nothing.
    #[default]
    None,
    /// The contents of the settings.
    Listed,
    /// Every content that its trackers know, as far as the quota goes.
    All,
}

/// The text is none of the words for what is replicated.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is none of none, listed and all")]
pub struct ReplicateError(String);

impl TryFrom<String> for Replicate {
    type Error = ReplicateError;

    fn try_from(text: String) -> Result<Self, ReplicateError> {
        match &*text {
            "none" => Ok(Self::None),
            "listed" => Ok(Self::Listed),
            "all" => Ok(Self::All),
            _ => Err(ReplicateError(text)),
        }
    }
}

impl From<Replicate> for &'static str {
    fn from(replicate: Replicate) -> Self {
        match replicate {
            Replicate::None => "none",
            Replicate::Listed => "listed",
            Replicate::All => "all",
        }
    }
}

/// A content of the settings: an id, a link, or a name of the ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Listed(pub Wanted);

impl TryFrom<String> for Listed {
    type Error = WantedError;

    fn try_from(text: String) -> Result<Self, WantedError> {
        text.parse().map(Self)
    }
}

impl From<Listed> for String {
    fn from(Listed(wanted): Listed) -> Self {
        wanted.to_string()
    }
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
    /// Of 4,096 connections from other peers, those from one source, an IPv4 address or an IPv6 /64;
    /// none is 512.
    pub connections_per_source: Option<u32>,
    /// Threads that move blocks; none is one for each processor, but from 2 to 8.
    pub lanes: Option<NonZeroUsize>,
}

/// The textbook's numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SwarmSettings {
    /// Neighbours of one content.
    pub max_neighbours: u32,
    /// Of these, peers of one host that dialled this one.
    pub max_neighbours_per_host: u32,
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

/// A directory that clients may name paths in: absolute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Root(String);

/// The path of a root is relative, and so another one for each process.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no absolute path; begin it with /")]
pub struct RootError(String);

impl Root {
    /// Its path.
    pub fn path(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl TryFrom<String> for Root {
    type Error = RootError;

    fn try_from(text: String) -> Result<Self, RootError> {
        if Path::new(&text).is_absolute() { Ok(Self(text)) } else { Err(RootError(text)) }
    }
}

impl From<Root> for String {
    fn from(Root(text): Root) -> Self {
        text
    }
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

impl Control {
    /// The socket's name in the data directory.
    pub const SOCKET: &str = "control.sock";
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
            control: None,
            admin: Admin::On(everywhere(9072)),
            data_dir: PathBuf::from("shoal-data"),
            tracker: Vec::new(),
            dht: Vec::new(),
            advertise: None,
            advertised_addresses: AdvertisedAddresses::default(),
            publish_roots: Vec::new(),
            export_roots: Vec::new(),
            replicate: Replicate::None,
            contents: Vec::new(),
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
            max_neighbours_per_host: roster.max_neighbours_per_host as u32,
            max_links: roster.max_links as u32,
            regular_slots: swarm.regular_slots as u32,
            optimistic_slots: swarm.optimistic_slots as u32,
            rechoke_interval: swarm.rechoke_interval,
            optimistic_interval: swarm.optimistic_interval,
        }
    }
}

impl Settings {
    /// Where the local API listens.
    pub fn control(&self) -> Control {
        let beside = || Control::Unix(self.data_dir.join(Control::SOCKET));
        self.control.clone().unwrap_or_else(beside)
    }

    /// What these settings say of the peer with this id.
    pub(crate) fn node(&self, peer: PeerId) -> NodeConfig {
        let SwarmSettings { max_neighbours, max_neighbours_per_host, max_links, .. } = self.swarm;
        let LocationSettings { region, zone, node } = self.location.clone();
        NodeConfig {
            peer,
            advertise: self.advertise.clone(),
            advertised_addresses: self.advertised_addresses,
            trackers: self.tracker.clone(),
            ring_nodes: self.dht.clone(),
            max_upload: self.limits.upload,
            max_download: self.limits.download,
            connections_per_source: self.limits.connections_per_source.map(|n| n as usize),
            lanes: self.limits.lanes.unwrap_or_else(bulk::usual_lanes),
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
                max_neighbours_per_host: max_neighbours_per_host as usize,
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

    fn conflicts(&self) -> Vec<Conflict> {
        let conflict = |keys, reason: &str| Conflict { keys, reason: reason.to_owned() };
        let mut conflicts = Vec::new();
        let is_listed = self.replicate == Replicate::Listed;
        if is_listed && self.contents.is_empty() {
            conflicts.push(conflict(
                &["replicate", "contents"],
                "nothing is listed; name contents, or replicate all or none",
            ));
        }
        if !is_listed && !self.contents.is_empty() {
            conflicts.push(conflict(
                &["replicate", "contents"],
                "contents are listed for nothing; replicate listed, or list none",
            ));
        }
        if self.replicate == Replicate::All && self.tracker.is_empty() {
            conflicts.push(conflict(
                &["replicate", "tracker"],
                "to replicate all, a tracker is needed that lists the swarms",
            ));
        }
        let is_name = |Listed(wanted): &Listed| matches!(wanted, Wanted::Name(_));
        if self.dht.is_empty() && self.contents.iter().any(is_name) {
            conflicts.push(conflict(
                &["contents", "dht"],
                "names are looked up in the ring; give one of its nodes, or ids and links",
            ));
        }
        let is_placeless = |Listed(wanted): &Listed| match wanted {
            Wanted::Link(link) => link.trackers().is_empty() && link.ring_nodes().is_empty(),
            Wanted::Name(_) => false,
        };
        let knows_nobody = self.tracker.is_empty() && self.dht.is_empty();
        if knows_nobody && self.contents.iter().any(is_placeless) {
            conflicts.push(conflict(
                &["contents", "tracker", "dht"],
                "nothing to find peers by: give a tracker, a node of the ring, or links that name one",
            ));
        }
        conflicts
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

    #[test]
    fn what_is_replicated_goes_together_with_where_it_is_found() {
        let id = "0".repeat(64);
        let link = format!("shoal:{id}?tr=t:7070");
        let told = |replicate, contents: &[&str], tracker: bool, dht: bool| {
            let places = |some: bool| some.then(|| "a:1".parse().unwrap()).into_iter().collect();
            let settings = Settings {
                replicate,
                contents: contents.iter().map(|text| Listed(text.parse().unwrap())).collect(),
                tracker: places(tracker),
                dht: places(dht),
                ..Settings::default()
            };
            let conflicts = process::Settings::conflicts(&settings);
            conflicts.iter().map(|conflict| conflict.keys.join(" ")).collect::<Vec<_>>()
        };
        assert!(told(Replicate::None, &[], false, false).is_empty());
        assert!(told(Replicate::All, &[], true, false).is_empty());
        assert!(told(Replicate::Listed, &[&id, "llama-3"], false, true).is_empty());
        assert!(told(Replicate::Listed, &[&id], true, false).is_empty());
        assert!(told(Replicate::Listed, &[&link], false, false).is_empty());
        assert_eq!(told(Replicate::All, &[], false, true), ["replicate tracker"]);
        assert_eq!(told(Replicate::All, &[&id], true, false), ["replicate contents"]);
        assert_eq!(told(Replicate::None, &[&id], true, false), ["replicate contents"]);
        assert_eq!(told(Replicate::Listed, &[], true, true), ["replicate contents"]);
        assert_eq!(told(Replicate::Listed, &["llama-3"], true, false), ["contents dht"]);
        assert_eq!(told(Replicate::Listed, &[&id], false, false), ["contents tracker dht"]);
    }
}
