//! The control API of a running peer.

use std::time::Duration;

use shoal_common::channel::{Channel, Options};
use shoal_peer::Control as ControlAddress;
use shoal_proto::control::v1::{
    control_service_client::ControlServiceClient, observe_service_client::ObserveServiceClient,
};

use crate::exit::{Exit, Failure};

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
        let options = Options { call_timeout: LONGEST_CALL, ..Options::default() };
        let channel = match address {
            ControlAddress::Tcp(address) => Channel::connect(address, &options).await,
            ControlAddress::Unix(path) => Channel::connect_unix(path, &options).await,
        };
        let channel = channel.map_err(|error| {
            let advice = "start shoal-peer, or say with --control where it is";
            Failure::new(Exit::Unreachable, format!("{error}; {advice}"))
        })?;
        Ok(Self {
            change: ControlServiceClient::new(channel.clone()),
            observe: ObserveServiceClient::new(channel),
        })
    }
}
