//! The peer of a one-shot command.

use shoal_common::{health::Health, server, supervisor::Supervisor};
use shoal_core::{
    Address, PeerId,
    content::{ContentId, Link, LinkError},
};
use shoal_peer::{Node, NodeConfig, Phase, Status};
use shoal_proto::control::v1::ContentStatus;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    args::OneShotArgs,
    exit::{Exit, Failure},
    progress::Snapshot,
};

/// Runs a peer with a new id until `work` ends. The peer has ended when this returns, and `stop` is
/// cancelled if a part of it fails.
pub(super) async fn run(
    args: &OneShotArgs,
    sources: PeerSources,
    stop: &CancellationToken,
    work: impl AsyncFnOnce(&Node) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let listener = server::bind(&args.listen).await.map_err(Failure::from)?;
    let config = NodeConfig {
        advertise: args.advertise.clone(),
        trackers: sources.trackers,
        ring_nodes: sources.ring_nodes,
        max_upload: args.up,
        max_download: args.down,
        ..NodeConfig::new(PeerId::new(Uuid::new_v4()))
    };
    let health = Health::new(&shoal_peer::services()).await;
    health.ready().await;
    let supervisor = Supervisor::new(health);
    let (node, running) = Node::start(config, &supervisor, listener)?;
    let work = async {
        let outcome = work(&node).await;
        node.stop();
        running.ended().await;
        outcome
    };
    supervisor.supervise(stop, Box::pin(work)).await
}

/// Trackers and ring nodes to find peers with.
pub(super) struct PeerSources {
    pub(super) trackers: Vec<Address>,
    pub(super) ring_nodes: Vec<Address>,
}

impl PeerSources {
    /// From the flags and the link; at least one is required.
    pub(super) fn of(args: &OneShotArgs, link: Option<&Link>) -> anyhow::Result<Self> {
        let trackers = merge(&args.trackers, link.map_or(&[], Link::trackers))?;
        let ring_nodes = merge(&args.ring.nodes, link.map_or(&[], Link::ring_nodes))?;
        if trackers.is_empty() && ring_nodes.is_empty() {
            let message = "no tracker or ring node to find peers with; give --tracker HOST:PORT or \
                           --dht HOST:PORT, or a link with one";
            return Err(Failure::new(Exit::Usage, message).into());
        }
        Ok(Self { trackers, ring_nodes })
    }

    /// A link with these sources.
    pub(super) fn link(&self, id: ContentId) -> Result<Link, LinkError> {
        let texts = |addresses: &[Address]| addresses.iter().map(ToString::to_string).collect();
        Link::new(id, texts(&self.trackers), texts(&self.ring_nodes))
    }
}

/// The addresses of a flag, then those that only the link has.
fn merge(flag: &[Address], link: &[String]) -> anyhow::Result<Vec<Address>> {
    let mut addresses = flag.to_vec();
    for address in link {
        let address = address.parse()?;
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// The error of a content that has failed.
pub(super) fn check(status: &Status) -> Result<(), Failure> {
    match &status.phase {
        Phase::Failed(error) => Err(Failure::new(Exit::of_store(error), error.to_string())),
        Phase::Resolving | Phase::Downloading | Phase::Seeding => Ok(()),
    }
}

impl From<&Status> for Snapshot {
    fn from(status: &Status) -> Self {
        (&ContentStatus::from(status)).into()
    }
}
