//! What this node has promised, and what it keeps: every change of either goes through here.
//!
//! A promise and a write of the same range never pass each other: both are jobs of the store's one
//! writer, which does them in order and has them on disk before anybody hears of them.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use shoal_core::ring::{
    Agreement, Ballot, Clock, Custody, FromTheFuture, Intervals, KeyRange, Leases, NodeId,
    Proposal, Refusal, ReplicaSet, Superseding, Version, WriteRefusal,
};

use crate::{
    store::{Merged, Record, Store, StoreError},
    time::unix_ms,
};

/// How long a lease lasts. A crashed primary's range has no answers for as long, at most; a living
/// one may miss three renewals in a row.
pub(crate) const LEASE: Duration = Duration::from_secs(2);

/// Records that are discarded or purged before others have their turn.
const BATCH: usize = 1000;

/// The answer to a request to promise.
#[derive(Clone, Debug)]
pub(crate) enum Prepared {
    /// The node promises, and had accepted these before.
    Promised(Vec<(KeyRange, Proposal)>),
    /// A higher ballot was promised.
    Outbid(Ballot),
    /// There are later sets.
    Superseded(Superseding),
    /// The primary holds a lease for so long.
    Leased(Duration),
}

/// The answer to a proposal.
#[derive(Clone, Debug)]
pub(crate) enum Accepted {
    /// Accepted.
    Yes,
    /// A higher ballot was promised.
    Outbid(Ballot),
    /// There are later sets.
    Superseded(Superseding),
}

/// The answer to a primary that asks for a lease.
#[derive(Clone, Debug)]
pub(crate) enum Renewed {
    /// Granted, and the records are the same.
    Same,
    /// Granted, and the records differ.
    Different,
    /// The next set is being chosen.
    Sealed,
    /// There are later sets.
    Superseded(Superseding),
}

/// The answer to a write by the primary.
#[derive(Clone, Debug)]
pub(crate) enum Replicated {
    /// It is on disk.
    Stored,
    /// What is there is newer.
    Newer(Record),
    /// The next set is being chosen.
    Sealed,
    /// There are later sets.
    Superseded(Superseding),
}

/// The node's memory. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Keeper {
    pub(crate) me: NodeId,
    pub(crate) store: Store,
    leases: Arc<Mutex<Leases>>,
    clock: Arc<Mutex<Clock>>,
    /// When something of a range was last handed over.
    supplied: Arc<Mutex<Intervals<Instant>>>,
    started: Instant,
}

impl Keeper {
    pub(crate) fn new(me: NodeId, store: Store) -> Self {
        Self {
            me,
            store,
            leases: Arc::new(Mutex::new(Leases::new(LEASE, Instant::now()))),
            clock: Arc::new(Mutex::new(Clock::new(me, None))),
            supplied: Arc::default(),
            started: Instant::now(),
        }
    }

    /// What is agreed, as it is on disk.
    pub(crate) fn custody(&self) -> Arc<Custody> {
        self.store.custody()
    }

    /// A version for a write under the set of an epoch, greater than that of what it replaces.
    pub(crate) fn next_version(&self, epoch: u64, above: Option<Version>) -> Version {
        self.clock.lock().expect(NO_PANIC).next(unix_ms(), epoch, above)
    }

    /// Promises, unless the primary holds a lease and has not agreed.
    pub(crate) async fn prepare(
        &self,
        range: KeyRange,
        present: ReplicaSet,
        ballot: Ballot,
        primary_agrees: bool,
    ) -> Result<Prepared, StoreError> {
        // A primary needs no lease from itself.
        let is_free = primary_agrees || present.primary().id == self.me;
        let leased = || {
            let leases = self.leases.lock().expect(NO_PANIC);
            let wait = leases.wait(Instant::now(), range, ballot.node);
            wait.filter(|_| !is_free)
        };
        if let Some(wait) = leased() {
            return Ok(Prepared::Leased(wait));
        }
        let promise =
            self.store.write(move |txn| Ok(txn.custody().prepare(range, &present, ballot)));
        Ok(match promise.await? {
            // A lease granted meanwhile counts; one asked for from now on is not granted.
            Ok(accepted) => match leased() {
                Some(wait) => Prepared::Leased(wait),
                None => Prepared::Promised(accepted),
            },
            Err(Refusal::Outbid(ballot)) => Prepared::Outbid(ballot),
            Err(Refusal::Superseded(by)) => Prepared::Superseded(by),
        })
    }

    /// Accepts a proposal, unless a higher ballot was promised.
    pub(crate) async fn accept(
        &self,
        range: KeyRange,
        present: ReplicaSet,
        proposal: Proposal,
    ) -> Result<Accepted, StoreError> {
        let accept =
            self.store.write(move |txn| Ok(txn.custody().accept(range, &present, &proposal)));
        Ok(match accept.await? {
            Ok(()) => Accepted::Yes,
            Err(Refusal::Outbid(ballot)) => Accepted::Outbid(ballot),
            Err(Refusal::Superseded(by)) => Accepted::Superseded(by),
        })
    }

    /// Takes notice of a set that was chosen.
    pub(crate) async fn learn(
        &self,
        range: KeyRange,
        chosen: ReplicaSet,
    ) -> Result<Superseding, StoreError> {
        // Mostly it is known already, and nothing has to be written.
        let known = self.custody();
        let is_known = |known: Option<&Agreement>| {
            known.is_some_and(|known| !chosen.supersedes(&known.present))
        };
        if known.over(range).into_iter().all(|(_, known)| is_known(known)) {
            return Ok(Custody::clone(&known).learn(range, &chosen));
        }
        self.store.write(move |txn| Ok(txn.custody().learn(range, &chosen))).await
    }

    /// Grants the primary of `present` a lease, if that is the present set and takes writes.
    pub(crate) async fn renew(
        &self,
        range: KeyRange,
        present: ReplicaSet,
    ) -> Result<Result<(), WriteRefusal>, StoreError> {
        let newer = self.learn(range, present.clone()).await?;
        if !newer.is_empty() {
            return Ok(Err(WriteRefusal::Superseded(newer)));
        }
        let primary = present.primary().id;
        self.leases.lock().expect(NO_PANIC).grant(Instant::now(), range, primary);
        // After the grant: who promises looks for leases after the promise is on disk.
        let custody = self.custody();
        let is_sealed = custody
            .over(range)
            .into_iter()
            .any(|(_, known)| known.is_none_or(Agreement::is_sealed));
        Ok(if is_sealed { Err(WriteRefusal::Sealed) } else { Ok(()) })
    }

    /// Stores what the primary writes under `set`, unless something newer is there.
    pub(crate) async fn replicate(
        &self,
        range: KeyRange,
        set: ReplicaSet,
        record: Record,
    ) -> Result<Replicated, StoreError> {
        let stored = self.store.write(move |txn| {
            match txn.custody().write(record.key.position(), range, &set) {
                Err(WriteRefusal::Sealed) => return Ok(Replicated::Sealed),
                Err(WriteRefusal::Superseded(by)) => return Ok(Replicated::Superseded(by)),
                Ok(()) => {}
            }
            Ok(match txn.merge(&record)? {
                Merged::Stored | Merged::Same => Replicated::Stored,
                Merged::Older(_) => {
                    let newer = txn.get(&record.key)?;
                    Replicated::Newer(newer.unwrap_or(record))
                }
            })
        });
        stored.await
    }

    /// Keeps what is handed over, wherever it is newer than what is there.
    pub(crate) async fn supply(
        &self,
        range: KeyRange,
        records: Vec<Record>,
    ) -> Result<(), StoreError> {
        // Before they are stored, so that they are never taken for somebody else's.
        let now = Instant::now();
        self.supplied.lock().expect(NO_PANIC).update(range, |at| *at = Some(now));
        let stored = self.store.write(move |txn| {
            for record in &records {
                txn.merge(record)?;
            }
            Ok(())
        });
        stored.await
    }

    /// Something of the range was handed over within `period`, or this node has not run for so long.
    pub(crate) fn was_supplied(&self, range: KeyRange, period: Duration) -> bool {
        let supplied = self.supplied.lock().expect(NO_PANIC);
        let times = supplied.pieces(range).into_iter().filter_map(|(_, at)| at);
        times.chain([&self.started]).any(|at| at.elapsed() < period)
    }

    /// Discards all records of a range, unless this node has become a member of its set meanwhile.
    pub(crate) async fn discard(&self, range: KeyRange) -> Result<(), StoreError> {
        let me = self.me;
        let is_kept = move |known: Option<&Agreement>| {
            known.is_none_or(|known| known.present.holds(me) || known.displaced.is_some())
        };
        loop {
            let discarded = self.store.write(move |txn| {
                let known = txn.custody().over(range);
                if known.into_iter().any(|(_, known)| is_kept(known)) {
                    return Ok(0);
                }
                txn.discard(range, BATCH)
            });
            if discarded.await? < BATCH {
                return Ok(());
            }
        }
    }

    /// Forgets tombstones and expired values of a range that are older than `before_ms`: every replica
    /// has them.
    pub(crate) async fn purge(&self, range: KeyRange, before_ms: u64) -> Result<(), StoreError> {
        let old = self.store.purgeable(before_ms, BATCH)?;
        let of_range = old.into_iter().filter(|(key, _)| range.contains(key.position()));
        let purged: Vec<_> = of_range.collect();
        if purged.is_empty() {
            return Ok(());
        }
        let purge = self.store.write(move |txn| {
            for (key, version) in &purged {
                txn.purge(key, *version)?;
            }
            Ok(())
        });
        purge.await
    }

    /// What this node kept of a range in a ring that was founded apart is handed in.
    pub(crate) async fn settle(
        &self,
        range: KeyRange,
        present: ReplicaSet,
    ) -> Result<(), StoreError> {
        let settle = self.store.write(move |txn| {
            txn.custody().settle(range, &present);
            Ok(())
        });
        settle.await
    }

    /// Notes a version made elsewhere, so that ours come after it; refuses one of the far future.
    pub(crate) fn observe(&self, version: Version) -> Result<(), FromTheFuture> {
        self.clock.lock().expect(NO_PANIC).observe(version, unix_ms())
    }
}

const NO_PANIC: &str = "nothing panics while it holds the lock";
