//! Reconfigurations, writes and reads in every order: a model of docs/adr/0006 that is checked
//! exhaustively.
//!
//! Nodes decide by [`Configurations`], [`proposals`] and [`next_members`] themselves. Each
//! [`Fault`] is a mistake that they, or the service around them, could make; the model finds it.
//!
//! [`Configurations`]: super::Configurations
//! [`Fault`]: scenario::Fault
//! [`proposals`]: crate::ring::proposals
//! [`next_members`]: crate::ring::next_members

mod ring;
mod scenario;
mod steps;

use stateright::{Model, Property};

use self::{
    ring::{NODES, Outcome, Phase, Ring, Write, members, primary},
    scenario::{Scenario, Step},
};

const CHOSEN_MEANWHILE: &str = "a set is chosen while a write is under way";
const LATER_SET_WRITES: &str = "a later set acknowledges a write";
const COMPLETED_BY_OTHERS: &str = "a set is completed by somebody else";

impl Scenario {
    fn reconfigurations(&self, ring: &Ring, steps: &mut Vec<Step>) {
        if ring.attempts.len() < self.attempts {
            // A wrong first set would have been found before.
            let later = self
                .successors
                .iter()
                .filter(|node| ring.present(**node).epoch > 1 || ring.restarts > 0);
            steps.extend(later.map(|node| Step::Begin(*node)));
        }
        for (index, attempt) in ring.attempts.iter().enumerate() {
            let present = members(&attempt.present);
            match &attempt.phase {
                Phase::Asking(promises) => {
                    let others = present.filter(|node| !promises.contains_key(node));
                    steps.extend(others.map(|node| Step::Prepare(index, node)));
                }
                Phase::Proposing { next, supplied, accepted, .. } => {
                    let lacking = members(next).filter(|node| !supplied.has(*node));
                    steps.extend(lacking.map(|node| Step::Supply(index, node)));
                    let others = present.filter(|node| !accepted.has(*node));
                    steps.extend(others.map(|node| Step::Accept(index, node)));
                }
                Phase::Chosen { next, .. } => {
                    steps.extend(members(next).map(|node| Step::Supply(index, node)));
                    // Others learn it from the next message about it.
                    let heeding = self.successors.iter().copied().chain([primary(next)]);
                    let ignorant = heeding.filter(|node| ring.present(*node).epoch < next.epoch);
                    steps.extend(ignorant.map(|node| Step::Learn(index, node)));
                }
            }
        }
        steps.extend(NODES.map(Step::Discard));
    }

    fn service(&self, ring: &Ring, steps: &mut Vec<Step>) {
        for (node, term) in NODES.map(|node| (node, ring.nodes[node].term)) {
            let Some(term) = term else { continue };
            let others = || members(ring.present(node)).filter(|other| *other != node);
            let unbound = others().filter(|other| !term.leases.has(*other));
            steps.extend(unbound.map(|other| Step::Renew(node, other)));
            if ring.writes.len() < self.writes {
                steps.extend(others().map(|first| Step::Write(node, first)));
            }
            if ring.reads < self.reads {
                steps.push(Step::Read(node));
            }
        }
        for (index, write) in ring.writes.iter().enumerate() {
            let others = members(&write.set).filter(|node| *node != primary(&write.set));
            steps.extend(others.map(|node| Step::Replicate(index, node)));
            steps.push(Step::Finish(index));
        }
        steps.extend(ring.reading.map(|_| Step::Answer));
        if ring.restarts < self.restarts {
            steps.extend(NODES.map(Step::Restart));
        }
    }
}

impl Model for Scenario {
    type State = Ring;
    type Action = Step;

    fn init_states(&self) -> Vec<Ring> {
        let pasts = self.past.iter().map(|past| {
            let mut ring = Ring::new();
            self.settle(&mut ring);
            for step in *past {
                self.take(&mut ring, *step).expect("it could happen");
            }
            ring
        });
        pasts.collect()
    }

    fn actions(&self, ring: &Ring, steps: &mut Vec<Step>) {
        self.reconfigurations(ring, steps);
        self.service(ring, steps);
    }

    fn next_state(&self, ring: &Ring, step: Step) -> Option<Ring> {
        let mut next = ring.clone();
        self.take(&mut next, step)?;
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("one set is chosen", |_, ring: &Ring| ring.is_agreed()),
            Property::always("no answer is stale", |_, ring: &Ring| !ring.told.is_stale),
            Property::always("one history", |_, ring: &Ring| ring.is_one_history()),
            Property::always("nothing told is lost", |_, ring: &Ring| ring.is_kept()),
            Property::sometimes(CHOSEN_MEANWHILE, |_, ring: &Ring| {
                ring.latest().epoch > 1 && ring.writes.iter().any(Write::is_pending)
            }),
            Property::sometimes(LATER_SET_WRITES, |_, ring: &Ring| {
                let mut later = ring.writes.iter().filter(|write| write.set.epoch > 1);
                later.any(|write| write.outcome == Outcome::Acknowledged)
            }),
            Property::sometimes("what nobody acknowledged is read", |_, ring: &Ring| {
                let mut read = ring.writes.iter().filter(|write| ring.told.has(write.version));
                read.any(|write| write.outcome == Outcome::Unknown)
            }),
            Property::sometimes(COMPLETED_BY_OTHERS, |_, ring: &Ring| {
                let mut attempts = ring.attempts.iter();
                attempts.any(|attempt| {
                    attempt.chosen().is_some_and(|chosen| *chosen != *attempt.wanted)
                })
            }),
        ]
    }
}

#[cfg(test)]
mod tests {
    use stateright::{Checker, Expectation, HasDiscoveries};

    use super::{
        ring::{A, B, C, D},
        scenario::{
            Fault::{self, *},
            Step::*,
        },
        *,
    };

    /// D takes over, and one write is made.
    const ONE: Scenario = Scenario {
        past: &[&[Begin(D)]],
        successors: &[],
        attempts: 1,
        writes: 1,
        reads: 0,
        restarts: 0,
        fault: None,
    };
    /// D and B, which takes A for dead, take over at the same time, while B has stored a write.
    const RIVALS: Scenario = Scenario {
        past: &[
            &[Renew(A, C), Write(A, B), Begin(D), Begin(B)],
            &[Renew(A, C), Write(A, B), Begin(B), Begin(D)],
        ],
        attempts: 2,
        ..ONE
    };
    /// After D, A or B takes over.
    const CHAIN: Scenario = Scenario { successors: &[A, B], attempts: 2, ..ONE };
    /// D has taken over, A has not heard of it, and may take over again.
    const UNAWARE: Scenario = Scenario {
        past: &[&[
            Renew(A, B),
            Begin(D),
            Prepare(0, B),
            Prepare(0, C),
            Supply(0, D),
            Supply(0, B),
            Accept(0, B),
            Accept(0, C),
            Learn(0, D),
            Renew(D, B),
        ]],
        successors: &[A],
        attempts: 2,
        reads: 1,
        ..ONE
    };
    /// A and then D were the primary and left indeterminate writes, on B and on A.
    const INDETERMINATE: Scenario = Scenario {
        past: &[&[
            Renew(A, C),
            Write(A, B),
            Begin(D),
            Prepare(0, A),
            Prepare(0, C),
            Supply(0, D),
            Supply(0, A),
            Accept(0, A),
            Accept(0, C),
            Learn(0, D),
            Renew(D, A),
            Write(D, A),
            Restart(D),
            Begin(D),
        ]],
        successors: &[A],
        attempts: 3,
        writes: 2,
        restarts: 1,
        ..ONE
    };

    /// Checks every state. Everything that may sometimes happen does, except what is `unreached`.
    fn check(model: Scenario, unreached: &[&str]) {
        let checker = model.checker().spawn_bfs().join();
        println!("{} states, {} steps", checker.unique_state_count(), checker.state_count());
        for property in checker.model().properties() {
            let is_failure = property.expectation == Expectation::Always;
            if is_failure || unreached.contains(&property.name) {
                checker.assert_no_discovery(property.name);
            } else {
                checker.assert_any_discovery(property.name);
            }
        }
    }

    /// Checks until an invariant is violated.
    fn find(fault: Fault, mut model: Scenario) {
        model.fault = Some(fault);
        let checker = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        let properties = checker.model().properties().into_iter();
        let mut failures =
            properties.filter(|property| property.expectation == Expectation::Always);
        let found = failures.find(|property| checker.discovery(property.name).is_some());
        let found = found.unwrap_or_else(|| panic!("{fault:?} is not found")).name;
        println!("{fault:?}: {found} ({} states)", checker.unique_state_count());
    }

    #[test]
    fn rivals_agree_on_one_set_and_keep_what_is_written() {
        check(RIVALS, &[LATER_SET_WRITES]);
    }

    #[test]
    fn one_reconfiguration_after_another_keeps_what_is_written() {
        check(CHAIN, &[COMPLETED_BY_OTHERS]);
    }

    #[test]
    fn a_primary_that_restarts_knows_the_outcome_of_its_writes() {
        check(Scenario { writes: 2, restarts: 2, ..ONE }, &[COMPLETED_BY_OTHERS]);
    }

    #[test]
    fn indeterminate_writes_of_several_primaries_become_one_history() {
        check(INDETERMINATE, &[LATER_SET_WRITES, CHOSEN_MEANWHILE]);
    }

    #[test]
    fn a_read_that_takes_a_while_is_not_stale() {
        check(UNAWARE, &[COMPLETED_BY_OTHERS]);
    }

    #[test]
    fn a_reconfiguration_done_wrongly_is_found() {
        find(ReadsFromOne, ONE);
        find(IgnoresAccepted, Scenario { past: &[&[Begin(D), Begin(B)]], writes: 0, ..RIVALS });
        find(NewcomersUnsupplied, ONE);
        find(
            TakesAnySupply,
            Scenario { past: &[&[Begin(B), Begin(D), Prepare(0, B), Prepare(1, B)]], ..RIVALS },
        );
        find(KeepsOldRecords, ONE);
        find(DiscardsWhatWasSupplied, ONE);
        find(MajorityOfOne, ONE);
        find(IndeterminateForgotten, INDETERMINATE);
    }

    #[test]
    fn a_write_or_a_read_done_wrongly_is_found() {
        find(SealedTakesWrites, ONE);
        find(ServesUncompared, RIVALS);
        find(PrimaryStoresFirst, ONE);
        find(
            VersionWithoutEpoch,
            Scenario { past: &[&[Begin(B)]], successors: &[D], writes: 2, ..CHAIN },
        );
        find(NextWriteTooEarly, Scenario { writes: 2, restarts: 2, ..ONE });
        find(RestartResumes, Scenario { writes: 2, restarts: 2, ..ONE });
        find(LeaseCheckedBefore, Scenario { reads: 1, ..ONE });
        find(SetNotNoted, UNAWARE);
    }

    #[test]
    fn a_lease_that_is_not_waited_for_is_found() {
        find(NoLeaseWait, ONE);
        find(RestartForgetsLeases, Scenario { restarts: 1, ..ONE });
        find(PrimaryNeedNotPromise, Scenario { past: &[&[Begin(A)]], successors: &[D], ..CHAIN });
    }
}
