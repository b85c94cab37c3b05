//! Downloads complete although a tracker answers with garbage, or does not answer.

use std::{future, time::Duration};

use shoal_proto::tracker::v1::{
    AnnounceRequest, AnnounceResponse, GetSwarmRequest, GetSwarmResponse, ListSwarmsRequest,
    ListSwarmsResponse,
    tracker_service_server::{TrackerService, TrackerServiceServer},
};
use shoal_testkit::{
    cluster::{Cluster, assert_same},
    serve::{connections, rubbish},
};
use tokio::{net::TcpListener, runtime::Runtime};
use tonic::{Request, Response, Status, transport::Server};

/// A fake tracker.
#[derive(Clone)]
enum Fake {
    /// Never answers.
    Silent,
    /// Hands out useless peers, with one honest address among them.
    Babbling { honest: String },
}

impl Fake {
    /// Serves on a free port for as long as the runtime lives, and returns HOST:PORT.
    fn start(self, runtime: &Runtime) -> String {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let server = Server::builder().add_service(TrackerServiceServer::new(self));
        runtime.spawn(server.serve_with_incoming(connections(listener)));
        address
    }
}

#[tonic::async_trait]
impl TrackerService for Fake {
    async fn announce(
        &self,
        request: Request<AnnounceRequest>,
    ) -> Result<Response<AnnounceResponse>, Status> {
        let honest = match self {
            Self::Silent => return future::pending().await,
            Self::Babbling { honest } => honest,
        };
        Ok(Response::new(AnnounceResponse {
            peers: rubbish(request.into_inner().peer, honest),
            // A negative interval.
            interval: Some(prost_types::Duration { seconds: -7, nanos: 3 }),
            complete_count: u32::MAX,
            observed_address: "nowhere".to_owned(),
            ..AnnounceResponse::default()
        }))
    }

    async fn list_swarms(
        &self,
        _: Request<ListSwarmsRequest>,
    ) -> Result<Response<ListSwarmsResponse>, Status> {
        Err(Status::unimplemented("a fake"))
    }

    async fn get_swarm(
        &self,
        _: Request<GetSwarmRequest>,
    ) -> Result<Response<GetSwarmResponse>, Status> {
        Err(Status::unimplemented("a fake"))
    }
}

/// Downloads with this tracker beside an honest one.
fn completes_beside(fake: impl FnOnce(String) -> Fake) {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 2_000_000, 1);
    let seeder = cluster.seed(&file, &[]);
    let runtime = Runtime::new().expect("a runtime");
    let fake = fake(seeder.address.clone()).start(&runtime);
    let getter = cluster.get(&seeder.id, "peer", &["--tracker", &fake]);
    let completed = getter.process.event("completed", Duration::from_secs(10));
    assert_eq!(completed["wasted_bytes"], 0);
    assert_same(&file, &getter.directory.join("data.bin"));
}

#[test]
fn a_tracker_that_never_answers_does_not_delay_downloads() {
    completes_beside(|_| Fake::Silent);
}

#[test]
fn a_tracker_that_answers_with_garbage_does_not_delay_downloads() {
    completes_beside(|honest| Fake::Babbling { honest });
}
