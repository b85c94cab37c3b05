//! Calls to the ring, repeated at another node if one does not answer.

use std::time::Duration;

pub(crate) use shoal_common::ring_client::Client;
use shoal_common::ring_client::{Node, RingClient, nothing_happened};
use shoal_core::Address;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Response, Status};

use crate::exit::{Exit, Failure};

/// The longest wait for an answer, over all nodes.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest wait for one node's answer: the node itself tries for 5 s.
const PATIENCE_WITH_ONE: Duration = Duration::from_secs(6);
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Whether a call with an unknown outcome may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    Harmless,
    /// The call has a condition, which may hold the first time and not the second time.
    Harmful,
}

/// The ring of some nodes, for the time of one command.
pub(crate) struct RingSession {
    nodes: RingClient,
    deadline: Instant,
}

impl RingSession {
    pub(crate) fn new(nodes: &[Address]) -> Self {
        Self { nodes: RingClient::new(nodes.to_vec()), deadline: Instant::now() + PATIENCE }
    }

    /// A node that answers.
    pub(crate) async fn node(&mut self) -> Result<Node, Failure> {
        let mut passed_over = Vec::new();
        self.nodes.node(self.deadline, &mut passed_over).await.ok_or_else(|| {
            let reasons: Vec<_> = passed_over.iter().map(ToString::to_string).collect();
            let message = format!(
                "no node of the ring answers: {}; start shoal-dht-node, or give a node with --dht",
                reasons.join(", ")
            );
            Failure::new(Exit::Unreachable, message)
        })
    }

    /// A node's answer to a call.
    pub(crate) async fn call<T>(
        &mut self,
        repeat: Repeat,
        call: impl AsyncFn(Client) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        loop {
            let node = self.node().await?;
            let patience = self.deadline.min(Instant::now() + PATIENCE_WITH_ONE);
            let status = match timeout_at(patience, call(node.client)).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded(format!("{} does not answer", node.address)),
            };
            if !is_worth_repeating(&status, repeat) || Instant::now() + PAUSE >= self.deadline {
                return Err(failure(&status, repeat));
            }
            self.nodes.pass_over();
            sleep(PAUSE).await;
        }
    }
}

fn is_worth_repeating(status: &Status, repeat: Repeat) -> bool {
    is_no_answer(status) && (repeat == Repeat::Harmless || nothing_happened(status))
}

/// The node or the connection failed: this is no answer to the request.
fn is_no_answer(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown
    )
}

fn failure(status: &Status, repeat: Repeat) -> Failure {
    if repeat == Repeat::Harmful && is_no_answer(status) && !nothing_happened(status) {
        let words = shoal_common::status::words(status);
        let message =
            format!("{words}; the write may have taken effect: read the key before you retry");
        return Failure::new(Exit::Unreachable, message);
    }
    Failure::refused(status)
}
