//! Sees to it that who keeps a range is who should keep it.
//!
//! Ownership by the ring's pointers changes at once; who keeps a range changes by agreement. The
//! caretaker compares the two, again and again, and has this node take over what it owns. What it
//! keeps and does not own, it tells the owner of. What it no longer keeps, it discards.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rand::RngExt as _;
use shoal_core::ring::{
    Agreement, Ballot, Contact, KeyRange, Lineage, Refusal, ReplicaSet, Standing, Superseding,
    next_members,
};
use tokio::{sync::watch, time::sleep};
use tracing::{debug, warn};
use uuid::Uuid;

use crate::{
    lookup::Lookups,
    primary::Primary,
    remembered,
    ring::Surroundings,
    store::StoreError,
    sync::Sync,
    takeover::{Takeover, TakeoverError},
};

/// How often everything is looked at, if nothing happens meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Wait after a takeover that failed, so that two nodes that outbid each other do not go on so.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// How often what this node has of others' ranges is seen to.
const SETTLE_EVERY: Duration = Duration::from_secs(1);
/// Nodes that are remembered across a restart.
const REMEMBERED: usize = 16;
/// Nodes in a replica set (the textbook's owner, and the first and second successor).
pub(crate) const REPLICAS: usize = 3;

/// Looks after the ranges of one node.
pub(crate) struct Caretaker {
    me: Contact,
    sync: Sync,
    primary: Primary,
    lookups: Lookups,
    view: watch::Receiver<Arc<Surroundings>>,
    /// The highest ballot seen.
    round: u64,
    settled: Option<Instant>,
    /// Whom to come back through after a restart, as it was last kept.
    remembered: Vec<Contact>,
}

impl Caretaker {
    pub(crate) fn new(
        me: Contact,
        sync: Sync,
        primary: Primary,
        lookups: Lookups,
        view: watch::Receiver<Arc<Surroundings>>,
    ) -> Self {
        Self { me, sync, primary, lookups, view, round: 0, settled: None, remembered: Vec::new() }
    }

    /// Looks after ranges for as long as it is polled.
    pub(crate) async fn run(mut self) {
        loop {
            let view = self.view.borrow_and_update().clone();
            if let Err(error) = self.look(&view).await {
                warn!(%error, "ranges are not looked after: the disk fails");
            }
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                changed = self.view.changed() => if changed.is_err() { return },
                () = self.primary.superseded() => {}
            }
        }
    }

    async fn look(&mut self, view: &Surroundings) -> Result<(), StoreError> {
        if view.founded && self.sync.keeper.custody().known().next().is_none() {
            // The first node of a ring keeps everything.
            let whole = KeyRange::whole(self.me.position);
            let set = ReplicaSet::founding(Lineage(Uuid::now_v7()), self.me.clone());
            self.sync.keeper.learn(whole, set.clone()).await?;
            self.primary.enter(whole, &set);
        }
        let is_member = view.view.state.standing == Standing::Member;
        if let Some(owned) = view.view.state.owned().filter(|_| is_member) {
            self.take_over(view, owned).await?;
        }
        if self.settled.is_none_or(|settled| settled.elapsed() >= SETTLE_EVERY) {
            self.settled = Some(Instant::now());
            self.settle(view).await?;
            self.remember(view).await?;
        }
        Ok(())
    }

    /// Takes over every part of this node's range that is not kept as it should be.
    async fn take_over(&mut self, view: &Surroundings, owned: KeyRange) -> Result<(), StoreError> {
        let custody = self.sync.keeper.custody();
        let pieces = custody.over(owned);
        let epoch =
            pieces.iter().filter_map(|(_, known)| Some(known.as_ref()?.present.epoch)).max();
        for (range, known) in &pieces {
            let Some(known) = known else {
                self.ask_who_keeps(view, *range).await?;
                continue;
            };
            let members = self.members(view, &known.present);
            let is_in_office = self.primary.is_in_office(*range, &known.present);
            // What it kept in another ring it hands in before it takes anything over.
            if is_in_office && is_kept_by(known, &members) || known.displaced.is_some() {
                continue;
            }
            let next = epoch.unwrap_or_default() + 1;
            let wanted = ReplicaSet { epoch: next, members, ..known.present.clone() };
            self.attempt(*range, &known.present, wanted).await?;
        }
        Ok(())
    }

    fn members(&self, view: &Surroundings, present: &ReplicaSet) -> Vec<Contact> {
        let has_left = |node| view.left.contains(&node);
        next_members(present, &self.me, &view.view.state.successors, has_left, REPLICAS)
    }

    async fn attempt(
        &mut self,
        range: KeyRange,
        present: &ReplicaSet,
        wanted: ReplicaSet,
    ) -> Result<(), StoreError> {
        self.round += 1;
        let ballot = Ballot { round: self.round, node: self.me.id };
        let (sync, me, present) = (&self.sync, &self.me, present.clone());
        let takeover = Takeover { sync, me, range, present, wanted, ballot };
        match takeover.run().await {
            Ok(chosen) => {
                metrics::counter!("shoal_dht_takeovers_total", "result" => "agreed").increment(1);
                for range in chosen {
                    self.primary.enter(range, &takeover.wanted);
                }
            }
            Err(TakeoverError::Store(error)) => return Err(error),
            Err(error) => {
                metrics::counter!("shoal_dht_takeovers_total", "result" => "failed").increment(1);
                debug!(%range, %error, "the range is not taken over yet");
                match error {
                    TakeoverError::Refused(Refusal::Outbid(ballot)) => {
                        self.round = self.round.max(ballot.round);
                    }
                    TakeoverError::Refused(Refusal::Superseded(by)) => self.learn(by).await?,
                    _ => {}
                }
                let wait = RETRY_AFTER.mul_f64(rand::rng().random_range(0.5..2.0));
                sleep(wait).await;
            }
        }
        Ok(())
    }

    /// Learns from the nodes around who keeps a range that this node owns and knows nothing of.
    async fn ask_who_keeps(&self, view: &Surroundings, range: KeyRange) -> Result<(), StoreError> {
        let state = &view.view.state;
        let around = state.successors.iter().chain(&state.predecessor);
        for node in around {
            match self.sync.calls.agreements(range, node).await {
                Ok(agreements) => self.learn(agreements).await?,
                Err(error) => debug!(%error, "a neighbour does not say who keeps a range"),
            }
            let custody = self.sync.keeper.custody();
            if custody.over(range).iter().all(|(_, known)| known.is_some()) {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn learn(&self, agreements: Superseding) -> Result<(), StoreError> {
        for (range, set) in agreements {
            self.sync.keeper.learn(range, set).await?;
        }
        Ok(())
    }

    /// Sees to the ranges of others of which this node still has something.
    async fn settle(&self, view: &Surroundings) -> Result<(), StoreError> {
        let custody = self.sync.keeper.custody();
        for (range, known) in custody.known() {
            if known.displaced.is_some() {
                self.hand_in(range, &known.present).await?;
            } else if known.present.holds(self.me.id) {
                self.tell_owner(view, range, &known.present).await?;
            } else if known.supplied {
                self.ask_whether_chosen(range, &known.present).await?;
            }
        }
        self.sync.keeper.discard(KeyRange::whole(self.me.position)).await
    }

    /// Tells the owner of a range that this node keeps who keeps it: it may know nothing of it, or
    /// come from a ring that was founded apart.
    async fn tell_owner(
        &self,
        view: &Surroundings,
        range: KeyRange,
        present: &ReplicaSet,
    ) -> Result<(), StoreError> {
        if view.view.state.owned().is_some_and(|owned| owned.contains(range.last)) {
            return Ok(());
        }
        let Ok(owner) = self.lookups.owner(range.last).await else { return Ok(()) };
        if owner.id == present.primary().id {
            return Ok(());
        }
        match self.sync.calls.learn((range, present), &owner).await {
            Ok(newer) => self.learn(newer).await?,
            Err(error) => debug!(%range, %error, "an owner is not told of its range"),
        }
        Ok(())
    }

    /// Gives the primary what this node kept in a ring that was founded apart and is now part of the
    /// primary's.
    async fn hand_in(&self, range: KeyRange, present: &ReplicaSet) -> Result<(), StoreError> {
        if let Err(error) = self.sync.hand_in(range, present.primary()).await {
            debug!(%range, %error, "records of another ring are not handed in yet");
            return Ok(());
        }
        self.sync.keeper.settle(range, present.clone()).await
    }

    /// Asks what became of an attempt for which records were handed over to this node.
    async fn ask_whether_chosen(
        &self,
        range: KeyRange,
        present: &ReplicaSet,
    ) -> Result<(), StoreError> {
        for member in &present.members {
            if let Ok(agreements) = self.sync.calls.agreements(range, member).await {
                self.learn(agreements).await?;
            }
        }
        Ok(())
    }

    /// Keeps whom to come back through after a restart.
    async fn remember(&mut self, view: &Surroundings) -> Result<(), StoreError> {
        let around = view.view.state.successors.iter().take(REMEMBERED).cloned();
        let around: Vec<_> = around.collect();
        if !around.is_empty() && around != self.remembered {
            remembered::keep(&self.sync.keeper.store, &around).await?;
            self.remembered = around;
        }
        Ok(())
    }
}

/// The present set is the wanted one, and takes writes. The order of the others does not matter.
fn is_kept_by(known: &Agreement, wanted: &[Contact]) -> bool {
    let present = &known.present;
    !known.is_sealed()
        && present.primary().id == wanted[0].id
        && present.members.len() == wanted.len()
        && wanted.iter().all(|member| present.holds(member.id))
}
