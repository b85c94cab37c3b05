//! The ranges that this node serves as the primary: leases from the other replicas, renewed
//! continuously, and a comparison of records with each renewal.

use std::{
    collections::HashMap,
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use shoal_common::lock::Mutex;
use shoal_core::ring::{
    Configuration, Contact, KeyRange, LeaderLease, LeaseExpiry, Lineage, NodeId, Position,
    RangeMap, ReplicaSet,
};
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};
use tracing::debug;

use crate::{
    network::calls::Calls,
    replication::local_replica::{LEASE, LocalReplica, Renewal, Renewed},
    storage::{Digest, StoreError},
    time::unix_ms,
};

/// How often leases are renewed: three renewals in a row may be lost.
const RENEW_EVERY: Duration = Duration::from_millis(500);
/// Records that differ in this many renewals in a row are not just in flight.
const DIFFERENT_ROUNDS: u32 = 2;

/// A primary's term: its leadership of a range under one replica set. It begins when this process
/// has had the set chosen and has read all records from a majority of the previous set. What a
/// primary knew before a restart, or a set that others completed in its name, is not enough to
/// serve from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Term {
    lineage: Lineage,
    epoch: u64,
}

impl Term {
    /// The term under a set.
    pub(crate) const fn under(set: &ReplicaSet) -> Self {
        Self { lineage: set.lineage, epoch: set.epoch }
    }
}

/// The records of a range differ between this node and another replica.
#[derive(Clone, Debug)]
pub(crate) struct Difference {
    pub(crate) range: KeyRange,
    pub(crate) set: ReplicaSet,
    pub(crate) member: Contact,
}

/// Why this node does not serve a key at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotServing {
    /// This node is the primary, to its knowledge.
    Primary(Contact),
    /// No primary is known.
    NoPrimary,
    /// The next set is being chosen.
    Sealed,
    /// Too few replicas have renewed their leases.
    NoLease,
}

/// The state of this node as a primary. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Primary(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    local: LocalReplica,
    calls: Calls,
    tombstones_for: Duration,
    renewing: Mutex<Renewing>,
    /// The ranges that this node serves, and until when.
    served: watch::Sender<Arc<RangeMap<(Term, LeaseExpiry)>>>,
    /// A set was chosen: its leases are needed at once.
    chosen: Notify,
    /// A later set than ours was reported.
    superseded: Notify,
}

/// State kept from one renewal to the next.
#[derive(Debug, Default)]
struct Renewing {
    leases: RangeMap<(Term, LeaderLease)>,
    /// What each replica reported, by range and term.
    replicas: HashMap<(KeyRange, Term, NodeId), Compared>,
}

/// What a replica reported in one term.
#[derive(Clone, Copy, Debug, Default)]
struct Compared {
    /// Consecutive rounds in which its records differed. None before the first comparison.
    different_rounds: Option<u32>,
    /// Its records were the same at least once.
    was_same: bool,
    /// It has used up its quota.
    is_full: bool,
}

impl Primary {
    pub(crate) fn new(local: LocalReplica, calls: Calls, tombstones_for: Duration) -> Self {
        Self(Arc::new(Inner {
            local,
            calls,
            tombstones_for,
            renewing: Mutex::default(),
            served: watch::Sender::default(),
            chosen: Notify::new(),
            superseded: Notify::new(),
        }))
    }

    /// The range and the set under which this node may write a key.
    pub(crate) fn of(&self, position: Position) -> Result<(KeyRange, ReplicaSet), NotServing> {
        let configurations = self.0.local.configurations();
        let (range, known) = configurations.around(position).ok_or(NotServing::NoPrimary)?;
        self.serves(position, known)?;
        Ok((range, known.present.clone()))
    }

    /// The term in which this node serves a key at present. A value that was read is valid if the
    /// node still holds the same term after the read: no other node can have written in between.
    pub(crate) fn term(&self, position: Position) -> Result<Term, NotServing> {
        let configurations = self.0.local.configurations();
        self.serves(position, configurations.at(position).ok_or(NotServing::NoPrimary)?)
    }

    /// A term of this node has ended, or cannot continue because a later set exists.
    pub(crate) fn is_over(&self, position: Position, term: Term) -> bool {
        let configurations = self.0.local.configurations();
        configurations.at(position).is_none_or(|known| Term::under(&known.present) != term)
    }

    /// Each replica has had, at some time in this term, the same records around a position as this
    /// node. Since then it has received only writes of this term: it knows the set, and rejects
    /// writes under earlier ones.
    pub(crate) fn were_all_same(&self, position: Position, set: &ReplicaSet) -> bool {
        set.members[1..].iter().all(|member| {
            self.compared(position, set, member).is_some_and(|compared| compared.was_same)
        })
    }

    /// A replica of a position that has used up its quota.
    pub(crate) fn full_replica<'a>(
        &self,
        position: Position,
        set: &'a ReplicaSet,
    ) -> Option<&'a Contact> {
        set.members[1..].iter().find(|member| {
            self.compared(position, set, member).is_some_and(|compared| compared.is_full)
        })
    }

    fn compared(&self, at: Position, set: &ReplicaSet, member: &Contact) -> Option<Compared> {
        let renewing = self.0.renewing.lock();
        let mut replicas = renewing.replicas.iter();
        let of_member = replicas.find(|((range, term, id), _)| {
            *id == member.id && *term == Term::under(set) && range.contains(at)
        });
        of_member.map(|(_, compared)| *compared)
    }

    fn serves(&self, position: Position, known: &Configuration) -> Result<Term, NotServing> {
        let primary = known.present.primary();
        if primary.id != self.0.local.me {
            return Err(NotServing::Primary(primary.clone()));
        }
        if known.is_sealed() {
            return Err(NotServing::Sealed);
        }
        let served = self.0.served.borrow();
        let (term, lapse) = served.at(position).ok_or(NotServing::NoLease)?;
        let holds = *term == Term::under(&known.present) && lapse.is_after(Instant::now());
        if holds { Ok(*term) } else { Err(NotServing::NoLease) }
    }

    /// Begins a term: this node has had the set chosen, and has its records.
    pub(crate) fn enter(&self, range: KeyRange, set: &ReplicaSet) {
        let mut renewing = self.0.renewing.lock();
        renewing.leases.update(range, |lease| {
            *lease = Some((Term::under(set), LeaderLease::new(LEASE, set)));
        });
        drop(renewing);
        self.0.chosen.notify_one();
    }

    /// This node holds a term for the whole range under a set.
    pub(crate) fn holds_term(&self, range: KeyRange, set: &ReplicaSet) -> bool {
        let renewing = self.0.renewing.lock();
        let parts = renewing.leases.over(range).into_iter();
        let mut terms = parts.map(|(_, lease)| lease.map(|(term, _)| *term));
        terms.all(|term| term == Some(Term::under(set)))
    }

    /// Returns when a replica has reported a later set.
    pub(crate) async fn superseded(&self) {
        self.0.superseded.notified().await;
    }

    /// Renews leases while it is polled, and reports records that differ. A round does not wait for
    /// the one before: otherwise one silent replica would let the leases of the others expire.
    pub(crate) async fn keep(&self, differences: impl Fn(Difference)) {
        let mut rounds = FuturesUnordered::new();
        loop {
            rounds.push(self.renew_all(&differences));
            let answers = async {
                while rounds.next().await.is_some() {}
                pending::<()>().await;
            };
            tokio::select! {
                () = sleep(RENEW_EVERY) => {}
                () = self.0.chosen.notified() => {}
                () = answers => {}
            }
        }
    }

    async fn renew_all(&self, differences: &impl Fn(Difference)) {
        let mine = self.own_terms();
        let rounds: FuturesUnordered<_> =
            mine.iter().map(|(range, set)| self.renew(*range, set, differences)).collect();
        rounds.collect::<()>().await;
    }

    /// The ranges for which this node holds a term. All other terms end.
    fn own_terms(&self) -> Vec<(KeyRange, ReplicaSet)> {
        let mut renewing = self.0.renewing.lock();
        let configurations = self.0.local.configurations();
        let mut leases = RangeMap::default();
        let mut mine = Vec::new();
        for (range, known) in configurations.known().filter(|(_, known)| !known.is_sealed()) {
            for (part, lease) in renewing.leases.over(range) {
                let set = &known.present;
                if let Some(lease) = lease.filter(|(term, _)| *term == Term::under(set)) {
                    leases.update(part, |kept| *kept = Some(lease.clone()));
                    mine.push((part, set.clone()));
                }
            }
        }
        renewing.leases = leases;
        let is_mine =
            |range, term| mine.iter().any(|(mine, set)| *mine == range && Term::under(set) == term);
        renewing.replicas.retain(|(range, term, _), _| is_mine(*range, *term));
        self.publish(&renewing);
        mine
    }

    fn publish(&self, renewing: &Renewing) {
        let mut served: RangeMap<(Term, LeaseExpiry)> = RangeMap::default();
        for (range, (term, lease)) in renewing.leases.known() {
            served.update(range, |known| *known = Some((*term, lease.expiry())));
        }
        self.0.served.send_replace(Arc::new(served));
    }

    async fn renew(&self, range: KeyRange, set: &ReplicaSet, differences: &impl Fn(Difference)) {
        let others = &set.members[1..];
        let purge_before = self.purge_before(range, set);
        let Ok(digest) = self.purged(range, purge_before).await else { return };
        let asked: FuturesUnordered<_> = others
            .iter()
            .map(async |member| {
                let asked = Instant::now();
                let renewal = self.0.calls.renew((range, set), digest, purge_before, member).await;
                match renewal {
                    Ok(renewed) => {
                        self.renewed((range, set), member, asked, renewed, differences).await;
                    }
                    Err(error) => debug!(%range, %error, "a lease is not renewed"),
                }
            })
            .collect();
        asked.collect::<()>().await;
    }

    async fn renewed(
        &self,
        (range, set): (KeyRange, &ReplicaSet),
        member: &Contact,
        asked: Instant,
        renewed: Renewed,
        differences: &impl Fn(Difference),
    ) {
        let Renewal { is_same, is_full } = match renewed {
            Renewed::Granted(renewal) => renewal,
            Renewed::Sealed => {
                // The node that prepared the next set may have given up: a new set is needed to
                // continue.
                self.resign(range, Term::under(set));
                return;
            }
            Renewed::Superseded(by) => {
                if let Err(error) = self.0.local.learn_all(by).await {
                    debug!(%error, "later replica sets are not noted");
                }
                self.0.superseded.notify_one();
                return;
            }
        };
        let mut renewing = self.0.renewing.lock();
        renewing.leases.update(range, |lease| {
            if let Some((term, lease)) = lease
                && *term == Term::under(set)
            {
                lease.granted(member.id, asked);
            }
        });
        self.publish(&renewing);
        let about = (range, Term::under(set), member.id);
        let compared = renewing.replicas.entry(about).or_default();
        compared.is_full = is_full;
        compared.was_same |= is_same;
        let rounds = if is_same { 0 } else { compared.different_rounds.unwrap_or_default() + 1 };
        let is_due = rounds >= DIFFERENT_ROUNDS;
        compared.different_rounds = Some(if is_due { 0 } else { rounds });
        if is_due {
            differences(Difference { range, set: set.clone(), member: member.clone() });
        }
    }

    fn resign(&self, range: KeyRange, from: Term) {
        let mut renewing = self.0.renewing.lock();
        renewing.leases.update(range, |lease| {
            // The answer may be late, and a new term may have begun.
            *lease = lease.take().filter(|(term, _)| *term != from);
        });
        self.publish(&renewing);
        self.0.superseded.notify_one();
    }

    /// Tombstones older than this may be purged: every replica was found to have the same records.
    fn purge_before(&self, range: KeyRange, set: &ReplicaSet) -> Option<u64> {
        let renewing = self.0.renewing.lock();
        let is_same = |member: &Contact| {
            let about = (range, Term::under(set), member.id);
            let compared = renewing.replicas.get(&about);
            compared.is_some_and(|compared| compared.different_rounds == Some(0))
        };
        let before_ms = unix_ms().saturating_sub(self.0.tombstones_for.as_millis() as u64);
        set.members[1..].iter().all(is_same).then_some(before_ms)
    }

    /// The digest of a range without tombstones older than `before_ms`: the other replicas purge
    /// theirs before they compare.
    async fn purged(&self, range: KeyRange, before_ms: Option<u64>) -> Result<Digest, StoreError> {
        if let Some(before_ms) = before_ms {
            self.0.local.purge(range, before_ms).await?;
        }
        self.0.local.store.digest(range)
    }
}
