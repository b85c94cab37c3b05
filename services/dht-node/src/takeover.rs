//! Becoming the primary of a range, or changing its replicas: docs/adr/0006.

use std::time::Duration;

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use shoal_core::ring::{Ballot, Contact, KeyRange, Proposal, ReplicaSet, Superseding, proposals};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, info};

use crate::{
    calls::CallError,
    keeper::{Accepted, Prepared},
    store::StoreError,
    sync::{Sync, SyncError},
};

/// Records handed over are kept for a minute before who is no member discards them; what is not
/// agreed within half of that begins again.
const PATIENCE: Duration = Duration::from_secs(30);

/// A range's next set could not be agreed on, yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeoverError {
    #[error("{got} of the {needed} members needed have promised")]
    TooFew { got: usize, needed: usize },
    #[error("another node bids higher")]
    Outbid(Ballot),
    #[error("there are later replica sets")]
    Superseded(Superseding),
    #[error("records cannot be brought to {0} of the new members")]
    NotSupplied(usize),
    #[error("it takes too long")]
    TooLong,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One attempt to have the next set of a range agreed on.
pub(crate) struct Takeover<'a> {
    pub(crate) sync: &'a Sync,
    pub(crate) me: &'a Contact,
    pub(crate) range: KeyRange,
    pub(crate) present: ReplicaSet,
    pub(crate) wanted: ReplicaSet,
    pub(crate) ballot: Ballot,
}

/// A member's promise, and what it had accepted before.
struct Promise {
    member: Contact,
    accepted: Vec<(KeyRange, Proposal)>,
}

impl Takeover<'_> {
    /// Has the next set agreed on, with its records in place.
    pub(crate) async fn run(&self) -> Result<(), TakeoverError> {
        let deadline = Instant::now() + PATIENCE;
        timeout_at(deadline, self.attempt()).await.map_err(|_| TakeoverError::TooLong)?
    }

    async fn attempt(&self) -> Result<(), TakeoverError> {
        // While writes go on: what is left to read once they stop is little.
        self.copy_in_advance().await;
        let promises = self.promises().await?;
        self.read_from(&promises).await?;
        let accepted = promises.into_iter().flat_map(|promise| promise.accepted);
        for (range, next) in proposals(self.range, accepted, &self.wanted) {
            if next == self.wanted {
                self.supply(range, &next).await?;
            }
            self.choose(range, &next).await?;
            self.tell(range, &next).await?;
            info!(%range, epoch = next.epoch, members = ?next.members, "replica set agreed");
        }
        Ok(())
    }

    async fn copy_in_advance(&self) {
        let primary = self.present.primary();
        if self.present.holds(self.me.id) {
            return;
        }
        if let Err(error) = self.sync.pull(self.range, primary).await {
            debug!(%error, from = %primary.address, "records are not copied in advance");
        }
    }

    /// The promises of a majority: the primary's first, if it can be had, for then no lease has to
    /// run out.
    async fn promises(&self) -> Result<Vec<Promise>, TakeoverError> {
        let (primary, others) = self.present.members.split_first().expect("a set has a member");
        let first = self.promise(primary, primary.id == self.me.id).await?;
        let agrees = first.is_some();
        let asked: FuturesUnordered<_> =
            others.iter().map(|member| self.promise(member, agrees)).collect();
        let answers: Vec<_> = asked.collect().await;
        let mut promises: Vec<_> = first.into_iter().collect();
        for answer in answers {
            promises.extend(answer?);
        }
        let (got, needed) = (promises.len(), self.present.majority());
        if got < needed { Err(TakeoverError::TooFew { got, needed }) } else { Ok(promises) }
    }

    /// A member's promise, or none if it cannot be asked.
    async fn promise(
        &self,
        member: &Contact,
        primary_agrees: bool,
    ) -> Result<Option<Promise>, TakeoverError> {
        loop {
            let prepared = if member.id == self.me.id {
                let (range, present) = (self.range, self.present.clone());
                self.sync.keeper.prepare(range, present, self.ballot, primary_agrees).await?
            } else {
                let present = (self.range, &self.present);
                let asked = self.sync.calls.prepare(present, self.ballot, primary_agrees, member);
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
                Prepared::Leased(wait) => sleep(wait).await,
                Prepared::Outbid(ballot) => return Err(TakeoverError::Outbid(ballot)),
                Prepared::Superseded(by) => return Err(TakeoverError::Superseded(by)),
            }
        }
    }

    fn go_on_without(&self, member: &Contact, error: &CallError) {
        debug!(range = %self.range, member = %member.address, %error, "a member is not heard");
    }

    /// Reads what this node lacks from a majority of the present set, itself included if it is one
    /// of those that promised.
    async fn read_from(&self, promises: &[Promise]) -> Result<(), TakeoverError> {
        let here = promises.iter().filter(|promise| promise.member.id == self.me.id).count();
        let mut read = here;
        for promise in promises.iter().filter(|promise| promise.member.id != self.me.id) {
            if read == self.present.majority() {
                break;
            }
            match self.sync.pull(self.range, &promise.member).await {
                Ok(_) => read += 1,
                Err(SyncError::Store(error)) => return Err(error.into()),
                Err(SyncError::Call(error)) => {
                    self.go_on_without(&promise.member, &error);
                }
            }
        }
        let needed = self.present.majority();
        if read < needed { Err(TakeoverError::TooFew { got: read, needed }) } else { Ok(()) }
    }

    /// Brings a majority of the next set up to date.
    async fn supply(&self, range: KeyRange, next: &ReplicaSet) -> Result<(), TakeoverError> {
        let others = next.members.iter().filter(|member| member.id != self.me.id);
        let pushes: FuturesUnordered<_> =
            others.map(|member| self.sync.push(range, member)).collect();
        let supplied = 1 + pushes.filter(|pushed| std::future::ready(pushed.is_ok())).count().await;
        let needed = next.majority();
        if supplied < needed { Err(TakeoverError::NotSupplied(supplied)) } else { Ok(()) }
    }

    /// Has a majority of the present set accept the next one.
    async fn choose(&self, range: KeyRange, next: &ReplicaSet) -> Result<(), TakeoverError> {
        let proposal = Proposal { ballot: self.ballot, next: next.clone() };
        let asked: FuturesUnordered<_> = self
            .present
            .members
            .iter()
            .map(|member| self.acceptance(range, &proposal, member))
            .collect();
        let answers: Vec<Result<bool, TakeoverError>> = asked.collect().await;
        let got = answers.iter().filter(|answer| matches!(answer, Ok(true))).count();
        let needed = self.present.majority();
        if got >= needed {
            return Ok(());
        }
        answers.into_iter().collect::<Result<Vec<_>, _>>()?;
        Err(TakeoverError::TooFew { got, needed })
    }

    async fn acceptance(
        &self,
        range: KeyRange,
        proposal: &Proposal,
        member: &Contact,
    ) -> Result<bool, TakeoverError> {
        let accepted = if member.id == self.me.id {
            self.sync.keeper.accept(range, self.present.clone(), proposal.clone()).await?
        } else {
            match self.sync.calls.accept((range, &self.present), proposal, member).await {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.go_on_without(member, &error);
                    return Ok(false);
                }
            }
        };
        match accepted {
            Accepted::Yes => Ok(true),
            Accepted::Outbid(ballot) => Err(TakeoverError::Outbid(ballot)),
            Accepted::Superseded(by) => Err(TakeoverError::Superseded(by)),
        }
    }

    /// Tells this node first, then everybody concerned, of a set that is chosen. Who does not hear
    /// it learns it from whoever speaks of the range next.
    async fn tell(&self, range: KeyRange, next: &ReplicaSet) -> Result<(), TakeoverError> {
        self.sync.keeper.learn(range, next.clone()).await?;
        let mut others = self.present.members.clone();
        others.extend(next.members.iter().cloned());
        others.retain(|member| member.id != self.me.id);
        others.sort_by_key(|member| member.id);
        others.dedup_by_key(|member| member.id);
        let told: FuturesUnordered<_> =
            others.iter().map(|member| self.sync.calls.learn((range, next), member)).collect();
        let answers: Vec<_> = told.collect().await;
        for error in answers.into_iter().filter_map(Result::err) {
            debug!(%range, %error, "a member is not told of the next set");
        }
        Ok(())
    }
}
