//! Lookups: sends the questions of the lookup state machine to other nodes.

use std::{future::pending, pin::Pin, sync::Arc};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use shoal_core::ring::{
    Contact, Found, Lookup, LookupFailure, LookupSettings, NodeId, Outcome, Position,
};
use tokio::{sync::watch, time::timeout};
use tracing::{Instrument as _, info_span};

use crate::{membership::snapshot::RingSnapshot, network::calls::Calls};

/// A pending question, and its outcome.
type Asking = Pin<Box<dyn Future<Output = (Contact, Heard)> + Send>>;

/// The outcome of a question to a node.
enum Heard {
    Answer(Found),
    /// It will not answer, or its answer is invalid.
    Nothing,
    /// Its answer takes longer than usual.
    NothingYet(Asking),
}

/// Looks up positions from this node. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Lookups {
    pub(crate) calls: Calls,
    pub(crate) snapshot: watch::Receiver<Arc<RingSnapshot>>,
}

impl Lookups {
    /// The closest successor of a position among all nodes that this node has heard of: usually
    /// right, and the node itself knows better.
    pub(crate) fn hinted(&self, of: Position) -> Option<Contact> {
        self.snapshot.borrow().routing.live_nodes.as_ref()?.owner_of(of).cloned()
    }

    /// A node has died, as far as this node has heard.
    pub(crate) fn is_dead(&self, node: NodeId) -> bool {
        self.snapshot.borrow().dead.contains(&node)
    }

    /// Returns when a node has died, as far as this node has heard.
    pub(crate) async fn death(&self, of: NodeId) {
        let mut snapshot = self.snapshot.clone();
        if snapshot.wait_for(|now| now.dead.contains(&of)).await.is_err() {
            // The ring task has ended, and this node ends.
            pending::<()>().await;
        }
    }

    /// The closest successor of a position.
    pub(crate) async fn owner(&self, of: Position) -> Result<Contact, LookupFailure> {
        Ok(self.look_up(of).await?.owner)
    }

    /// The closest successor of a position, and the path of the lookup.
    pub(crate) async fn look_up(&self, of: Position) -> Result<Outcome, LookupFailure> {
        let snapshot = self.snapshot.borrow().clone();
        let lookup =
            Lookup::new(of, &snapshot.routing.find_for_lookup(of), LookupSettings::default());
        let outcome = self.drive(of, lookup).await?;
        metrics::histogram!("shoal_dht_lookup_hops").record(outcome.hops as f64);
        metrics::counter!("shoal_dht_lookup_timeouts_total").increment(outcome.timeouts as u64);
        Ok(outcome)
    }

    /// Sends the questions of a lookup until it is over.
    pub(crate) async fn drive(
        &self,
        of: Position,
        mut lookup: Lookup,
    ) -> Result<Outcome, LookupFailure> {
        let mut asked = FuturesUnordered::new();
        loop {
            for node in lookup.next_asks() {
                asked.push(self.ask(of, node));
            }
            if let Some(outcome) = lookup.outcome() {
                if !asked.is_empty() {
                    // Answers that are no longer needed are not cancelled: HTTP/2 servers
                    // disconnect clients that reset many streams.
                    tokio::spawn(asked.for_each(async |_| ()));
                }
                return outcome.clone();
            }
            match asked.next().await {
                Some((node, Heard::Answer(found))) => lookup.answered(&node, &found),
                Some((node, Heard::Nothing)) => lookup.failed(&node),
                Some((node, Heard::NothingYet(rest))) => {
                    lookup.late(&node);
                    asked.push(rest);
                }
                None => return Err(LookupFailure::NoAnswer(0)),
            }
        }
    }

    /// Asks a node. There are two outcomes if its answer takes longer than usual.
    fn ask(&self, of: Position, node: Contact) -> Asking {
        let hop = info_span!("hop", addr = %node.address);
        let asked = node.clone();
        let lookups = self.clone();
        let answer = async move {
            let found = tokio::select! {
                found = lookups.calls.find_successor(of, &asked) => found.ok(),
                () = lookups.death(asked.id) => None,
            };
            (asked, found.map_or(Heard::Nothing, Heard::Answer))
        };
        let mut answer: Asking = Box::pin(answer.instrument(hop));
        let calls = self.calls.clone();
        Box::pin(async move {
            if let Ok(heard) = timeout(calls.usual_wait(node.id), &mut answer).await {
                return heard;
            }
            (node, Heard::NothingYet(answer))
        })
    }
}
