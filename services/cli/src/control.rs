//! The control API of a running peer.

use std::{path::Path, time::Duration};

use shoal_common::channel::{Channel, Options};
use shoal_peer::Control as ControlAddress;
use shoal_proto::control::v1::{
    control_service_client::ControlServiceClient, observe_service_client::ObserveServiceClient,
};
use tonic::{
    body::Body,
    codegen::http::{Request, Response},
    transport::{self, Endpoint},
};
use tower::util::BoxCloneSyncService;

use crate::exit::{Exit, Failure};

/// Hashing or sending a large content takes long, and its answer comes at the end. That the peer is
/// gone, the connection's keepalive tells.
const LONGEST_CALL: Duration = Duration::from_secs(7 * 24 * 3600);

/// Over TCP or a Unix socket.
type Wire = BoxCloneSyncService<Request<Body>, Response<Body>, transport::Error>;

/// Both services of a peer's control API.
pub(crate) struct Control {
    pub(crate) change: ControlServiceClient<Wire>,
    pub(crate) observe: ObserveServiceClient<Wire>,
}

impl Control {
    pub(crate) async fn connect(address: &ControlAddress) -> anyhow::Result<Self> {
        let wire = match address {
            ControlAddress::Tcp(address) => {
                let options = Options { call_timeout: LONGEST_CALL, ..Options::default() };
                Channel::connect(address, &options).await.map(Wire::new).map_err(|e| e.to_string())
            }
            ControlAddress::Unix(path) => dial_socket(path).await.map(Wire::new),
        };
        let wire = wire.map_err(|error| {
            let advice = "start shoal-peer, or say with --control where it is";
            Failure::new(Exit::Unreachable, format!("{error}; {advice}"))
        })?;
        Ok(Self {
            change: ControlServiceClient::new(wire.clone()),
            observe: ObserveServiceClient::new(wire),
        })
    }
}

async fn dial_socket(path: &Path) -> Result<transport::Channel, String> {
    let socket = format!("unix:{}", path.display());
    let dial =
        async { Endpoint::from_shared(socket.clone())?.timeout(LONGEST_CALL).connect().await };
    dial.await.map_err(|error| {
        let error = anyhow::Error::from(error);
        // What the system said, not what the layers above made of it.
        format!("cannot connect to {socket}: {}", error.root_cause())
    })
}
