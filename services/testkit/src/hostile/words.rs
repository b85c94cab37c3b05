//! A tracker whose texts contain terminal commands.

use std::thread;

use shoal_proto::{
    tracker::v1::{
        AnnounceRequest, AnnounceResponse, GetSwarmRequest, GetSwarmResponse, ListSwarmsRequest,
        ListSwarmsResponse, SwarmInfo,
        tracker_service_server::{TrackerService, TrackerServiceServer},
    },
    types::v1::{Location, PeerInfo},
};
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status, transport::Server};

use crate::serve::connections;

/// Clears the screen, starts a line that looks like ours, and reverses the text after it.
pub const WORDS: &str =
    "all is well\u{1b}[2J\u{1b}]0;owned\u{7}\r\nerror: \u{202e}txet\u{9b}1m\u{2066}";

/// Whether a text contains characters that a terminal interprets. Line feeds are allowed.
pub fn has_commands(text: &str) -> bool {
    text.contains(|c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    })
}

/// A tracker that puts [`WORDS`] into every text it sends. It stops when dropped.
pub struct WordyTracker {
    /// HOST:PORT.
    pub address: String,
    _stop: DropGuard,
}

/// How it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// With the requested lists, all texts of which are [`WORDS`].
    Lists,
    /// With an error whose message is [`WORDS`].
    Refusals,
}

impl WordyTracker {
    /// Starts the tracker.
    pub fn start(answers: Answers) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("the listener is bound").to_string();
        thread::spawn(move || {
            let server = Server::builder().add_service(TrackerServiceServer::new(answers));
            let serving = server.serve_with_incoming(connections(listener));
            runtime.block_on(stopped.run_until_cancelled(serving))
        });
        Self { address, _stop: stop.drop_guard() }
    }
}

impl Answers {
    fn or_refuse<T>(self, answer: T) -> Result<Response<T>, Status> {
        match self {
            Self::Lists => Ok(Response::new(answer)),
            Self::Refusals => Err(Status::failed_precondition(WORDS)),
        }
    }
}

fn swarm() -> SwarmInfo {
    SwarmInfo { content_id: WORDS.to_owned(), complete_count: 1, incomplete_count: 0 }
}

fn peer() -> PeerInfo {
    let words = || WORDS.to_owned();
    let location = Location { region: words(), zone: words(), node: words() };
    PeerInfo { peer_id: words(), address: words(), location: Some(location), complete: true }
}

#[tonic::async_trait]
impl TrackerService for Answers {
    async fn announce(
        &self,
        _: Request<AnnounceRequest>,
    ) -> Result<Response<AnnounceResponse>, Status> {
        let observed_address = WORDS.to_owned();
        let peers = vec![peer()];
        self.or_refuse(AnnounceResponse { peers, observed_address, ..AnnounceResponse::default() })
    }

    async fn list_swarms(
        &self,
        _: Request<ListSwarmsRequest>,
    ) -> Result<Response<ListSwarmsResponse>, Status> {
        self.or_refuse(ListSwarmsResponse {
            swarms: vec![swarm()],
            ..ListSwarmsResponse::default()
        })
    }

    async fn get_swarm(
        &self,
        _: Request<GetSwarmRequest>,
    ) -> Result<Response<GetSwarmResponse>, Status> {
        self.or_refuse(GetSwarmResponse { swarm: Some(swarm()), peers: vec![peer()] })
    }
}
