//! The ranges this node answers for alone: leases from the other replicas, renewed all the time, and
//! with each renewal a comparison of records.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use shoal_core::ring::{
    Agreement, Contact, Intervals, KeyRange, Lapse, Lineage, NodeId, Position, ReplicaSet, Tenure,
};
use tokio::sync::{Notify, watch};
use tracing::debug;

use crate::{
    calls::Calls,
    keeper::{Keeper, LEASE, Renewed},
    time::unix_ms,
};

/// How often leases are renewed: three renewals may be missed.
const RENEW_EVERY: Duration = Duration::from_millis(500);
/// Records that differ in so many renewals in a row are not just under way.
const DIFFERENT_ROUNDS: u32 = 2;

/// A range that this node answers for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Served {
    lineage: Lineage,
    epoch: u64,
    pub(crate) lapse: Lapse,
}

/// Records of a range differ between this node and another replica.
#[derive(Clone, Debug)]
pub(crate) struct Difference {
    pub(crate) range: KeyRange,
    pub(crate) member: Contact,
}

/// Why this node does not answer for a key at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotServing {
    /// Another node is the primary, or nobody is known to be.
    NotPrimary,
    /// The next set is being chosen.
    Sealed,
    /// Too few replicas are heard from.
    NoLease,
}

/// What makes this node a primary. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Primary(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    keeper: Keeper,
    calls: Calls,
    tombstones_for: Duration,
    renewing: Mutex<Renewing>,
    served: watch::Sender<Arc<Intervals<Served>>>,
    /// Something was agreed: leases are wanted at once.
    agreed: Notify,
    /// Later sets than ours were heard of.
    pub(crate) superseded: Notify,
}

/// What is remembered from renewal to renewal.
#[derive(Debug, Default)]
struct Renewing {
    tenures: Intervals<(Lineage, u64, Tenure)>,
    /// Rounds in a row in which a replica had other records.
    different: HashMap<(KeyRange, NodeId), u32>,
}

impl Primary {
    pub(crate) fn new(keeper: Keeper, calls: Calls, tombstones_for: Duration) -> Self {
        Self(Arc::new(Inner {
            keeper,
            calls,
            tombstones_for,
            renewing: Mutex::default(),
            served: watch::Sender::default(),
            agreed: Notify::new(),
            superseded: Notify::new(),
        }))
    }

    /// The range and set under which this node may write a key.
    pub(crate) fn of(&self, position: Position) -> Result<(KeyRange, ReplicaSet), NotServing> {
        let custody = self.0.keeper.custody();
        let (range, known) = custody.piece(position).ok_or(NotServing::NotPrimary)?;
        self.serves(position, known)?;
        Ok((range, known.present.clone()))
    }

    /// Whether this node may answer for a key from what it read before it asked this.
    pub(crate) fn may_answer(&self, position: Position) -> Result<(), NotServing> {
        let custody = self.0.keeper.custody();
        let known = custody.at(position).ok_or(NotServing::NotPrimary)?;
        self.serves(position, known)
    }

    fn serves(&self, position: Position, known: &Agreement) -> Result<(), NotServing> {
        if known.present.primary().id != self.0.keeper.me {
            return Err(NotServing::NotPrimary);
        }
        if known.is_sealed() {
            return Err(NotServing::Sealed);
        }
        let served = self.0.served.borrow();
        let served = served.at(position).ok_or(NotServing::NoLease)?;
        let is_present =
            (served.lineage, served.epoch) == (known.present.lineage, known.present.epoch);
        let holds = is_present && served.lapse.is_after(Instant::now());
        if holds { Ok(()) } else { Err(NotServing::NoLease) }
    }

    /// Leases are wanted for what was just agreed on.
    pub(crate) fn agreed(&self) {
        self.0.agreed.notify_one();
    }

    /// Returns when a replica told of later sets.
    pub(crate) async fn superseded(&self) {
        self.0.superseded.notified().await;
    }

    /// Renews leases for as long as it is polled; reports records that differ.
    pub(crate) async fn keep(&self, differences: impl Fn(Difference)) {
        loop {
            self.renew_all(&differences).await;
            tokio::select! {
                () = tokio::time::sleep(RENEW_EVERY) => {}
                () = self.0.agreed.notified() => {}
            }
        }
    }

    async fn renew_all(&self, differences: &impl Fn(Difference)) {
        let custody = self.0.keeper.custody();
        let mine: Vec<_> = custody
            .known()
            .filter(|(_, known)| known.present.primary().id == self.0.keeper.me)
            .filter(|(_, known)| !known.is_sealed())
            .map(|(range, known)| (range, known.present.clone()))
            .collect();
        self.begin(&mine);
        let rounds: FuturesUnordered<_> =
            mine.iter().map(|(range, set)| self.renew(*range, set, differences)).collect();
        rounds.collect::<()>().await;
    }

    /// Has exactly these ranges be served: those that were served under the same set before keep
    /// their leases.
    fn begin(&self, mine: &[(KeyRange, ReplicaSet)]) {
        let mut renewing = self.0.renewing.lock().expect(NO_PANIC);
        let mut tenures = Intervals::default();
        for (range, set) in mine {
            tenures.update(*range, |tenure| {
                *tenure = Some((set.lineage, set.epoch, Tenure::new(LEASE, set)));
            });
            for (piece, before) in renewing.tenures.pieces(*range) {
                if let Some(before) =
                    before.filter(|before| (before.0, before.1) == (set.lineage, set.epoch))
                {
                    tenures.update(piece, |tenure| *tenure = Some(before.clone()));
                }
            }
        }
        renewing.tenures = tenures;
        self.publish(&renewing);
    }

    fn publish(&self, renewing: &Renewing) {
        let mut served: Intervals<Served> = Intervals::default();
        for (range, (lineage, epoch, tenure)) in renewing.tenures.known() {
            let now = Served { lineage: *lineage, epoch: *epoch, lapse: tenure.lapses() };
            served.update(range, |known| *known = Some(now.clone()));
        }
        self.0.served.send_replace(Arc::new(served));
    }

    async fn renew(&self, range: KeyRange, set: &ReplicaSet, differences: &impl Fn(Difference)) {
        let others = &set.members[1..];
        let purge_before = self.purge_before(range, others);
        let Ok(digest) = self.0.keeper.store.summary(range) else { return };
        let asked: FuturesUnordered<_> = others
            .iter()
            .map(async |member| {
                let asked = Instant::now();
                let renewal = self.0.calls.renew((range, set), digest, purge_before, member).await;
                match renewal {
                    Ok(renewed) => self.renewed(range, member, asked, renewed, differences).await,
                    Err(error) => debug!(%range, %error, "a lease is not renewed"),
                }
            })
            .collect();
        asked.collect::<()>().await;
    }

    async fn renewed(
        &self,
        range: KeyRange,
        member: &Contact,
        asked: Instant,
        renewed: Renewed,
        differences: &impl Fn(Difference),
    ) {
        let is_same = match renewed {
            Renewed::Same => true,
            Renewed::Different => false,
            Renewed::Sealed => return,
            Renewed::Superseded(by) => {
                for (range, set) in by {
                    if let Err(error) = self.0.keeper.learn(range, set).await {
                        debug!(%error, "a later replica set is not noted");
                    }
                }
                self.0.superseded.notify_one();
                return;
            }
        };
        let mut renewing = self.0.renewing.lock().expect(NO_PANIC);
        renewing.tenures.update(range, |tenure| {
            if let Some((_, _, tenure)) = tenure {
                tenure.granted(member.id, asked);
            }
        });
        self.publish(&renewing);
        let rounds = renewing.different.entry((range, member.id)).or_default();
        *rounds = if is_same { 0 } else { *rounds + 1 };
        if *rounds >= DIFFERENT_ROUNDS {
            *rounds = 0;
            differences(Difference { range, member: member.clone() });
        }
    }

    /// Tombstones older than this may go: every replica was found to have the same records.
    fn purge_before(&self, range: KeyRange, others: &[Contact]) -> Option<u64> {
        let renewing = self.0.renewing.lock().expect(NO_PANIC);
        let is_same = |member: &Contact| renewing.different.get(&(range, member.id)) == Some(&0);
        let before_ms = unix_ms().saturating_sub(self.0.tombstones_for.as_millis() as u64);
        others.iter().all(is_same).then_some(before_ms)
    }
}

const NO_PANIC: &str = "nothing panics while it holds the lock";
