//! Reconciles the replica set of each range with the nodes that should hold it.
//!
//! Ownership by the ring's pointers changes at once; the replica set of a range changes by
//! reconfiguration. The reconciler compares the two periodically and has this node take over what
//! it owns, each part separately, so that a part whose members are dead does not delay the others.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::RngExt as _;
use shoal_core::ring::{
    Ballot, Configuration, Contact, KeyRange, Lineage, Refusal, ReplicaSet, Standing, next_members,
};
use tokio::{
    task::{JoinError, JoinSet},
    time::sleep,
};
use tracing::{debug, warn};
use uuid::Uuid;

use crate::{
    membership::snapshot::RingSnapshot,
    replication::{
        anti_entropy::AntiEntropy,
        primary::Primary,
        reconfiguration::{Reconfiguration, ReconfigurationError},
    },
    routing::lookup::Lookups,
    storage::StoreError,
};

/// How often everything is checked, if nothing happens in between.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The pause after a failed attempt, so that two nodes do not outbid each other forever.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// Members of a replica set: the textbook's owner, and its first and second successor.
pub(crate) const REPLICAS: usize = 3;

/// Reconciles the ranges that this node owns. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Reconciler {
    me: Contact,
    anti_entropy: AntiEntropy,
    primary: Primary,
    lookups: Lookups,
    /// The highest round seen.
    round: Arc<AtomicU64>,
}

/// The attempts in progress for parts of the node's range.
#[derive(Default)]
struct UnderWay {
    ranges: Vec<KeyRange>,
    work: JoinSet<(KeyRange, Result<(), StoreError>)>,
}

impl Reconciler {
    pub(crate) fn new(
        me: Contact,
        anti_entropy: AntiEntropy,
        primary: Primary,
        lookups: Lookups,
    ) -> Self {
        Self { me, anti_entropy, primary, lookups, round: Arc::default() }
    }

    /// Reconciles ranges while it is polled.
    pub(crate) async fn run(self) {
        let mut snapshots = self.lookups.snapshot.clone();
        let mut under_way = UnderWay::default();
        loop {
            let snapshot = snapshots.borrow_and_update().clone();
            if let Err(error) = self.look(&snapshot, &mut under_way).await {
                disk_fails(&error);
            }
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                changed = snapshots.changed() => if changed.is_err() { return },
                () = self.primary.superseded() => {}
                Some(ended) = under_way.work.join_next() => under_way.ended(ended),
            }
        }
    }

    async fn look(
        &self,
        snapshot: &Arc<RingSnapshot>,
        under_way: &mut UnderWay,
    ) -> Result<(), StoreError> {
        if snapshot.founded && self.anti_entropy.local.configurations().known().next().is_none() {
            // The first node of a ring holds everything.
            let whole = KeyRange::whole(self.me.position);
            let set = ReplicaSet::founding(Lineage(Uuid::now_v7()), self.me.clone());
            self.anti_entropy.local.learn(whole, set.clone()).await?;
            self.primary.enter(whole, &set);
        }
        let is_member = snapshot.routing.state.standing == Standing::Member;
        if let Some(owned) = snapshot.routing.state.owned().filter(|_| is_member) {
            self.take_over(snapshot, owned, under_way);
        }
        Ok(())
    }

    /// Starts to take over every part of this node's range whose replica set is not as it should
    /// be.
    fn take_over(&self, snapshot: &Arc<RingSnapshot>, owned: KeyRange, under_way: &mut UnderWay) {
        let configurations = self.anti_entropy.local.configurations();
        let parts = configurations.over(owned);
        let epoch = parts.iter().filter_map(|(_, known)| Some(known.as_ref()?.present.epoch)).max();
        for (range, known) in parts {
            if under_way.touches(range) {
                continue;
            }
            let Some(known) = known else {
                under_way.begin(range, self.clone().ask_who_keeps(snapshot.clone(), range));
                continue;
            };
            let members = self.members(snapshot, &known.present);
            let holds_term = self.primary.holds_term(range, &known.present);
            // Records from another ring are merged before this node takes anything over.
            if holds_term && is_kept_by(known, &members) || known.displaced.is_some() {
                continue;
            }
            // Each epoch was accepted as credible, or it would not be known: there is a next one.
            let Some(next) = epoch.unwrap_or_default().checked_add(1) else { continue };
            let present = known.present.clone();
            let wanted = ReplicaSet { epoch: next, members, ..present.clone() };
            under_way.begin(range, self.clone().attempt(range, present, wanted));
        }
    }

    fn members(&self, snapshot: &RingSnapshot, present: &ReplicaSet) -> Vec<Contact> {
        let has_left = |node| snapshot.left.contains(&node);
        next_members(present, &self.me, &snapshot.routing.state.successors, has_left, REPLICAS)
    }

    async fn attempt(
        self,
        range: KeyRange,
        present: ReplicaSet,
        wanted: ReplicaSet,
    ) -> Result<(), StoreError> {
        let round = self.next_round();
        let ballot = Ballot { round, node: self.me.id };
        let (anti_entropy, lookups, me) =
            (self.anti_entropy.clone(), self.lookups.clone(), self.me.clone());
        let reconfiguration =
            Reconfiguration { anti_entropy, lookups, me, range, present, wanted, ballot };
        match reconfiguration.run().await {
            Ok(chosen) => {
                metrics::counter!("shoal_dht_reconfigurations_total", "result" => "agreed")
                    .increment(1);
                for range in chosen {
                    self.primary.enter(range, &reconfiguration.wanted);
                }
            }
            Err(ReconfigurationError::Store(error)) => return Err(error),
            Err(error) => {
                metrics::counter!("shoal_dht_reconfigurations_total", "result" => "failed")
                    .increment(1);
                debug!(%range, %error, "the range is not taken over yet");
                match error {
                    ReconfigurationError::Refused(Refusal::Outbid(ballot)) => {
                        self.round.fetch_max(ballot.round, Ordering::Relaxed);
                    }
                    ReconfigurationError::Refused(Refusal::Superseded(by)) => {
                        self.anti_entropy.local.learn_all(by).await?;
                    }
                    _ => {}
                }
                let wait = RETRY_AFTER.mul_f64(rand::rng().random_range(0.5..2.0));
                sleep(wait).await;
            }
        }
        Ok(())
    }

    /// Above all rounds seen. Others accept it a millisecond after they accepted those.
    fn next_round(&self) -> u64 {
        let next = |round: u64| Some(round.saturating_add(1));
        let before = self.round.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        before.unwrap_or_else(|round| round).saturating_add(1)
    }

    /// Asks the neighbours for the replica set of a range that this node owns and knows nothing
    /// about.
    async fn ask_who_keeps(
        self,
        snapshot: Arc<RingSnapshot>,
        range: KeyRange,
    ) -> Result<(), StoreError> {
        let state = &snapshot.routing.state;
        let around = state.successors.iter().chain(&state.predecessor);
        for node in around {
            match self.anti_entropy.calls.replica_sets(range, node).await {
                Ok(sets) => self.anti_entropy.local.learn_all(sets).await?,
                Err(error) => debug!(%error, "a neighbour does not say who keeps a range"),
            }
            let configurations = self.anti_entropy.local.configurations();
            if configurations.over(range).iter().all(|(_, known)| known.is_some()) {
                return Ok(());
            }
        }
        sleep(LOOK_EVERY).await;
        Ok(())
    }
}

impl UnderWay {
    fn touches(&self, range: KeyRange) -> bool {
        self.ranges.iter().any(|other| other.overlaps(range))
    }

    fn begin(
        &mut self,
        range: KeyRange,
        work: impl Future<Output = Result<(), StoreError>> + Send + 'static,
    ) {
        self.ranges.push(range);
        self.work.spawn(async move {
            let outcome = work.await;
            if outcome.is_err() {
                // The next attempt starts after this one has ended.
                sleep(LOOK_EVERY).await;
            }
            (range, outcome)
        });
    }

    fn ended(&mut self, ended: Result<(KeyRange, Result<(), StoreError>), JoinError>) {
        let (range, outcome) = ended.expect("no reconfiguration panics or is cancelled");
        self.ranges.retain(|other| *other != range);
        if let Err(error) = outcome {
            disk_fails(&error);
        }
    }
}

fn disk_fails(error: &StoreError) {
    warn!(%error, "ranges are not reconciled: the disk fails");
}

/// The present set is the wanted one, and takes writes. The order of the other members does not
/// matter.
fn is_kept_by(known: &Configuration, wanted: &[Contact]) -> bool {
    let present = &known.present;
    !known.is_sealed()
        && present.primary().id == wanted[0].id
        && present.members.len() == wanted.len()
        && wanted.iter().all(|member| present.holds(member.id))
}
