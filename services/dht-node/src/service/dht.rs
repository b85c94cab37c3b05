//! `shoal.dht.v1.DhtService`: requests of clients, and calls of nodes that maintain the ring.

use std::net::IpAddr;

use shoal_common::{advertised::AdvertisedAddresses, status::Violations};
use shoal_core::ring::{Introducer, Position};
use shoal_proto::dht::v1::{self as pb, dht_service_server::DhtService, target::Kind};
use tonic::{Request, Response, Status};

use super::operation::{Change, Get};
use crate::{
    membership::ring::RingHandle,
    peer_store::PeerStore,
    replication::local_replica::LocalReplica,
    routing::router::{Operation, Router},
    storage::Key,
    wire::{self, Provenance},
};

/// Nodes in one answer.
const MAX_PAGE: usize = 1000;

/// Answers clients and other nodes.
#[derive(Clone, Debug)]
pub(crate) struct Dht {
    pub(crate) ring: RingHandle,
    pub(crate) router: Router,
    pub(crate) local: LocalReplica,
    pub(crate) swarms: PeerStore,
    /// Which addresses nodes may advertise.
    pub(crate) rule: AdvertisedAddresses,
}

#[tonic::async_trait]
impl DhtService for Dht {
    async fn find_successor(
        &self,
        request: Request<pb::FindSuccessorRequest>,
    ) -> Result<Response<pb::FindSuccessorResponse>, Status> {
        let position = position_of(request.into_inner().target)?;
        let snapshot = self.ring.snapshot.borrow().clone();
        Ok(Response::new(wire::found(&snapshot.routing.find_successor(position))))
    }

    async fn notify(
        &self,
        request: Request<pb::NotifyRequest>,
    ) -> Result<Response<pb::NotifyResponse>, Status> {
        self.expect_node(&request)?;
        let observed = observed(&request)?;
        let provenance = Provenance::Itself(observed, self.rule);
        let state = wire::parse_state(request.into_inner().state, provenance)?;
        self.ring.notified(Introducer::of_ip(observed), state).await;
        Ok(Response::new(pb::NotifyResponse { state: Some(self.state()) }))
    }

    async fn get_state(
        &self,
        request: Request<pb::GetStateRequest>,
    ) -> Result<Response<pb::GetStateResponse>, Status> {
        let mut response =
            pb::GetStateResponse { state: Some(self.state()), ..pb::GetStateResponse::default() };
        if request.into_inner().details {
            let snapshot = self.ring.snapshot.borrow().clone();
            response.fingers = snapshot.routing.fingers.nodes().map(wire::contact).collect();
            let configurations = self.local.configurations();
            let known = configurations.known();
            response.replica_sets = known
                .map(|(range, known)| wire::range_replica_set(range, &known.present))
                .collect();
            response.key_count = self.local.store.live_count();
        }
        Ok(Response::new(response))
    }

    async fn lookup(
        &self,
        request: Request<pb::LookupRequest>,
    ) -> Result<Response<pb::LookupResponse>, Status> {
        let position = position_of(request.into_inner().target)?;
        let outcome = self.router.lookups.look_up(position).await;
        let outcome = outcome.map_err(|failure| Status::unavailable(failure.to_string()))?;
        Ok(Response::new(pb::LookupResponse {
            owner: Some(wire::contact(&outcome.owner)),
            path: outcome.path.iter().map(wire::contact).collect(),
            hops: outcome.hops as u32,
            timeouts: outcome.timeouts as u32,
        }))
    }

    async fn get(
        &self,
        request: Request<pb::GetRequest>,
    ) -> Result<Response<pb::GetResponse>, Status> {
        self.check(&request, request.get_ref().direct)?;
        let request = request.into_inner();
        let operation = Get(checked_key(request.key)?);
        self.run(&operation, request.direct).await
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        self.check(&request, request.get_ref().direct)?;
        let request = request.into_inner();
        let direct = request.direct;
        self.run(&Change::<pb::PutRequest>::try_from(request)?, direct).await
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteRequest>,
    ) -> Result<Response<pb::DeleteResponse>, Status> {
        self.check(&request, request.get_ref().direct)?;
        let request = request.into_inner();
        let direct = request.direct;
        self.run(&Change::<pb::DeleteRequest>::try_from(request)?, direct).await
    }

    async fn announce_peer(
        &self,
        request: Request<pb::AnnouncePeerRequest>,
    ) -> Result<Response<pb::AnnouncePeerResponse>, Status> {
        self.check(&request, request.get_ref().direct)?;
        let observed = observed(&request)?;
        self.swarms.announce(request.into_inner(), observed).await.map(Response::new)
    }

    async fn get_peers(
        &self,
        request: Request<pb::GetPeersRequest>,
    ) -> Result<Response<pb::GetPeersResponse>, Status> {
        self.check(&request, request.get_ref().direct)?;
        self.swarms.peers(request.into_inner()).await.map(Response::new)
    }

    async fn probe(
        &self,
        request: Request<pb::ProbeRequest>,
    ) -> Result<Response<pb::ProbeResponse>, Status> {
        self.expect_node(&request)?;
        let provenance = Provenance::Itself(observed(&request)?, self.rule);
        let state = wire::parse_state(request.into_inner().state, provenance)?;
        let snapshot = self.ring.snapshot.borrow().clone();
        let next = snapshot.routing.find_successor(state.node.position.next());
        let response =
            pb::ProbeResponse { state: Some(self.state()), next: Some(wire::found(&next)) };
        Ok(Response::new(response))
    }

    async fn gossip(
        &self,
        request: Request<pb::GossipRequest>,
    ) -> Result<Response<pb::GossipResponse>, Status> {
        self.expect_node(&request)?;
        let observed = observed(&request)?;
        let request = request.into_inner();
        let entries = wire::parse_rumours(request.rumours, Provenance::Hearsay(observed))?;
        let digest = wire::parse_membership_digest(request.digest)?;
        let news = self.ring.gossiped(Introducer::of_ip(observed), entries, digest).await;
        let rumours = news.iter().map(wire::rumour).collect();
        Ok(Response::new(pb::GossipResponse { rumours }))
    }

    async fn list_nodes(
        &self,
        request: Request<pb::ListNodesRequest>,
    ) -> Result<Response<pb::ListNodesResponse>, Status> {
        let request = request.into_inner();
        let size = match request.page_size as usize {
            0 => MAX_PAGE,
            asked => asked.min(MAX_PAGE),
        };
        let after = Some(request.page_token).filter(|token| !token.is_empty());
        let after = after.map(|token| wire::parse_position(&token)).transpose()?;
        let snapshot = self.ring.snapshot.borrow().clone();
        let live_nodes = snapshot.routing.live_nodes.clone().unwrap_or_default();
        let start = after.map_or(Position::from_u128(0), Position::next);
        let beyond = live_nodes.from(start).filter(|node| node.position >= start);
        let nodes: Vec<_> = beyond.take(size + 1).collect();
        let last = nodes.get(size.wrapping_sub(1)).filter(|_| nodes.len() > size);
        Ok(Response::new(pb::ListNodesResponse {
            next_page_token: last.map(|last| last.position.to_string()).unwrap_or_default(),
            nodes: nodes.into_iter().take(size).map(wire::contact).collect(),
        }))
    }
}

impl Dht {
    /// A call between nodes names its addressee.
    fn expect_node<T>(&self, request: &Request<T>) -> Result<(), Status> {
        wire::require_addressee(self.local.me, request.metadata())
    }

    /// A call may come from a client, unless it is direct: only nodes make those.
    fn check<T>(&self, request: &Request<T>, direct: bool) -> Result<(), Status> {
        if direct {
            self.expect_node(request)
        } else {
            wire::check_addressee(self.local.me, request.metadata())
        }
    }

    fn state(&self) -> pb::NodeState {
        wire::state(&self.ring.snapshot.borrow().routing.state)
    }

    /// Executes it on this node, or on the node that serves the key.
    async fn run<O: Operation>(
        &self,
        operation: &O,
        direct: bool,
    ) -> Result<Response<O::Answer>, Status> {
        let values = &self.router.values;
        let here = direct || values.may_answer(operation.position());
        let answer =
            if here { operation.here(values).await } else { self.router.route(operation).await };
        answer.map(Response::new)
    }
}

/// The source address of a call.
fn observed<T>(request: &Request<T>) -> Result<IpAddr, Status> {
    let remote = request.remote_addr().map(|remote| remote.ip());
    remote.ok_or_else(|| Status::internal("the connection has no address"))
}

fn position_of(target: Option<pb::Target>) -> Result<Position, Status> {
    match target.and_then(|target| target.kind) {
        Some(Kind::Key(key)) => Ok(checked_key(key)?.position()),
        Some(Kind::Position(position)) => Ok(wire::parse_position(&position)?),
        None => {
            let mut violations = Violations::default();
            violations.add("target", "is missing; give a key or a position");
            Err(violations.into())
        }
    }
}

fn checked_key(key: bytes::Bytes) -> Result<Key, Status> {
    let mut violations = Violations::default();
    let key = violations.take("key", Key::try_from(key));
    key.ok_or_else(|| violations.into())
}
