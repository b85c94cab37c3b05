//! Reconfiguration: a node becomes the primary of a range, or changes its replicas (docs/adr/0006).

use std::{collections::HashSet, fmt::Display, future::ready, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream::FuturesUnordered};
use shoal_core::{
    Address,
    ring::{Ballot, Contact, KeyRange, Proposal, Refusal, ReplicaSet, proposals},
};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, info};

use crate::{
    replication::{
        anti_entropy::{AntiEntropy, AntiEntropyError},
        local_replica::{Handover, LEASE, Prepared, SupplyError},
    },
    routing::lookup::Lookups,
    storage::{Key, StoreError},
};

/// An attempt that takes longer starts again: the ring may have changed.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a live primary is given to agree before the others are asked without its consent, in
/// which case its leases must expire first.
const CONSENT_PATIENCE: Duration = Duration::from_millis(500);

/// The next set of a range could not be agreed on yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconfigurationError {
    #[error("{got} of the {needed} members needed have promised")]
    TooFew { got: usize, needed: usize },
    #[error("the primary does not answer, but keeps renewing its leases")]
    PrimaryLives,
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("records cannot be sent to {0}")]
    NotSupplied(Address),
    #[error("records can be sent to {got} of the {needed} members needed")]
    TooFewSupplied { got: usize, needed: usize },
    #[error("indeterminate records can be rewritten on {got} of the {needed} members needed")]
    TooFewRewritten { got: usize, needed: usize },
    #[error("the attempt timed out")]
    TooLong,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<SupplyError> for ReconfigurationError {
    fn from(error: SupplyError) -> Self {
        match error {
            SupplyError::Refused(refusal) => refusal.into(),
            SupplyError::Store(error) => error.into(),
        }
    }
}

/// One attempt to agree on the next set of a range.
pub(crate) struct Reconfiguration {
    pub(crate) anti_entropy: AntiEntropy,
    pub(crate) lookups: Lookups,
    pub(crate) me: Contact,
    pub(crate) range: KeyRange,
    pub(crate) present: ReplicaSet,
    pub(crate) wanted: ReplicaSet,
    pub(crate) ballot: Ballot,
}

/// A member's promise, and the proposals that it had accepted before.
struct Promise {
    member: Contact,
    accepted: Vec<(KeyRange, Proposal)>,
}

impl Reconfiguration {
    /// Has the next set chosen, with its records in place. Returns the ranges where it was; in the
    /// others an earlier attempt of another node had to be completed.
    pub(crate) async fn run(&self) -> Result<Vec<KeyRange>, ReconfigurationError> {
        let deadline = Instant::now() + PATIENCE;
        timeout_at(deadline, self.attempt()).await.map_err(|_| ReconfigurationError::TooLong)?
    }

    async fn attempt(&self) -> Result<Vec<KeyRange>, ReconfigurationError> {
        self.copy_in_advance().await?;
        let promises = self.promises().await?;
        let handover = self.handover(self.range, Some(self.ballot));
        let differing = self.read_from(&promises, &handover).await?;
        let accepted = promises.into_iter().flat_map(|promise| promise.accepted);
        // A proposal that does not follow the present set was never validly accepted, and cannot be
        // chosen.
        let accepted = accepted.filter(|(_, accepted)| accepted.next.comes_after(&self.present));
        let mut chosen = Vec::new();
        for (range, next) in proposals(self.range, accepted, &self.wanted) {
            let is_wanted = next == self.wanted;
            if is_wanted {
                self.supply(&Handover { range, ..handover.clone() }).await?;
            }
            self.choose(range, &next).await?;
            self.anti_entropy.local.learn(range, next.clone()).await?;
            self.tell_others(range, &next);
            if is_wanted {
                self.write_again((range, &next), &differing).await?;
            }
            info!(%range, epoch = next.epoch, members = ?next.members, "replica set agreed");
            chosen.extend(is_wanted.then_some(range));
        }
        Ok(chosen)
    }

    fn handover(&self, range: KeyRange, ballot: Option<Ballot>) -> Handover {
        Handover { range, present: self.present.clone(), ballot }
    }

    /// The members of the next set that are not members of the present one.
    fn newcomers(&self) -> impl Iterator<Item = &Contact> {
        self.wanted.members.iter().filter(|member| !self.present.holds(member.id))
    }

    /// Copies the range to the new members while writes continue, so that little is left to copy
    /// while they are stopped. If a new member cannot be reached or refuses records, no write has
    /// been stopped yet.
    async fn copy_in_advance(&self) -> Result<(), ReconfigurationError> {
        let handover = self.handover(self.range, None);
        if self.newcomers().any(|newcomer| newcomer.id == self.me.id) {
            self.anti_entropy.local.supply(&handover, Vec::new()).await?;
            let present = self.present.members.iter();
            for member in present.filter(|member| !self.lookups.is_dead(member.id)) {
                match self.anti_entropy.pull(&handover, member).await {
                    Ok(_) => break,
                    Err(error) => debug!(%error, "records are not copied in advance"),
                }
            }
        }
        self.supply_newcomers(&handover).await.map(drop)
    }

    /// Brings the new members up to date with this node. Returns how many there are.
    async fn supply_newcomers(&self, handover: &Handover) -> Result<usize, ReconfigurationError> {
        let others = self.newcomers().filter(|newcomer| newcomer.id != self.me.id);
        let pushes: FuturesUnordered<_> = others
            .map(async |newcomer| match self.anti_entropy.push(handover, newcomer).await {
                Ok(_) => Ok(()),
                Err(AntiEntropyError::Refused(refusal)) => Err(refusal.into()),
                Err(error) => {
                    self.go_on_without(newcomer, &error);
                    Err(ReconfigurationError::NotSupplied(newcomer.address.clone()))
                }
            })
            .collect();
        let supplied: Vec<()> = pushes.try_collect().await?;
        Ok(supplied.len())
    }

    /// The promises of a majority. The primary is asked first, because no lease has to expire if it
    /// agrees.
    async fn promises(&self) -> Result<Vec<Promise>, ReconfigurationError> {
        let (primary, others) = self.present.members.split_first().expect("a set has a member");
        let consent = self.promise(primary, primary.id == self.me.id);
        let consent = tokio::select! {
            consent = consent => consent?,
            () = self.lookups.death(primary.id) => None,
            () = sleep(CONSENT_PATIENCE) => None,
        };
        let mut promises: Vec<_> = consent.into_iter().collect();
        let agrees = !promises.is_empty();
        let asked = others.iter().map(|member| self.promise(member, agrees)).collect();
        let needed = self.present.majority() - promises.len();
        promises.extend(first_of(needed, asked).await?);
        Ok(promises)
    }

    /// A member's promise, or none if it cannot be asked. A lease is waited for once: if it is
    /// renewed in the meantime, the primary is alive and is asked again.
    async fn promise(
        &self,
        member: &Contact,
        primary_agrees: bool,
    ) -> Result<Option<Promise>, ReconfigurationError> {
        let mut has_waited = false;
        loop {
            let prepared = if member.id == self.me.id {
                let (range, present) = (self.range, self.present.clone());
                self.anti_entropy.local.prepare(range, present, self.ballot, primary_agrees).await?
            } else {
                let present = (self.range, &self.present);
                let asked =
                    self.anti_entropy.calls.prepare(present, self.ballot, primary_agrees, member);
                match asked.await {
                    Ok(prepared) => prepared,
                    Err(error) => {
                        self.go_on_without(member, &error);
                        return Ok(None);
                    }
                }
            };
            match prepared {
                Prepared::Promised(accepted) => {
                    return Ok(Some(Promise { member: member.clone(), accepted }));
                }
                Prepared::Leased(_) if has_waited => {
                    return Err(ReconfigurationError::PrimaryLives);
                }
                Prepared::Leased(wait) => {
                    has_waited = true;
                    sleep(wait.min(LEASE)).await;
                }
                Prepared::Refused(refusal) => return Err(refusal.into()),
            }
        }
    }

    fn go_on_without(&self, member: &Contact, error: &impl Display) {
        debug!(range = %self.range, member = %member.address, %error, "a member is not heard");
    }

    /// Reads the records that this node lacks from a majority of the present set, which includes
    /// this node if it has promised. Returns the keys for which the members had different stamps.
    async fn read_from(
        &self,
        promises: &[Promise],
        handover: &Handover,
    ) -> Result<HashSet<Key>, ReconfigurationError> {
        self.anti_entropy.local.supply(handover, Vec::new()).await?;
        let needed = self.present.majority();
        let mut differing = HashSet::new();
        let mut got = promises.iter().filter(|promise| promise.member.id == self.me.id).count();
        for promise in promises.iter().filter(|promise| promise.member.id != self.me.id) {
            if got >= needed {
                break;
            }
            match self.anti_entropy.pull(handover, &promise.member).await {
                Ok(difference) => {
                    differing.extend(difference.lacking_there);
                    // A new member lacks most of what the first member has: that means nothing.
                    if got > 0 {
                        differing.extend(difference.lacking_here);
                    }
                    got += 1;
                }
                Err(AntiEntropyError::Store(error)) => return Err(error.into()),
                Err(AntiEntropyError::Refused(refusal)) => return Err(refusal.into()),
                Err(AntiEntropyError::Call(error)) => self.go_on_without(&promise.member, &error),
            }
        }
        if got < needed { Err(ReconfigurationError::TooFew { got, needed }) } else { Ok(differing) }
    }

    /// Brings all new members and a majority of the next set up to date.
    async fn supply(&self, handover: &Handover) -> Result<(), ReconfigurationError> {
        let needed = self.wanted.majority();
        let staying = self
            .wanted
            .members
            .iter()
            .filter(|member| member.id != self.me.id && self.present.holds(member.id));
        let pushes: FuturesUnordered<_> =
            staying.map(|member| self.anti_entropy.push(handover, member)).collect();
        let stayed = pushes.filter(|pushed| ready(pushed.is_ok()));
        let mut got = 1 + self.supply_newcomers(handover).await?;
        got += stayed.take(needed.saturating_sub(got)).count().await;
        if got < needed {
            Err(ReconfigurationError::TooFewSupplied { got, needed })
        } else {
            Ok(())
        }
    }

    /// Has a majority of the present set accept the next one.
    async fn choose(&self, range: KeyRange, next: &ReplicaSet) -> Result<(), ReconfigurationError> {
        let proposal = Proposal { ballot: self.ballot, next: next.clone() };
        let members = self.present.members.iter();
        let asked = members.map(|member| self.acceptance(range, &proposal, member)).collect();
        first_of(self.present.majority(), asked).await.map(drop)
    }

    async fn acceptance(
        &self,
        range: KeyRange,
        proposal: &Proposal,
        member: &Contact,
    ) -> Result<Option<()>, ReconfigurationError> {
        let accepted = if member.id == self.me.id {
            self.anti_entropy.local.accept(range, self.present.clone(), proposal.clone()).await?
        } else {
            match self.anti_entropy.calls.accept((range, &self.present), proposal, member).await {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.go_on_without(member, &error);
                    return Ok(None);
                }
            }
        };
        accepted?;
        Ok(Some(()))
    }

    /// Writes again, under the set that was just chosen, every record that was not the same on all
    /// members that were read: a write that was never acknowledged, or one that a different
    /// majority has. A replica that was not read may hold a later write of another primary that did
    /// not read this one either, and that write must not become visible later. Versions do not
    /// change, because clients may know them.
    async fn write_again(
        &self,
        (range, set): (KeyRange, &ReplicaSet),
        differing: &HashSet<Key>,
    ) -> Result<(), ReconfigurationError> {
        let local = &self.anti_entropy.local;
        let keys = differing.iter().filter(|key| range.contains(key.position())).cloned();
        let keys: Vec<_> = keys.collect();
        for batch in self.anti_entropy.batches(&keys) {
            let records: Vec<_> = batch?
                .into_iter()
                .map(|mut record| {
                    record.stamp.epoch = record.stamp.epoch.max(set.epoch);
                    record
                })
                .collect();
            let others = set.members.iter().filter(|member| member.id != self.me.id);
            let asked: FuturesUnordered<_> = others
                .map(|member| self.anti_entropy.calls.replicate((range, set), &records, member))
                .collect();
            let stored =
                asked.filter(|answer| ready(matches!(answer, Ok(Ok(newer)) if newer.is_empty())));
            let needed = set.majority();
            let got = 1 + stored.take(needed - 1).count().await;
            let stored_here = || local.replicate(range, set.clone(), records);
            if got < needed || stored_here().await?.is_err() {
                return Err(ReconfigurationError::TooFewRewritten { got, needed });
            }
        }
        Ok(())
    }

    /// Tells all members about a chosen set. Nothing waits for this: a node that misses it learns
    /// the set from the next message about the range.
    fn tell_others(&self, range: KeyRange, next: &ReplicaSet) {
        let mut others = self.present.members.clone();
        others.extend(next.members.iter().cloned());
        others.retain(|member| member.id != self.me.id);
        others.sort_by_key(|member| member.id);
        others.dedup_by_key(|member| member.id);
        for member in others {
            let (calls, next) = (self.anti_entropy.calls.clone(), next.clone());
            tokio::spawn(async move {
                if let Err(error) = calls.learn((range, &next), &member).await {
                    debug!(%range, %error, "a member is not told of the next set");
                }
            });
        }
    }
}

/// The first answers, as many as needed: nothing waits for a dead member. If there are too few, one
/// of the refusals.
async fn first_of<T>(
    needed: usize,
    mut asked: FuturesUnordered<impl Future<Output = Result<Option<T>, ReconfigurationError>>>,
) -> Result<Vec<T>, ReconfigurationError> {
    let (mut answers, mut refusal) = (Vec::new(), None);
    while answers.len() < needed
        && let Some(answer) = asked.next().await
    {
        match answer {
            Ok(answer) => answers.extend(answer),
            Err(error) => refusal = Some(error),
        }
    }
    match answers.len() {
        got if got >= needed => Ok(answers),
        got => Err(refusal.unwrap_or(ReconfigurationError::TooFew { got, needed })),
    }
}
