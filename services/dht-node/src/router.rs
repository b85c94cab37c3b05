//! Calls that any node answers: looks up whose the key is, and asks that node.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use shoal_common::{backoff::Backoff, channel::Channel};
use shoal_core::ring::{Contact, NodeId, Position};
use shoal_proto::dht::v1::dht_service_client::DhtServiceClient;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};

use crate::{
    calls::{Calls, never_sent},
    kv::Values,
    lookup::Lookups,
    refusal::{self, Reason},
};

/// While a range changes hands its calls are tried again for so long: a lease runs out, the next set
/// is agreed, and there is time left.
const PATIENCE: Duration = Duration::from_secs(5);
/// Waits between tries.
const FIRST_WAIT: Duration = Duration::from_millis(10);
const MAX_WAIT: Duration = Duration::from_millis(250);
/// Owners remembered, at most.
const MAX_PROVEN: usize = 65_536;
/// Longest wait for one node's answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(3);

/// What the node that answers for a key is asked to do.
pub(crate) trait Operation: Sync {
    /// What it answers.
    type Answer: Send;

    /// Where the key lies.
    fn position(&self) -> Position;

    /// The second time does no harm, even if the first had an effect.
    fn is_repeatable(&self) -> bool;

    /// Does it here, if this node answers for the key.
    fn here(&self, values: &Values) -> impl Future<Output = Result<Self::Answer, Status>> + Send;

    /// Has another node do it.
    fn there(
        &self,
        client: DhtServiceClient<Channel>,
    ) -> impl Future<Output = Result<Self::Answer, Status>> + Send;
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
}

impl Router {
    pub(crate) fn new(me: NodeId, lookups: Lookups, calls: Calls, values: Values) -> Self {
        Self { me, lookups, calls, values, proven: Arc::default() }
    }

    /// Has the node that answers for the key do it.
    pub(crate) async fn route<O: Operation>(&self, operation: &O) -> Result<O::Answer, Status> {
        let deadline = Instant::now() + PATIENCE;
        let mut backoff = Backoff::new(FIRST_WAIT, MAX_WAIT);
        let mut hint = self.hinted(operation.position());
        loop {
            let owner = match hint.take() {
                Some(owner) => Ok(owner),
                None => self.owner(operation.position()).await,
            };
            let answer = match owner {
                Ok(owner) => self.ask_owner(&owner, operation).await,
                Err(status) => Err(status),
            };
            let status = match answer {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            let wait = backoff.next(&mut rand::rng());
            let may_repeat = may_repeat(&status, operation.is_repeatable());
            if !may_repeat || Instant::now() + wait >= deadline {
                return Err(status);
            }
            sleep(wait).await;
        }
    }

    /// Asks a key's owner. One that has not taken over yet names the primary until then, which is
    /// asked in its place.
    async fn ask_owner<O: Operation>(
        &self,
        owner: &Contact,
        operation: &O,
    ) -> Result<O::Answer, Status> {
        let answer = self.ask(owner, operation).await;
        match answer.as_ref().err().and_then(refusal::primary) {
            Some(primary) if primary.id != owner.id => self.ask(&primary, operation).await,
            _ => answer,
        }
    }

    async fn ask<O: Operation>(&self, owner: &Contact, operation: &O) -> Result<O::Answer, Status> {
        if owner.id == self.me {
            return operation.here(&self.values).await;
        }
        let asked = operation.there(self.calls.client(owner)?);
        timeout(ANSWER_PATIENCE, asked).await.unwrap_or_else(|_| {
            let message = format!("{} does not answer", owner.address);
            Err(refusal::status(Reason::OutcomeUnknown, message))
        })
    }

    fn hinted(&self, position: Position) -> Option<Contact> {
        let hint = self.lookups.hinted(position)?;
        self.proven.lock().expect(NO_PANIC).contains(&hint.id).then_some(hint)
    }

    /// The closest successor of a position.
    async fn owner(&self, position: Position) -> Result<Contact, Status> {
        let owner = self
            .lookups
            .owner(position)
            .await
            .map_err(|failure| refusal::status(Reason::NotServing, failure.to_string()))?;
        let mut proven = self.proven.lock().expect(NO_PANIC);
        if proven.len() >= MAX_PROVEN {
            proven.clear();
        }
        proven.insert(owner.id);
        Ok(owner)
    }
}

const NO_PANIC: &str = "nothing panics while it holds the lock";

fn may_repeat(status: &Status, is_repeatable: bool) -> bool {
    match refusal::reason(status) {
        Some(Reason::NotServing | Reason::TooFewReplicas) => true,
        Some(Reason::OutcomeUnknown) => is_repeatable,
        // The connection broke, or could not be made.
        None => status.code() == Code::Unavailable && (is_repeatable || never_sent(status)),
    }
}
