//! Downloads complete although a ring node answers with garbage, or stops answering.

use std::{future, path::Path, time::Duration};

use shoal_proto::dht::v1::{
    AnnouncePeerRequest, AnnouncePeerResponse, DeleteRequest, DeleteResponse, FindSuccessorRequest,
    FindSuccessorResponse, GetPeersRequest, GetPeersResponse, GetRequest, GetResponse,
    GetStateRequest, GetStateResponse, GossipRequest, GossipResponse, ListNodesRequest,
    ListNodesResponse, LookupRequest, LookupResponse, NodeInfo, NodeState, NotifyRequest,
    NotifyResponse, ProbeRequest, ProbeResponse, PutRequest, PutResponse, Standing,
    dht_service_server::{DhtService, DhtServiceServer},
};
use shoal_testkit::{
    cluster::{Cluster, assert_same},
    ring::RingCluster,
    serve::{connections, rubbish},
};
use tokio::{net::TcpListener, runtime::Runtime};
use tonic::{Request, Response, Status, transport::Server};

/// A fake node, which claims to be a member of a ring with these successors.
struct Fake {
    successors: Vec<String>,
    vice: Vice,
}

enum Vice {
    /// Does not answer calls about peers.
    FallsSilent,
    /// Refuses announces, and hands out useless peers, with one honest address among them.
    Babbles { honest: String },
}

impl Fake {
    /// Serves on a free port for as long as the runtime lives, and returns HOST:PORT.
    fn start(self, runtime: &Runtime) -> String {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let server = Server::builder().add_service(DhtServiceServer::new(self));
        runtime.spawn(server.serve_with_incoming(connections(listener)));
        address
    }
}

/// Implements the node's service for the fake. The listed calls are unimplemented.
macro_rules! serve_without {
    ($($call:ident: $request:ty => $response:ty),* $(,)?) => {
        #[tonic::async_trait]
        impl DhtService for Fake {
            async fn get_state(
                &self,
                _: Request<GetStateRequest>,
            ) -> Result<Response<GetStateResponse>, Status> {
                let node = |address: &String| NodeInfo {
                    address: address.clone(),
                    ..NodeInfo::default()
                };
                let state = NodeState {
                    standing: Standing::Member.into(),
                    successors: self.successors.iter().map(node).collect(),
                    ..NodeState::default()
                };
                let state = Some(state);
                Ok(Response::new(GetStateResponse { state, ..GetStateResponse::default() }))
            }

            async fn announce_peer(
                &self,
                _: Request<AnnouncePeerRequest>,
            ) -> Result<Response<AnnouncePeerResponse>, Status> {
                match self.vice {
                    Vice::FallsSilent => future::pending().await,
                    Vice::Babbles { .. } => Err(Status::resource_exhausted("full")),
                }
            }

            async fn get_peers(
                &self,
                _: Request<GetPeersRequest>,
            ) -> Result<Response<GetPeersResponse>, Status> {
                let Vice::Babbles { honest } = &self.vice else { return future::pending().await };
                Ok(Response::new(GetPeersResponse { peers: rubbish(None, honest) }))
            }

            $(async fn $call(&self, _: Request<$request>) -> Result<Response<$response>, Status> {
                Err(Status::unimplemented("a fake"))
            })*
        }
    };
}

serve_without! {
    find_successor: FindSuccessorRequest => FindSuccessorResponse,
    notify: NotifyRequest => NotifyResponse,
    lookup: LookupRequest => LookupResponse,
    get: GetRequest => GetResponse,
    put: PutRequest => PutResponse,
    delete: DeleteRequest => DeleteResponse,
    probe: ProbeRequest => ProbeResponse,
    gossip: GossipRequest => GossipResponse,
    list_nodes: ListNodesRequest => ListNodesResponse,
}

/// Downloads with this node as the only source of peers.
fn completes_by(fake: Fake, seeder: &str, file: &Path, runtime: &Runtime) {
    let cluster = Cluster::by_ring(&[fake.start(runtime)]);
    let getter = cluster.get(seeder, "peer", &[]);
    let completed = getter.process.event("completed", Duration::from_secs(15));
    assert_eq!(completed["wasted_bytes"], 0);
    assert_same(file, &getter.directory.join("data.bin"));
}

#[test]
fn a_ring_node_that_stops_answering_is_avoided() {
    let runtime = Runtime::new().expect("a runtime");
    let ring = runtime.block_on(RingCluster::of(1));
    let by_ring = Cluster::by_ring(&[ring.address(0)]);
    let file = by_ring.file("source/data.bin", 2_000_000, 1);
    let seeder = by_ring.seed(&file, &[]);
    let fake = Fake { successors: vec![ring.address(0)], vice: Vice::FallsSilent };
    completes_by(fake, &seeder.id, &file, &runtime);
}

#[test]
fn a_ring_node_that_answers_with_garbage_does_not_delay_downloads() {
    let runtime = Runtime::new().expect("a runtime");
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 2_000_000, 1);
    let seeder = cluster.seed(&file, &[]);
    let vice = Vice::Babbles { honest: seeder.address.clone() };
    let successors = ["", "nonsense", "0.0.0.0:1", "127.0.0.1:0", "127.0.0.1:1"];
    let fake = Fake { successors: successors.map(str::to_owned).to_vec(), vice };
    completes_by(fake, &seeder.id, &file, &runtime);
}
