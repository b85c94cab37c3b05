//! Connections to the control API of a running peer.

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::geteuid;
use shoal_common::channel::{Channel, Options};
use shoal_peer::{Control as ControlAddress, Settings};
use shoal_proto::control::v1::{
    control_service_client::ControlServiceClient, observe_service_client::ObserveServiceClient,
};

use crate::exit::{Exit, Failure};

/// A call that hashes or sends a large content is answered only at the end. The connection's
/// keepalive detects that the peer is gone.
const LONGEST_CALL: Duration = Duration::from_secs(7 * 24 * 3600);
/// The peer's own setting of its data directory, as an environment variable.
const DATA_DIR: &str = "SHOAL__DATA_DIR";
/// The data directory of a peer that runs as a system service, and of the container image.
const SERVICE_DATA_DIR: &str = "/var/lib/shoal";
const ADVICE: &str = "start shoal-peer, or give its address with --control";

/// Both services of a peer's control API.
pub(crate) struct Control {
    pub(crate) change: ControlServiceClient<Channel>,
    pub(crate) observe: ObserveServiceClient<Channel>,
}

impl Control {
    /// Connects to the peer at `address`; without one, to the first that answers at a socket in one
    /// of the usual data directories.
    pub(crate) async fn connect(address: Option<&ControlAddress>) -> anyhow::Result<Self> {
        let options = Options { call_timeout: LONGEST_CALL, ..Options::default() };
        let channel = match address {
            Some(ControlAddress::Tcp(address)) => Channel::connect(address, &options).await,
            Some(ControlAddress::Unix(path)) => Channel::connect_unix(path, &options).await,
            None => return find(&options).await.map(Self::over),
        };
        let channel = channel.map_err(|error| unreachable(&format!("{error}; {ADVICE}")))?;
        Ok(Self::over(channel))
    }

    fn over(channel: Channel) -> Self {
        Self {
            change: ControlServiceClient::new(channel.clone()),
            observe: ObserveServiceClient::new(channel),
        }
    }
}

/// A path or a name as the two fields of a message that have it: text, or bytes that are not UTF-8.
pub(crate) fn text_or_bytes(word: OsString) -> (String, Vec<u8>) {
    match word.into_string() {
        Ok(text) => (text, Vec::new()),
        Err(bytes) => (String::new(), bytes.into_encoded_bytes()),
    }
}

fn unreachable(message: &str) -> anyhow::Error {
    Failure::new(Exit::Unreachable, message).into()
}

async fn find(options: &Options) -> anyhow::Result<Channel> {
    let mut refusals = Vec::new();
    for directory in data_directories() {
        let socket = directory.join(ControlAddress::SOCKET);
        let reason = match distrust(&directory) {
            Some(reason) => reason,
            None => match Channel::connect_unix(&socket, options).await {
                Ok(channel) => return Ok(channel),
                Err(error) => error.reason().to_owned(),
            },
        };
        refusals.push(format!("{} ({reason})", socket.display()));
    }
    let tried = refusals.join(", ");
    Err(unreachable(&format!("cannot connect to a peer; tried {tried}; {ADVICE}")))
}

/// The directories in which a peer of this machine has its socket by default.
fn data_directories() -> Vec<PathBuf> {
    let named = env::var_os(DATA_DIR).filter(|path| !path.is_empty()).map(PathBuf::from);
    let usual = [Settings::default().data_dir, SERVICE_DATA_DIR.into()];
    let mut directories: Vec<PathBuf> = named.into_iter().chain(usual).collect();
    directories.dedup();
    directories
}

/// The reason not to trust a directory, if there is one. Any user may have created a relative one,
/// for example in `/tmp`, and would receive what is published through a socket in it.
fn distrust(directory: &Path) -> Option<String> {
    if directory.is_absolute() {
        return None;
    }
    let owner = fs::symlink_metadata(directory).ok()?.uid();
    let is_trusted = owner == 0 || owner == geteuid().as_raw();
    (!is_trusted).then(|| format!("{} belongs to user {owner}", directory.display()))
}
