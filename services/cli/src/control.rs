//! The control API of a running peer.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
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
                let channel = Channel::connect(address, &options).await;
                channel.map(Wire::new).map_err(anyhow::Error::from)
            }
            ControlAddress::Unix(path) => dial_socket(path).await.map(Wire::new),
        };
        let wire = wire.context(
            "no peer answers there; start shoal-peer, or say with --control where it is",
        )?;
        Ok(Self {
            change: ControlServiceClient::new(wire.clone()),
            observe: ObserveServiceClient::new(wire),
        })
    }
}

async fn dial_socket(path: &Path) -> anyhow::Result<transport::Channel> {
    let socket = path.display();
    let endpoint = Endpoint::from_shared(format!("unix:{socket}"))?.timeout(LONGEST_CALL);
    endpoint.connect().await.with_context(|| format!("cannot connect to unix:{socket}"))
}
