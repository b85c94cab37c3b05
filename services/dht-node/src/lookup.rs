//! Lookups: the brain's questions put to other nodes.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use shoal_core::ring::{Contact, Lookup, LookupFailure, LookupSettings, Outcome, Position};
use tokio::sync::watch;
use tracing::{Instrument as _, info_span};

use crate::{calls::Calls, ring::Surroundings};

/// Looks positions up from this node. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Lookups {
    pub(crate) calls: Calls,
    pub(crate) view: watch::Receiver<Arc<Surroundings>>,
}

impl Lookups {
    /// The closest successor of a position among all nodes that this one has heard of: mostly right,
    /// and whoever it is knows better.
    pub(crate) fn hinted(&self, of: Position) -> Option<Contact> {
        self.view.borrow().view.census.as_ref()?.owner_of(of).cloned()
    }

    /// The closest successor of a position.
    pub(crate) async fn owner(&self, of: Position) -> Result<Contact, LookupFailure> {
        Ok(self.look_up(of).await?.owner)
    }

    /// The closest successor of a position, and how it was found.
    pub(crate) async fn look_up(&self, of: Position) -> Result<Outcome, LookupFailure> {
        let surroundings = self.view.borrow().clone();
        let lookup =
            Lookup::new(of, &surroundings.view.find_for_lookup(of), LookupSettings::default());
        let outcome = self.drive(of, lookup).await?;
        metrics::histogram!("shoal_dht_lookup_hops").record(outcome.hops as f64);
        metrics::counter!("shoal_dht_lookup_timeouts_total").increment(outcome.timeouts as u64);
        Ok(outcome)
    }

    /// Asks whom the lookup wants asked, until it is over.
    pub(crate) async fn drive(
        &self,
        of: Position,
        mut lookup: Lookup,
    ) -> Result<Outcome, LookupFailure> {
        let mut asked = FuturesUnordered::new();
        loop {
            for node in lookup.next_asks() {
                let hop = info_span!("hop", addr = %node.address);
                let calls = self.calls.clone();
                let ask = async move { (calls.find_successor(of, &node).await, node) };
                asked.push(ask.instrument(hop));
            }
            if let Some(outcome) = lookup.outcome() {
                if !asked.is_empty() {
                    // Answers of no more use are not cancelled: HTTP/2 servers hang up on clients
                    // that reset many streams.
                    tokio::spawn(asked.for_each(async |_| ()));
                }
                return outcome.clone();
            }
            match asked.next().await {
                Some((Ok(found), node)) => lookup.answered(&node, &found),
                Some((Err(_), node)) => lookup.failed(&node),
                None => return Err(LookupFailure::NoAnswer(0)),
            }
        }
    }
}
