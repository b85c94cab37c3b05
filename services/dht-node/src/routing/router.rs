//! Requests that any node accepts: finds the owner of the key, and forwards the request to it.

use std::{collections::HashSet, sync::Arc, time::Duration};

use shoal_common::lock::Mutex;
use shoal_core::{
    backoff::Backoff,
    ring::{Contact, NodeId, Position},
};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::{Code, Status};
use tracing::debug;

use crate::{
    network::calls::{Calls, Client, never_sent},
    replication::kv::Values,
    routing::lookup::Lookups,
    time::{Clocks, START_WINDOW, TOLERANCE},
    wire::refusal::{self, Reason},
};

/// How long a request is retried while a range changes hands: a lease expires, the next set is
/// agreed on, and some time is left.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pauses between retries.
const FIRST_WAIT: Duration = Duration::from_millis(10);
const MAX_WAIT: Duration = Duration::from_millis(250);
/// Owners remembered, at most.
const MAX_PROVEN: usize = 65_536;
/// Longest wait for one node's answer. A write that has not begun by then is never executed there.
const ANSWER_PATIENCE: Duration = START_WINDOW.saturating_add(TOLERANCE);

/// A request to the node that serves a key.
pub(crate) trait Operation: Sync {
    /// Its answer.
    type Answer: Send;

    /// The position of the key.
    fn position(&self) -> Position;

    /// Its effect on the key.
    fn effect(&self) -> Effect;

    /// Executes it on this node, if this node serves the key.
    fn here(&self, values: &Values) -> impl Future<Output = Result<Self::Answer, Status>> + Send;

    /// Has another node execute it; a write only until this time by the clock of that node.
    fn there(
        &self,
        client: Client,
        not_after_ms: u64,
    ) -> impl Future<Output = Result<Self::Answer, Status>> + Send;
}

/// The effect of an operation on its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It reads.
    None,
    /// Repeating it changes nothing, unless another client has written in between.
    Same,
    /// It may happen once at most.
    Once,
}

/// Finds the nodes that serve keys. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Router {
    me: NodeId,
    pub(crate) lookups: Lookups,
    calls: Calls,
    pub(crate) values: Values,
    /// Owners that lookups found: they are asked without a lookup where the membership list names
    /// them. Nodes that are known from hearsay alone are not.
    proven: Arc<Mutex<HashSet<NodeId>>>,
    clocks: Arc<Clocks>,
}

impl Router {
    pub(crate) fn new(me: NodeId, lookups: Lookups, calls: Calls, values: Values) -> Self {
        Self { me, lookups, calls, values, proven: Arc::default(), clocks: Arc::default() }
    }

    /// Has the node that serves the key execute the operation.
    pub(crate) async fn route<O: Operation>(&self, operation: &O) -> Result<O::Answer, Status> {
        let deadline = Instant::now() + PATIENCE;
        let mut backoff = Backoff::new(FIRST_WAIT, MAX_WAIT);
        let mut hint = self.hinted(operation.position());
        loop {
            let owner = match hint.take() {
                Some(owner) => Ok(owner),
                None => self.owner(operation.position(), deadline).await,
            };
            let answer = match owner {
                Ok(owner) => self.ask_owner(&owner, operation, deadline).await,
                Err(status) => Err(status),
            };
            let status = match answer {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            let wait = match repeat(&status, operation.effect()) {
                Repeat::Never => return Err(status),
                Repeat::Soon => backoff.next(&mut rand::rng()),
                Repeat::OnceItIsOver => ANSWER_PATIENCE,
            };
            if Instant::now() + wait >= deadline {
                return Err(status);
            }
            debug!(why = status.message(), ?wait, "a call is made again");
            sleep(wait).await;
        }
    }

    /// Asks the owner of a key. An owner that has not taken over yet names the present primary,
    /// which is asked instead, if the deadline allows.
    async fn ask_owner<O: Operation>(
        &self,
        owner: &Contact,
        operation: &O,
        deadline: Instant,
    ) -> Result<O::Answer, Status> {
        let answer = self.ask(owner, operation).await;
        match answer.as_ref().err().and_then(refusal::primary) {
            Some(primary) if primary.id != owner.id && Instant::now() < deadline => {
                self.ask(&primary, operation).await
            }
            _ => answer,
        }
    }

    async fn ask<O: Operation>(&self, owner: &Contact, operation: &O) -> Result<O::Answer, Status> {
        if owner.id == self.me {
            return operation.here(&self.values).await;
        }
        let dead =
            || Err(refusal::status(Reason::NotServing, format!("{} is dead", owner.address)));
        if self.lookups.is_dead(owner.id) {
            return dead();
        }
        let not_after_ms = self.clocks.end_of_start_window_at(owner.id);
        let asked =
            timeout(ANSWER_PATIENCE, operation.there(self.calls.client(owner)?, not_after_ms));
        let answer = tokio::select! {
            answer = asked => answer.unwrap_or_else(|_| {
                let message = format!("{} does not answer", owner.address);
                Err(refusal::status(Reason::OutcomeUnknown, message))
            }),
            // It may have completed a write that had begun by then.
            () = self.lookups.death(owner.id), if operation.effect() == Effect::None => dead(),
        };
        if answer.is_ok() {
            self.calls.met(owner);
        }
        if let Some(clock) = answer.as_ref().err().and_then(refusal::clock) {
            self.clocks.note(owner.id, clock);
        }
        answer
    }

    fn hinted(&self, position: Position) -> Option<Contact> {
        let hint = self.lookups.hinted(position)?;
        self.proven.lock().contains(&hint.id).then_some(hint)
    }

    /// The closest successor of a position.
    async fn owner(&self, position: Position, deadline: Instant) -> Result<Contact, Status> {
        let not_found = |why| refusal::status(Reason::NotServing, why);
        let owner = timeout_at(deadline, self.lookups.owner(position))
            .await
            .map_err(|_| not_found("the key's owner was not found in time".to_owned()))?
            .map_err(|failure| not_found(failure.to_string()))?;
        let mut proven = self.proven.lock();
        if proven.len() >= MAX_PROVEN {
            proven.clear();
        }
        proven.insert(owner.id);
        Ok(owner)
    }
}

/// Whether and when a failed operation is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    Never,
    Soon,
    /// It may still happen: it is not retried before that is ruled out. Otherwise it could undo a
    /// write that follows the acknowledged retry.
    OnceItIsOver,
}

fn repeat(status: &Status, effect: Effect) -> Repeat {
    match refusal::reason(status) {
        Some(Reason::NotServing | Reason::TooFewReplicas | Reason::TooLate) => Repeat::Soon,
        // A node that does not know the outcome has begun, and a later write has a later version.
        Some(Reason::OutcomeUnknown) if effect != Effect::Once => Repeat::Soon,
        None if status.code() != Code::Unavailable => Repeat::Never,
        None if effect == Effect::None || never_sent(status) => Repeat::Soon,
        // The connection broke.
        None if effect == Effect::Same => Repeat::OnceItIsOver,
        _ => Repeat::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_that_may_still_happen_is_not_repeated_before_that_is_ruled_out() {
        let refused = |reason| refusal::status(reason, "");
        for effect in [Effect::None, Effect::Same, Effect::Once] {
            for reason in [Reason::NotServing, Reason::TooFewReplicas, Reason::TooLate] {
                assert_eq!(repeat(&refused(reason), effect), Repeat::Soon);
            }
            assert_eq!(repeat(&Status::aborted("it has another version"), effect), Repeat::Never);
        }
        let broken = Status::unavailable("the connection broke");
        let unknown = refused(Reason::OutcomeUnknown);
        let after = |effect| (repeat(&broken, effect), repeat(&unknown, effect));
        assert_eq!(after(Effect::None), (Repeat::Soon, Repeat::Soon));
        assert_eq!(after(Effect::Same), (Repeat::OnceItIsOver, Repeat::Soon));
        assert_eq!(after(Effect::Once), (Repeat::Never, Repeat::Never));
    }
}
