//! What may happen in the model: the steps, how often each, and the mistakes.

use super::ring::Node;
use crate::ring::ReplicaSet;

/// What may happen, and how often.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    /// What has happened already: one of these. When the first attempts begin does not matter,
    /// except for the order of their ballots.
    pub(super) past: &'static [&'static [Step]],
    /// The nodes that may begin another attempt, once there is a later set or a primary has
    /// resigned.
    pub(super) successors: &'static [Node],
    /// Attempts in all, including those of the past.
    pub(super) attempts: usize,
    pub(super) writes: usize,
    pub(super) reads: usize,
    pub(super) restarts: usize,
    pub(super) fault: Option<Fault>,
}

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A member that has promised takes writes under the present set.
    SealedTakesWrites,
    /// Records are read from one of those that promised.
    ReadsFromOne,
    /// A proposal that a member accepted before is not proposed again.
    IgnoresAccepted,
    /// New members of the next set need not be brought up to date.
    NewcomersUnsupplied,
    /// Records are taken from any node that transfers them.
    TakesAnySupply,
    /// Records that a node kept from earlier count when records are transferred.
    KeepsOldRecords,
    /// A node that is no member discards records, although they were transferred for the next set.
    DiscardsWhatWasSupplied,
    /// One node is enough, wherever a majority is needed.
    MajorityOfOne,
    /// A primary serves before it has compared its records.
    ServesUncompared,
    /// A primary stores a write itself before others do.
    PrimaryStoresFirst,
    /// Versions do not begin with the epoch.
    VersionWithoutEpoch,
    /// A record found on some members only keeps its stamp.
    IndeterminateForgotten,
    /// A primary begins a write while the outcome of the one before is unknown.
    NextWriteTooEarly,
    /// A primary serves again after a restart, under the same set.
    RestartResumes,
    /// Promises do not wait until a lease expires.
    NoLeaseWait,
    /// After a restart anywhere promises do not wait for leases granted before.
    RestartForgetsLeases,
    /// Others do not wait for the lease of a primary that proposes, although it has not promised.
    PrimaryNeedNotPromise,
    /// A read checks the leases before it reads the record.
    LeaseCheckedBefore,
    /// A read that began under an earlier set is answered.
    SetNotNoted,
}

/// A step. Numbers are indices of attempts and of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A node finds that the set it knows is not the wanted one.
    Begin(Node),
    /// A member is asked to promise.
    Prepare(usize, Node),
    /// A member of the next set receives the record that was read.
    Supply(usize, Node),
    /// A member is asked to accept the next set.
    Accept(usize, Node),
    /// A node hears that a set was chosen.
    Learn(usize, Node),
    /// A node discards records that it may discard.
    Discard(Node),
    /// A primary asks a member for its lease, and compares records.
    Renew(Node, Node),
    /// A primary begins a write, and a member is the first to store it.
    Write(Node, Node),
    /// Another member stores it.
    Replicate(usize, Node),
    /// The primary stores what others have, and acknowledges it.
    Finish(usize),
    /// A read that takes a while: other reads are answered at once, at any time.
    Read(Node),
    Answer,
    /// A primary crashes and restarts; its disk is preserved.
    Restart(Node),
}

impl Scenario {
    pub(super) fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    pub(super) fn majority(&self, set: &ReplicaSet) -> usize {
        if self.has(Fault::MajorityOfOne) { 1 } else { set.majority() }
    }
}
