//! A client with a hostile service.

use shoal_common::channel::{Channel, Options};
use shoal_core::Address;
use shoal_proto::{
    tracker::v1::{
        AnnounceRequest, AnnounceResponse, GetSwarmRequest, GetSwarmResponse, ListSwarmsRequest,
        ListSwarmsResponse, SwarmInfo,
        tracker_service_client::TrackerServiceClient,
        tracker_service_server::{TrackerService, TrackerServiceServer},
    },
    types::v1::PeerInfo,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status, transport::Server};

/// A tracker with answers that are much larger in memory than on the wire, too long, or honest.
struct Hostile;

#[tonic::async_trait]
impl TrackerService for Hostile {
    async fn announce(
        &self,
        _: Request<AnnounceRequest>,
    ) -> Result<Response<AnnounceResponse>, Status> {
        let peers = vec![PeerInfo::default(); 100_000];
        Ok(Response::new(AnnounceResponse { peers, ..AnnounceResponse::default() }))
    }

    async fn list_swarms(
        &self,
        _: Request<ListSwarmsRequest>,
    ) -> Result<Response<ListSwarmsResponse>, Status> {
        let swarms = vec![SwarmInfo { content_id: "x".repeat(300 << 10), ..SwarmInfo::default() }];
        Ok(Response::new(ListSwarmsResponse { swarms, ..ListSwarmsResponse::default() }))
    }

    async fn get_swarm(
        &self,
        _: Request<GetSwarmRequest>,
    ) -> Result<Response<GetSwarmResponse>, Status> {
        let peer = PeerInfo {
            peer_id: "01890a5d-ac96-774b-bcce-b302099a8057".to_owned(),
            address: "10.0.0.1:7072".to_owned(),
            ..PeerInfo::default()
        };
        let peers = vec![peer; 200];
        Ok(Response::new(GetSwarmResponse { swarm: None, peers }))
    }
}

#[tokio::test]
async fn answers_that_expand_or_are_too_long_are_refused_and_honest_ones_accepted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = Address::from(listener.local_addr().expect("it is bound"));
    let server = Server::builder().add_service(TrackerServiceServer::new(Hostile));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let channel = Channel::connect(&address, &Options::default()).await.expect("it listens");
    let mut client = TrackerServiceClient::new(channel);
    let expands = client.announce(AnnounceRequest::default()).await.expect_err("it expands");
    assert_eq!(expands.code(), Code::Internal, "{expands}");
    let long = client.list_swarms(ListSwarmsRequest::default()).await.expect_err("it is long");
    assert_eq!(long.code(), Code::OutOfRange, "{long}");
    let honest = client.get_swarm(GetSwarmRequest::default()).await.expect("it is honest");
    assert_eq!(honest.into_inner().peers.len(), 200);
}
