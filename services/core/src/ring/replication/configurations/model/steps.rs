//! The steps of the model, decided by the code that the nodes run.

use std::{collections::BTreeMap, mem, sync::Arc};

use super::{
    ring::{
        A, Attempt, B, C, D, NODES, Node, Nodes, Outcome, POSITION, Phase, RANGE, Reading, Ring,
        Term, Version, Write, contact, id, members, primary,
    },
    scenario::{Fault, Scenario, Step},
};
use crate::ring::{Ballot, Proposal, ReplicaSet, WriteRefusal, next_members, proposals};

impl Scenario {
    /// Takes a step, if it is possible.
    pub(super) fn take(&self, ring: &mut Ring, step: Step) -> Option<()> {
        match step {
            Step::Begin(node) => begin(ring, node),
            Step::Prepare(attempt, node) => self.prepare(ring, attempt, node),
            Step::Supply(attempt, node) => self.supply(ring, attempt, node),
            Step::Accept(attempt, node) => self.accept(ring, attempt, node),
            Step::Learn(attempt, node) => {
                let chosen = ring.attempts[attempt].chosen()?.clone();
                ring.configurations(node).learn(RANGE, &chosen);
                Some(())
            }
            Step::Discard(node) => self.discard(ring, node),
            Step::Renew(primary, node) => self.renew(ring, primary, node),
            Step::Write(primary, node) => self.write(ring, primary, node),
            Step::Replicate(write, node) => self.replicate(ring, write, node),
            Step::Finish(write) => self.finish(ring, write),
            Step::Read(node) => self.read(ring, node),
            Step::Answer => self.answer(ring),
            Step::Restart(node) => {
                self.restart(ring, node);
                Some(())
            }
        }?;
        self.settle(ring);
        Some(())
    }

    /// Primaries begin and end their terms, and those that may answer do so.
    pub(super) fn settle(&self, ring: &mut Ring) {
        for node in NODES {
            let present = ring.present(node);
            let is_primary = primary(present) == node && !ring.is_sealed(node);
            let epoch = is_primary.then_some(present.epoch);
            let epoch = epoch.filter(|epoch| *epoch > ring.nodes[node].resigned);
            if ring.nodes[node].term.map(|term| term.epoch) != epoch {
                abandon(ring, node);
                let term = epoch.map(|epoch| Term { epoch, ..Term::default() });
                ring.nodes[node].term = term;
            }
        }
        let answering = NODES.into_iter().filter(|node| self.may_answer(ring, *node));
        let records: Vec<_> = answering.map(|node| ring.nodes[node].record).collect();
        let newest = records.iter().copied().fold(ring.told.newest, Version::max);
        for record in records {
            ring.told.tell(record, newest);
        }
    }

    /// A member promises, once the leases it granted have expired. With a majority there is a
    /// proposal.
    fn prepare(&self, ring: &mut Ring, attempt: usize, node: Node) -> Option<()> {
        let Attempt { present, ballot, .. } = ring.attempts[attempt].clone();
        let accepted = ring.configurations(node).prepare(RANGE, &present, ballot).ok()?;
        self.wait_for_leases(ring, node, ballot);
        let record = ring.nodes[node].record;
        let attempt = &mut ring.attempts[attempt];
        let Phase::Asking(promises) = &mut attempt.phase else { return None };
        promises.insert(node, (accepted.into_iter().map(|(_, proposal)| proposal).next(), record));
        if promises.len() < self.majority(&present) {
            return Some(());
        }
        let (accepted, records): (Vec<_>, Vec<_>) = mem::take(promises).into_values().unzip();
        let accepted = accepted.into_iter().flatten().map(|accepted| (RANGE, accepted));
        let accepted = accepted.filter(|_| !self.has(Fault::IgnoresAccepted));
        let [(_, next)] = proposals(RANGE, accepted, &attempt.wanted).try_into().ok()?;
        let read = self.read_from(&records, present.epoch)?;
        let (supplied, accepted) = Default::default();
        attempt.phase = Phase::Proposing { read, next: Arc::new(next), supplied, accepted };
        Some(())
    }

    /// The last of the records read. A record that not all have is indeterminate, and precedes all
    /// other indeterminate ones.
    fn read_from(&self, records: &[Version], epoch: u64) -> Option<Version> {
        let (first, others) = records.split_first()?;
        if self.has(Fault::ReadsFromOne) {
            return Some(*first);
        }
        let last = others.iter().copied().fold(*first, Version::max);
        let is_indeterminate = others.iter().any(|other| other != first);
        let is_stamped = is_indeterminate && !self.has(Fault::IndeterminateForgotten);
        Some(if is_stamped { Version { epoch, is_indeterminate, ..last } } else { last })
    }

    fn wait_for_leases(&self, ring: &mut Ring, node: Node, ballot: Ballot) {
        for primary in NODES {
            let is_over = match self.fault {
                Some(Fault::NoLeaseWait) => false,
                Some(Fault::RestartForgetsLeases) => ring.restarts == 0,
                Some(Fault::PrimaryNeedNotPromise) => ballot.node != id(primary),
                _ => true,
            };
            if let Some(term) = ring.nodes[primary].term.as_mut().filter(|_| is_over) {
                term.leases.remove(node);
            }
        }
    }

    /// The records of a proposal that another node accepted are in place already.
    fn supply(&self, ring: &mut Ring, attempt: usize, node: Node) -> Option<()> {
        let Attempt { ballot, present, wanted, phase } = ring.attempts[attempt].clone();
        let (Phase::Proposing { read, next, .. } | Phase::Chosen { read, next }) = phase else {
            return None;
        };
        if next != wanted {
            return None;
        }
        let supplied = ring.configurations(node).supply(RANGE, &present, ballot);
        let record = &mut ring.nodes[node].record;
        match supplied {
            Ok(old) if !old.is_empty() && !self.has(Fault::KeepsOldRecords) => *record = read,
            Err(_) if !self.has(Fault::TakesAnySupply) => return None,
            _ => *record = read.max(*record),
        }
        if let Phase::Proposing { supplied, .. } = &mut ring.attempts[attempt].phase {
            supplied.add(node);
        }
        Some(())
    }

    fn accept(&self, ring: &mut Ring, attempt: usize, node: Node) -> Option<()> {
        let Attempt { ballot, present, wanted, phase } = ring.attempts[attempt].clone();
        let Phase::Proposing { read, next, supplied, mut accepted } = phase else { return None };
        if next == wanted && !self.is_supplied(&present, &next, supplied) {
            return None;
        }
        let proposal = Proposal { ballot, next: ReplicaSet::clone(&next) };
        ring.configurations(node).accept(RANGE, &present, &proposal).ok()?;
        accepted.add(node);
        ring.attempts[attempt].phase = if accepted.count() < self.majority(&present) {
            Phase::Proposing { read, next, supplied, accepted }
        } else {
            Phase::Chosen { read, next }
        };
        Some(())
    }

    /// A majority of the next set has the record, and so have all new members.
    fn is_supplied(&self, present: &ReplicaSet, next: &ReplicaSet, supplied: Nodes) -> bool {
        let mut newcomers = members(next).filter(|node| !present.holds(id(*node)));
        supplied.count() >= self.majority(next)
            && (self.has(Fault::NewcomersUnsupplied) || newcomers.all(|node| supplied.has(node)))
    }

    fn discard(&self, ring: &mut Ring, node: Node) -> Option<()> {
        let mut may_discard = !ring.nodes[node].configurations.discardable(RANGE).is_empty();
        if self.has(Fault::DiscardsWhatWasSupplied) {
            may_discard = !ring.present(node).holds(id(node));
        }
        may_discard.then(|| ring.nodes[node].record = Version::NOTHING)
    }

    fn renew(&self, ring: &mut Ring, primary: Node, node: Node) -> Option<()> {
        let set = ring.present(primary).clone();
        ring.configurations(node).write(POSITION, RANGE, &set).ok()?;
        let (own, theirs) = (ring.nodes[primary].record, ring.nodes[node].record);
        let term = ring.nodes[primary].term.as_mut()?;
        term.leases.add(node);
        if term.is_compared || self.has(Fault::ServesUncompared) {
            return Some(());
        }
        let mut last = own.max(theirs);
        if (own != theirs || own.is_indeterminate) && !self.has(Fault::IndeterminateForgotten) {
            last = Version { epoch: set.epoch, is_indeterminate: false, ..last };
        }
        if last != own {
            // The others may lack what it has just received.
            term.same = Nodes::default();
        }
        term.same.add(node);
        if term.same.count() + 1 >= self.majority(&set) {
            term.same = Nodes::default();
            term.is_compared = true;
        }
        ring.nodes[primary].record = last;
        ring.nodes[node].record = last;
        Some(())
    }

    /// One write at a time.
    fn write(&self, ring: &mut Ring, node: Node, first: Node) -> Option<()> {
        let is_pending = ring.own_writes(node).any(Write::is_pending);
        if !self.is_ready(ring, node) || is_pending && !self.has(Fault::NextWriteTooEarly) {
            return None;
        }
        abandon(ring, node);
        let set = Arc::new(ring.present(node).clone());
        let expected = ring.nodes[node].record;
        let epoch = if self.has(Fault::VersionWithoutEpoch) { 0 } else { set.epoch };
        let version = Version::of_write(epoch, expected.count + 1, 6 - ring.writes.len() as u8);
        let outcome = Outcome::Pending(Nodes::default());
        ring.writes.push(Write { set, expected, version, outcome });
        if self.has(Fault::PrimaryStoresFirst) {
            ring.nodes[node].record = version;
            return Some(());
        }
        self.replicate(ring, ring.writes.len() - 1, first)
    }

    fn replicate(&self, ring: &mut Ring, write: usize, node: Node) -> Option<()> {
        self.store(ring, write, node)?;
        if let Outcome::Pending(stored) = &mut ring.writes[write].outcome {
            stored.add(node);
        }
        Some(())
    }

    fn finish(&self, ring: &mut Ring, write: usize) -> Option<()> {
        let Write { set, version, outcome, .. } = ring.writes[write].clone();
        let Outcome::Pending(stored) = outcome else { return None };
        if stored.count() + 1 < self.majority(&set) {
            return None;
        }
        self.store(ring, write, primary(&set))?;
        ring.writes[write].outcome = Outcome::Acknowledged;
        ring.told.tell(version, version);
        Some(())
    }

    fn store(&self, ring: &mut Ring, write: usize, node: Node) -> Option<()> {
        let Write { set, version, .. } = ring.writes[write].clone();
        match ring.configurations(node).write(POSITION, RANGE, &set) {
            Ok(()) => {}
            Err(WriteRefusal::Sealed) if self.has(Fault::SealedTakesWrites) => {}
            Err(_) => return None,
        }
        let record = &mut ring.nodes[node].record;
        *record = version.max(*record);
        Some(())
    }

    fn read(&self, ring: &mut Ring, node: Node) -> Option<()> {
        let may_read = match self.fault {
            Some(Fault::LeaseCheckedBefore) => self.may_answer(ring, node),
            _ => self.is_ready(ring, node),
        };
        let epoch = ring.present(node).epoch;
        let (record, newest) = (ring.nodes[node].record, ring.told.newest);
        ring.reads += 1;
        ring.reading = Some(Reading { node, epoch, record, newest });
        may_read.then_some(())
    }

    fn answer(&self, ring: &mut Ring) -> Option<()> {
        let Reading { node, epoch, mut record, newest } = ring.reading.take()?;
        if self.has(Fault::LeaseCheckedBefore) {
            record = ring.nodes[node].record;
        } else if !self.may_answer(ring, node)
            || ring.present(node).epoch != epoch && !self.has(Fault::SetNotNoted)
        {
            return Some(());
        }
        ring.told.tell(record, newest);
        Some(())
    }

    fn restart(&self, ring: &mut Ring, node: Node) {
        abandon(ring, node);
        ring.restarts += 1;
        ring.reading = ring.reading.filter(|reading| reading.node != node);
        let term = ring.nodes[node].term.take();
        if let Some(term) = term.filter(|_| !self.has(Fault::RestartResumes)) {
            ring.nodes[node].resigned = term.epoch;
        }
    }

    /// It is a primary that takes writes, and reads while it holds leases.
    fn is_ready(&self, ring: &Ring, node: Node) -> bool {
        let term = ring.nodes[node].term;
        term.is_some_and(|term| term.is_compared || self.has(Fault::ServesUncompared))
    }

    fn may_answer(&self, ring: &Ring, node: Node) -> bool {
        let leases = ring.nodes[node].term.map_or(0, |term| term.leases.count());
        self.is_ready(ring, node) && leases + 1 >= self.majority(ring.present(node))
    }
}

/// A node attempts the wanted set, if it is not the present one.
fn begin(ring: &mut Ring, node: Node) -> Option<()> {
    let present = ring.present(node).clone();
    // Their view of the circle: D that it lies before A, the others that the next one is gone.
    let successors = if matches!(node, A | B) { [C, D] } else { [A, B] };
    let members = next_members(&present, &contact(node), &successors.map(contact), |_| false, 3);
    let is_served = !ring.is_sealed(node) && present.epoch > ring.nodes[node].resigned;
    if members == present.members && is_served {
        return None;
    }
    let round = ring.attempts.len() as u64 + 1;
    let wanted = ReplicaSet { epoch: present.epoch + 1, members, ..present };
    ring.attempts.push(Attempt {
        ballot: Ballot { round, node: id(node) },
        present: Arc::new(present),
        wanted: Arc::new(wanted),
        phase: Phase::Asking(BTreeMap::new()),
    });
    Some(())
}

/// No client waits any more for the writes of a primary.
fn abandon(ring: &mut Ring, node: Node) {
    let own = ring.writes.iter_mut().filter(|write| primary(&write.set) == node);
    for write in own.filter(|write| write.outcome != Outcome::Acknowledged) {
        write.outcome = Outcome::Unknown;
    }
}
