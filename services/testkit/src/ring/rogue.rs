//! A ring node that violates the protocol.

use std::future::pending;

use shoal_core::ring::{NodeId, Position};
use shoal_proto::dht::v1::{
    AnnouncePeerRequest, AnnouncePeerResponse, DeleteRequest, DeleteResponse, FindSuccessorRequest,
    FindSuccessorResponse, GetPeersRequest, GetPeersResponse, GetRequest, GetResponse,
    GetStateRequest, GetStateResponse, GossipRequest, GossipResponse, ListNodesRequest,
    ListNodesResponse, LookupRequest, LookupResponse, NodeInfo, NodeState, NotifyRequest,
    NotifyResponse, ProbeRequest, ProbeResponse, PutRequest, PutResponse, Standing,
    dht_service_server::{DhtService, DhtServiceServer},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{Request, Response, Status, transport::Server};
use uuid::Uuid;

use crate::serve::connections;

/// How a node violates the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vice {
    /// It accepts connections and calls, and never answers.
    Silent,
    /// It returns nodes with wrong positions.
    ForgedPositions,
    /// It refers every lookup to the same nodes, itself among them, and never joins.
    Circles,
}

/// A node that violates the protocol. It stops when dropped.
pub struct Rogue {
    /// Its own id, position and address.
    pub info: NodeInfo,
    server: JoinHandle<()>,
}

impl Rogue {
    /// Starts a node that returns `others`, and itself, wherever an answer lists nodes.
    pub async fn start(vice: Vice, others: Vec<NodeInfo>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("the listener is bound");
        let id = NodeId::new(Uuid::new_v4());
        let info = NodeInfo {
            node_id: id.to_string(),
            position: Position::of_node(id, 0).to_string(),
            address: address.to_string(),
            ..NodeInfo::default()
        };
        let node = Node { vice, info: info.clone(), others };
        let server = Server::builder().add_service(DhtServiceServer::new(node));
        let server = server.serve_with_incoming(connections(listener));
        let server = tokio::spawn(async { server.await.expect("the server runs") });
        Self { info, server }
    }
}

impl Drop for Rogue {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Node {
    vice: Vice,
    info: NodeInfo,
    others: Vec<NodeInfo>,
}

impl Node {
    async fn answer<T>(&self, answer: T) -> Result<Response<T>, Status> {
        match self.vice {
            Vice::Silent => pending().await,
            Vice::ForgedPositions | Vice::Circles => Ok(Response::new(answer)),
        }
    }

    fn state(&self) -> NodeState {
        let standing = match self.vice {
            Vice::Silent | Vice::ForgedPositions => Standing::Member,
            Vice::Circles => Standing::Joining,
        };
        NodeState {
            node: Some(self.info.clone()),
            standing: standing.into(),
            predecessor: None,
            successors: self.named(),
        }
    }

    /// The nodes that it returns.
    fn named(&self) -> Vec<NodeInfo> {
        let mut named = self.others.clone();
        named.push(self.info.clone());
        if self.vice == Vice::ForgedPositions {
            for node in &mut named {
                node.position = format!("{:032x}", 1);
            }
        }
        named
    }
}

#[tonic::async_trait]
impl DhtService for Node {
    async fn find_successor(
        &self,
        _request: Request<FindSuccessorRequest>,
    ) -> Result<Response<FindSuccessorResponse>, Status> {
        let (node, closer) = (Some(self.info.clone()), self.named());
        self.answer(FindSuccessorResponse { node, closer, ..FindSuccessorResponse::default() })
            .await
    }

    async fn get_state(
        &self,
        _request: Request<GetStateRequest>,
    ) -> Result<Response<GetStateResponse>, Status> {
        self.answer(GetStateResponse { state: Some(self.state()), ..GetStateResponse::default() })
            .await
    }

    async fn notify(
        &self,
        _request: Request<NotifyRequest>,
    ) -> Result<Response<NotifyResponse>, Status> {
        self.answer(NotifyResponse { state: Some(self.state()) }).await
    }

    async fn probe(
        &self,
        _request: Request<ProbeRequest>,
    ) -> Result<Response<ProbeResponse>, Status> {
        self.answer(ProbeResponse { state: Some(self.state()), next: None }).await
    }

    async fn gossip(
        &self,
        _request: Request<GossipRequest>,
    ) -> Result<Response<GossipResponse>, Status> {
        self.answer(GossipResponse::default()).await
    }

    async fn lookup(
        &self,
        _request: Request<LookupRequest>,
    ) -> Result<Response<LookupResponse>, Status> {
        self.answer(LookupResponse::default()).await
    }

    async fn get(&self, _request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        self.answer(GetResponse::default()).await
    }

    async fn put(&self, _request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        self.answer(PutResponse::default()).await
    }

    async fn delete(
        &self,
        _request: Request<DeleteRequest>,
    ) -> Result<Response<DeleteResponse>, Status> {
        self.answer(DeleteResponse::default()).await
    }

    async fn announce_peer(
        &self,
        _request: Request<AnnouncePeerRequest>,
    ) -> Result<Response<AnnouncePeerResponse>, Status> {
        self.answer(AnnouncePeerResponse::default()).await
    }

    async fn get_peers(
        &self,
        _request: Request<GetPeersRequest>,
    ) -> Result<Response<GetPeersResponse>, Status> {
        self.answer(GetPeersResponse::default()).await
    }

    async fn list_nodes(
        &self,
        _request: Request<ListNodesRequest>,
    ) -> Result<Response<ListNodesResponse>, Status> {
        self.answer(ListNodesResponse::default()).await
    }
}
