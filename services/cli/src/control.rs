//! The control API of a running peer.

use std::time::Duration;

use anyhow::Context as _;
use shoal_common::channel::{Channel, ConnectError, Options};
use shoal_peer::Control as ControlAddress;
use shoal_proto::control::v1::{
    control_service_client::ControlServiceClient, observe_service_client::ObserveServiceClient,
};

/// Hashing or sending a large content takes long, and its answer comes at the end. That the peer is
/// gone, the connection's keepalive tells.
const LONGEST_CALL: Duration = Duration::from_secs(7 * 24 * 3600);

/// Both services of a peer's control API.
pub(crate) struct Control {
    pub(crate) change: ControlServiceClient<Channel>,
    pub(crate) observe: ObserveServiceClient<Channel>,
}

impl Control {
    pub(crate) async fn connect(address: &ControlAddress) -> anyhow::Result<Self> {
        let channel = dial(address).await.with_context(|| {
            format!("no peer at {address}; start shoal-peer there, or name another with --control")
        })?;
        Ok(Self {
            change: ControlServiceClient::new(channel.clone()),
            observe: ObserveServiceClient::new(channel),
        })
    }
}

async fn dial(address: &ControlAddress) -> Result<Channel, ConnectError> {
    let options = Options { call_timeout: LONGEST_CALL, ..Options::default() };
    match address {
        ControlAddress::Tcp(address) => Channel::connect(address, &options).await,
        ControlAddress::Unix(path) => Channel::connect_unix(path, &options).await,
    }
}
