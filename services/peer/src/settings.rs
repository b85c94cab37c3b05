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
    admin::Admin,
    advertised::AdvertisedAddresses,
    as_text, as_word,
    config::Conflict,
    process,
    telemetry::Log,
    units::{self, ByteSize, Rate},
};
use shoal_core::{
    Address, PeerId,
    address::AddressError,
    content::{Wanted, WantedError},
    peer_list::PeerListSettings,
    swarm,
};
use shoal_proto::types::v1::Location;

use crate::{
    node::NodeConfig,
    transfer::{self, SocketTuning},
};

/// The settings of a peer, as in a TOML file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The address to listen on for peers.
    pub listen: Address,
    /// The address of the local API, if not the socket in the data directory.
    pub control: Option<Control>,
    /// The admin port: metrics and health.
    pub admin: Admin,
    /// The data directory.
    pub data_dir: PathBuf,
    /// Trackers of every content.
    pub tracker: Vec<Address>,
    /// Ring nodes through which every content is announced; any one of them is enough.
    pub dht: Vec<Address>,
    /// The address that others dial, if not the one that they observe.
    pub advertise: Option<Address>,
    /// Which addresses peers that dial this one may advertise.
    pub advertised_addresses: AdvertisedAddresses,
    /// Directories in which clients may publish files in place; without one, it depends on the
    /// caller.
    pub publish_roots: Vec<Root>,
    /// Directories in which clients may have copies created; without one, it depends on the caller.
    pub export_roots: Vec<Root>,
    /// What is fetched and shared without a request.
    pub replicate: Replicate,
    /// The contents to replicate, if they are listed.
    pub contents: Vec<Listed>,
    /// Resource limits.
    pub limits: LimitSettings,
    /// The policies of swarms.
    pub swarm: SwarmSettings,
    /// Where the peer runs.
    pub location: LocationSettings,
    /// The log.
    pub log: Log,
}

/// What a peer fetches and shares without a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&str")]
pub enum Replicate {
    /// Nothing.
    #[default]
    None,
    /// The contents of the settings.
    Listed,
    /// Every content that its trackers know, as far as the quota allows.
    All,
}

as_word!(Replicate { None = "none", Listed = "listed", All = "all" });

/// A content that the settings list: by its id, a link, or a name of the ring.
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

/// Resource limits of a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitSettings {
    /// Upload rate of all contents together; none means no limit.
    pub upload: Option<Rate>,
    /// Download rate of all contents together.
    pub download: Option<Rate>,
    /// Bytes of contents in the data directory; the least recently used ones make room.
    pub quota: Option<ByteSize>,
    /// Bytes of the data directory's file system that contents leave free; the least recently used
    /// ones make room.
    pub min_free: Option<ByteSize>,
    /// Of 4,096 connections from other peers, those from one source: an IPv4 address or an IPv6
    /// /64; none means 512.
    pub connections_per_source: Option<u32>,
    /// Threads that move blocks; none means one per processor, from 2 to 8.
    pub io_threads: Option<NonZeroUsize>,
}

/// Policies of swarms: the textbook's numbers.
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
    /// Neighbours unchoked at random: optimistic unchokes.
    pub optimistic_slots: u32,
    /// Time between two rankings of the neighbours by rate.
    #[serde(with = "units::duration")]
    pub rechoke_interval: Duration,
    /// Time between two optimistic unchokes.
    #[serde(with = "units::duration")]
    pub optimistic_interval: Duration,
}

/// Where a peer runs, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LocationSettings {
    /// A region of the cloud or company.
    pub region: String,
    /// A zone of the region.
    pub zone: String,
    /// The machine.
    pub node: String,
}

/// A directory in which clients may name paths: an absolute path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Root(String);

/// The path of a root is relative, so it would depend on the working directory.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an absolute path; begin it with /")]
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

/// The address of the local API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Control {
    /// `HOST:PORT`.
    Tcp(Address),
    /// `unix:PATH`.
    Unix(PathBuf),
}

impl Control {
    /// The name of the socket in the data directory.
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

as_text!(Control, AddressError);

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
        let (peer_list, swarm) = (PeerListSettings::default(), swarm::Settings::default());
        Self {
            max_neighbours: peer_list.max_neighbours as u32,
            max_neighbours_per_host: peer_list.max_neighbours_per_host as u32,
            max_links: peer_list.max_links as u32,
            regular_slots: swarm.regular_slots as u32,
            optimistic_slots: swarm.optimistic_slots as u32,
            rechoke_interval: swarm.rechoke_interval,
            optimistic_interval: swarm.optimistic_interval,
        }
    }
}

impl Settings {
    /// The address of the local API.
    pub fn control(&self) -> Control {
        let in_data_dir = || Control::Unix(self.data_dir.join(Control::SOCKET));
        self.control.clone().unwrap_or_else(in_data_dir)
    }

    /// The configuration of the peer with this id.
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
            io_threads: self.limits.io_threads.unwrap_or_else(transfer::default_io_threads),
            location: Location { region, zone, node },
            swarm: swarm::Settings {
                regular_slots: self.swarm.regular_slots as usize,
                optimistic_slots: self.swarm.optimistic_slots as usize,
                rechoke_interval: self.swarm.rechoke_interval,
                optimistic_interval: self.swarm.optimistic_interval,
                ..swarm::Settings::default()
            },
            peer_list: PeerListSettings {
                max_neighbours: max_neighbours as usize,
                max_neighbours_per_host: max_neighbours_per_host as usize,
                max_links: max_links as usize,
                ..PeerListSettings::default()
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
                "replicate is listed, but contents is empty; list some, or set replicate to all",
            ));
        }
        if !is_listed && !self.contents.is_empty() {
            conflicts.push(conflict(
                &["replicate", "contents"],
                "contents is used only if replicate is listed; set that, or remove contents",
            ));
        }
        if self.replicate == Replicate::All && self.tracker.is_empty() {
            conflicts.push(conflict(
                &["replicate", "tracker"],
                "replicate is all, which requires a tracker to list the swarms; give one",
            ));
        }
        let is_name = |Listed(wanted): &Listed| matches!(wanted, Wanted::Name(_));
        if self.dht.is_empty() && self.contents.iter().any(is_name) {
            conflicts.push(conflict(
                &["contents", "dht"],
                "names are looked up in the ring; give a ring node, or ids and links",
            ));
        }
        let has_no_addresses = |Listed(wanted): &Listed| match wanted {
            Wanted::Link(link) => link.trackers().is_empty() && link.ring_nodes().is_empty(),
            Wanted::Name(_) => false,
        };
        let has_no_service = self.tracker.is_empty() && self.dht.is_empty();
        if has_no_service && self.contents.iter().any(has_no_addresses) {
            conflicts.push(conflict(
                &["contents", "tracker", "dht"],
                "nothing to find peers by: give a tracker, a ring node, or links that name one",
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
    fn replicated_contents_require_a_way_to_find_them() {
        let id = "0".repeat(64);
        let link = format!("shoal:{id}?tr=t:7070");
        let conflicts_of = |replicate, contents: &[&str], tracker: bool, dht: bool| {
            let addresses = |some: bool| some.then(|| "a:1".parse().unwrap()).into_iter().collect();
            let settings = Settings {
                replicate,
                contents: contents.iter().map(|text| Listed(text.parse().unwrap())).collect(),
                tracker: addresses(tracker),
                dht: addresses(dht),
                ..Settings::default()
            };
            let conflicts = process::Settings::conflicts(&settings);
            conflicts.iter().map(|conflict| conflict.keys.join(" ")).collect::<Vec<_>>()
        };
        assert!(conflicts_of(Replicate::None, &[], false, false).is_empty());
        assert!(conflicts_of(Replicate::All, &[], true, false).is_empty());
        assert!(conflicts_of(Replicate::Listed, &[&id, "llama-3"], false, true).is_empty());
        assert!(conflicts_of(Replicate::Listed, &[&id], true, false).is_empty());
        assert!(conflicts_of(Replicate::Listed, &[&link], false, false).is_empty());
        assert_eq!(conflicts_of(Replicate::All, &[], false, true), ["replicate tracker"]);
        assert_eq!(conflicts_of(Replicate::All, &[&id], true, false), ["replicate contents"]);
        assert_eq!(conflicts_of(Replicate::None, &[&id], true, false), ["replicate contents"]);
        assert_eq!(conflicts_of(Replicate::Listed, &[], true, true), ["replicate contents"]);
        assert_eq!(conflicts_of(Replicate::Listed, &["llama-3"], true, false), ["contents dht"]);
        assert_eq!(conflicts_of(Replicate::Listed, &[&id], false, false), ["contents tracker dht"]);
    }
}
