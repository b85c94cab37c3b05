//! The ring, asked until it answers: of another node if one does not.

use std::time::Duration;

pub(crate) use shoal_common::ring::Client;
use shoal_common::{
    Address,
    ring::{self, Node, nothing_happened},
};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Response, Status};

use crate::exit::{Exit, Failure};

/// Longest wait for an answer, from whichever node.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait for one node's: it tries for five seconds itself.
const PATIENCE_WITH_ONE: Duration = Duration::from_secs(6);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// What it does to make a call again when it is not known what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    Harmless,
    /// A condition that held the first time may not hold the second time.
    Harmful,
}

/// The ring behind some nodes, for as long as one command.
pub(crate) struct Ring {
    nodes: ring::Ring,
    deadline: Instant,
}

impl Ring {
    pub(crate) fn new(nodes: &[Address]) -> Self {
        Self { nodes: ring::Ring::new(nodes.to_vec()), deadline: Instant::now() + PATIENCE }
    }

    /// A node that answers.
    pub(crate) async fn node(&mut self) -> Result<Node, Failure> {
        let mut passed_over = Vec::new();
        self.nodes.node(self.deadline, &mut passed_over).await.ok_or_else(|| {
            let reasons: Vec<_> = passed_over.iter().map(ToString::to_string).collect();
            let message = format!(
                "no node of the ring answers: {}; start shoal-dht-node, or say with --dht where one is",
                reasons.join(", ")
            );
            Failure::new(Exit::Unreachable, message)
        })
    }

    /// What a node says to a call.
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

/// It tells of the node or the way to it, and not of what was asked.
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
            format!("{words}; it may have happened all the same: look before trying again");
        return Failure::new(Exit::Unreachable, message);
    }
    Failure::refused(status)
}
