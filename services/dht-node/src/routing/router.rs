//! Calls that any node answers: looks up whose the key is, and asks that node.

use std::{collections::HashSet, sync::Arc, time::Duration};

use shoal_common::{backoff::Backoff, lock::Mutex};
use shoal_core::ring::{Contact, NodeId, Position};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::{Code, Status};
use tracing::debug;

use crate::{
    network::calls::{Calls, Client, never_sent},
    refusal::{self, Reason},
    replication::kv::Values,
    routing::lookup::Lookups,
    time::{Clocks, TOLERANCE, WINDOW},
};

/// While a range changes hands its calls are tried again for so long: a lease runs out, the next set
/// is agreed, and there is time left.
const PATIENCE: Duration = Duration::from_secs(5);
/// Waits between tries.
const FIRST_WAIT: Duration = Duration::from_millis(10);
const MAX_WAIT: Duration = Duration::from_millis(250);
/// Owners remembered, at most.
const MAX_PROVEN: usize = 65_536;
/// Longest wait for one node's answer. A write that has not begun there by then never will.
const ANSWER_PATIENCE: Duration = WINDOW.saturating_add(TOLERANCE);

/// What the node that answers for a key is asked to do.
pub(crate) trait Operation: Sync {
    /// What it answers.
    type Answer: Send;

    /// Where the key lies.
    fn position(&self) -> Position;

    /// What it does to the key.
    fn effect(&self) -> Effect;

    /// Does it here, if this node answers for the key.
    fn here(&self, values: &Values) -> impl Future<Output = Result<Self::Answer, Status>> + Send;

    /// Has another node do it, until then by the clock there, if it has an effect.
    fn there(
        &self,
        client: Client,
        not_after_ms: u64,
    ) -> impl Future<Output = Result<Self::Answer, Status>> + Send;
}

/// What an operation does to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It reads.
    None,
    /// Done again it changes nothing, if nobody else has written meanwhile.
    Same,
    /// It happens once at most.
    Once,
}

/// Finds the nodes that answer for keys. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Router {
    me: NodeId,
    pub(crate) lookups: Lookups,
    calls: Calls,
    pub(crate) values: Values,
    /// Owners that lookups found: they are asked without one where the roll names them. Whom the roll
    /// knows from hearsay alone is not.
    proven: Arc<Mutex<HashSet<NodeId>>>,
    clocks: Arc<Clocks>,
}

impl Router {
    pub(crate) fn new(me: NodeId, lookups: Lookups, calls: Calls, values: Values) -> Self {
        Self { me, lookups, calls, values, proven: Arc::default(), clocks: Arc::default() }
    }

    /// Has the node that answers for the key do it.
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

    /// Asks a key's owner. One that has not taken over yet names the primary until then, which is
    /// asked in its place, if that is before the deadline.
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
        let not_after_ms = self.clocks.end_of_window_at(owner.id);
        let asked =
            timeout(ANSWER_PATIENCE, operation.there(self.calls.client(owner)?, not_after_ms));
        let answer = tokio::select! {
            answer = asked => answer.unwrap_or_else(|_| {
                let message = format!("{} does not answer", owner.address);
                Err(refusal::status(Reason::OutcomeUnknown, message))
            }),
            // What it had begun to write by then, it may have written.
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

/// Whether and when an operation that failed is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    Never,
    Soon,
    /// It may happen yet: not before that is ruled out. Otherwise it could undo what is written after it
    /// was acknowledged.
    OnceItIsOver,
}

fn repeat(status: &Status, effect: Effect) -> Repeat {
    match refusal::reason(status) {
        Some(Reason::NotServing | Reason::TooFewReplicas | Reason::TooLate) => Repeat::Soon,
        // Whoever does not know has begun, and what comes later has a later version.
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
    fn what_may_happen_yet_is_not_done_again_before_that_is_ruled_out() {
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
