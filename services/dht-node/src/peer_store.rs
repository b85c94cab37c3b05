//! The peers of swarms, as BEP 5 stores them: soft state in memory. A peer is stored on the closest
//! successor of the content and the nodes after it, for 15 minutes unless it announces itself
//! again.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use rand::seq::SliceRandom as _;
use shoal_common::{
    advertised::AdvertisedAddresses, announced, dns::DnsCache, lock::Mutex, status::Violations,
};
use shoal_core::{
    Address,
    content::ContentId,
    registry::{self, Announce, Registry, Tally},
    ring::{Contact, NodeId, Position, replicas},
};
use shoal_proto::{
    dht::v1::{AnnouncePeerRequest, AnnouncePeerResponse, GetPeersRequest, GetPeersResponse},
    types::v1::PeerInfo,
};
use tokio::time::timeout;
use tonic::Status;

use crate::{
    network::calls::Calls,
    replication::reconciler::REPLICAS,
    routing::lookup::Lookups,
    wire::refusal::{self, Reason},
};

/// A registry keeps a peer for two and a half times this: 15 minutes.
const INTERVAL: Duration = Duration::from_secs(6 * 60);
/// The interval at which a peer announces itself again: twice before it expires.
const RENEW: Duration = Duration::from_secs(5 * 60);
/// Peers of all swarms together, at most about 1 kB each.
const MAX_PEERS: usize = 100_000;
/// Peers of one swarm.
const MAX_PEERS_PER_SWARM: usize = 1000;
/// Swarms stored on one node.
const MAX_SWARMS: usize = 100_000;
/// Peers that announce themselves from one address, in all swarms together.
const MAX_PEERS_PER_ADDRESS: usize = 10_000;
/// Peers in an answer, by default and at most.
const DEFAULT_SAMPLE: usize = 50;
const MAX_SAMPLE: usize = 200;
/// Names of nodes that are resolved to recognise a node that forwards an announce.
const MAX_NAMES: usize = 64;
/// Longest wait for another node that stores a swarm.
const PATIENCE: Duration = Duration::from_secs(1);

/// The swarms that this node stores, and the way to the others. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct PeerStore {
    me: NodeId,
    rule: AdvertisedAddresses,
    registry: Arc<Mutex<Registry>>,
    lookups: Lookups,
    calls: Calls,
    /// Addresses of nodes that advertise names.
    names: DnsCache,
}

impl PeerStore {
    pub(crate) fn new(
        me: NodeId,
        rule: AdvertisedAddresses,
        lookups: Lookups,
        calls: Calls,
    ) -> Self {
        let settings = registry::Settings {
            interval: INTERVAL,
            max_swarms: MAX_SWARMS,
            max_peers: MAX_PEERS,
            max_peers_per_swarm: MAX_PEERS_PER_SWARM,
            max_peers_per_address: MAX_PEERS_PER_ADDRESS,
            near_percent: 0,
        };
        let registry =
            Arc::new(Mutex::new(Registry::new(settings, Tally::default(), Instant::now())));
        Self { me, rule, registry, lookups, calls, names: DnsCache::default() }
    }

    /// Whether a node of the ring is at an address. Without certificates there is no better proof.
    async fn is_node(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let nodes = self.calls.nodes();
        if nodes.iter().filter_map(Address::ip).any(|node| node.to_canonical() == ip) {
            return true;
        }
        for name in nodes.iter().filter(|node| node.ip().is_none()).take(MAX_NAMES) {
            let behind = self.names.addresses(name).await.unwrap_or_default();
            if behind.iter().filter_map(Address::ip).any(|other| other == ip) {
                return true;
            }
        }
        false
    }

    /// Stores a peer, on this node if the call is direct, else on the nodes of the swarm. It
    /// belongs to the host that announced it, which a forwarding node names.
    pub(crate) async fn announce(
        &self,
        request: AnnouncePeerRequest,
        observed: IpAddr,
    ) -> Result<AnnouncePeerResponse, Status> {
        let mut violations = Violations::default();
        let content = violations.take("content_id", request.content_id.parse::<ContentId>());
        let source = match &*request.source {
            "" => Some(observed),
            source => violations.take("source", source.parse::<IpAddr>()),
        };
        let (Some(content), Some(source)) = (content, source) else {
            return Err(violations.into());
        };
        let source = source.to_canonical();
        if source != observed.to_canonical() && !(request.direct && self.is_node(observed).await) {
            let message =
                format!("source: {observed} is not a node of this ring, as far as is known");
            return Err(Status::permission_denied(message));
        }
        let peer = violations
            .take("peer", request.peer.ok_or("is missing"))
            .and_then(|peer| announced::peer(peer, source, self.rule, &mut violations));
        let Some(peer) = peer else { return Err(violations.into()) };
        let response = |interval: Duration| AnnouncePeerResponse {
            interval: interval.min(RENEW).try_into().ok(),
            observed_address: String::from(&peer.address),
        };
        if request.direct {
            return self.keep(content, peer.clone(), request.stopped, source).map(response);
        }
        let request = AnnouncePeerRequest {
            content_id: content.to_string(),
            peer: Some(announced::info(peer.clone())),
            stopped: request.stopped,
            direct: true,
            source: source.to_string(),
        };
        let replicas = self.replicas(content).await?;
        let kept: FuturesUnordered<_> = replicas
            .iter()
            .map(async |local| {
                if local.id == self.me {
                    return self.keep(content, peer.clone(), request.stopped, source);
                }
                let mut client = self.calls.client(local)?;
                let kept = within(client.announce_peer(request.clone())).await?.into_inner();
                self.calls.met(local);
                let interval = kept.interval.and_then(|asked| Duration::try_from(asked).ok());
                Ok(interval.unwrap_or(RENEW))
            })
            .collect();
        let kept: Vec<_> = kept.collect().await;
        any(kept).map(|asked| response(asked.into_iter().min().unwrap_or(RENEW)))
    }

    /// A sample of a swarm's peers, from this node if the call is direct, else from all nodes that
    /// store it.
    pub(crate) async fn peers(&self, request: GetPeersRequest) -> Result<GetPeersResponse, Status> {
        let mut violations = Violations::default();
        let content = violations.take("content_id", request.content_id.parse::<ContentId>());
        let Some(content) = content else { return Err(violations.into()) };
        let max_peers = match request.max_peers as usize {
            0 => DEFAULT_SAMPLE,
            asked => asked.min(MAX_SAMPLE),
        };
        if request.direct {
            return Ok(GetPeersResponse { peers: self.kept(content, max_peers) });
        }
        let request = GetPeersRequest { direct: true, ..request };
        let replicas = self.replicas(content).await?;
        let asked: FuturesUnordered<_> = replicas
            .iter()
            .map(async |local| {
                if local.id == self.me {
                    return Ok(self.kept(content, max_peers));
                }
                let mut client = self.calls.client(local)?;
                let found = within(client.get_peers(request.clone())).await?.into_inner();
                self.calls.met(local);
                Ok(found.peers)
            })
            .collect();
        let answers = any(asked.collect().await)?.into_iter().flatten();
        let distinct: HashMap<_, _> = answers.map(|peer| (peer.peer_id.clone(), peer)).collect();
        let mut peers: Vec<PeerInfo> = distinct.into_values().collect();
        peers.shuffle(&mut rand::rng());
        peers.truncate(max_peers);
        Ok(GetPeersResponse { peers })
    }

    /// The nodes that store a content's swarm: its closest successor and the nodes after it.
    async fn replicas(&self, content: ContentId) -> Result<Vec<Contact>, Status> {
        let position = Position::of_key(content.as_bytes());
        let outcome = self.lookups.look_up(position).await;
        let outcome =
            outcome.map_err(|failure| refusal::status(Reason::NotServing, failure.to_string()))?;
        let after = outcome.successors.iter().skip_while(|node| node.id != outcome.owner.id);
        let around = std::iter::once(&outcome.owner).chain(after.skip(1));
        Ok(replicas(around, REPLICAS).into_iter().cloned().collect())
    }

    fn keep(
        &self,
        content: ContentId,
        peer: registry::Peer,
        stopped: bool,
        source: IpAddr,
    ) -> Result<Duration, Status> {
        let mut registry = self.registry.lock();
        if stopped {
            registry.stop(Instant::now(), content, peer.id, source);
            return Ok(RENEW);
        }
        let announce = Announce { content, peer, source, numwant: 0 };
        registry
            .announce(Instant::now(), announce, &mut rand::rng())
            .map(|handout| handout.interval)
            .map_err(|refusal| shoal_common::status::exhausted(refusal.to_string(), RENEW))
    }

    fn kept(&self, content: ContentId, max_peers: usize) -> Vec<PeerInfo> {
        let mut registry = self.registry.lock();
        let swarm = registry.swarm(Instant::now(), content, max_peers, &mut rand::rng());
        let peers = swarm.map(|(_, peers)| peers).unwrap_or_default();
        peers.into_iter().map(announced::info).collect()
    }
}

async fn within<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let silent = |_| Status::unavailable("a node that keeps the swarm does not answer");
    timeout(PATIENCE, call).await.map_err(silent)?
}

/// The answers of the nodes that answered; an error if none did.
fn any<T>(answers: Vec<Result<T, Status>>) -> Result<Vec<T>, Status> {
    let mut answered = Vec::new();
    let mut failed = None;
    for answer in answers {
        match answer {
            Ok(answer) => answered.push(answer),
            Err(status) => failed = Some(status),
        }
    }
    match failed {
        Some(status) if answered.is_empty() => Err(status),
        _ => Ok(answered),
    }
}
