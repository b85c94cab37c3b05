//! Finding a position's closest successor by asking ever closer nodes, as a state machine: the
//! shell asks.
//!
//! The lookup is iterative and hedged: it asks the two most promising nodes at once, and continues
//! with the two best it then knows as soon as one answer brings it closer; the slower one may still
//! answer. But the node that the membership or the node's own successor list names as the owner is
//! asked first, and alone. After a round without an answer it asks three at once. It first walks to
//! a node whose successor list reaches past the position, then tries the nodes of that list from
//! the position on. It ends when one says that it owns the position and no node known to be alive
//! lies between, or when all between are found dead and the last live node before the position
//! knows of no others: then the next live one is the owner.
//!
//! A node whose answer is late is passed over, but not taken for dead: its answer still counts
//! while the lookup lasts.
//!
//! Answers are trusted only as far as they lead closer: a named node counts only if it lies nearer
//! than the node that names it, no node is asked twice, and the number of questions is limited. So
//! a lookup ends whatever others answer.

mod known;
mod rounds;

use self::{
    known::{Goal, Known},
    rounds::Rounds,
};
use crate::ring::{Contact, Found, Position};

/// How a lookup asks.
#[derive(Clone, Debug)]
pub struct LookupSettings {
    /// Nodes asked at once. If it is always one, this is the lookup of the Chord paper.
    pub branches: usize,
    /// The same after the first round without an answer: many nodes are dead.
    pub branches_after_timeout: usize,
    /// Nodes asked before it gives up. In a ring of 1,000 of which half died at once, a lookup asks
    /// 12, rarely 60.
    pub max_asks: usize,
}

impl Default for LookupSettings {
    fn default() -> Self {
        Self { branches: 2, branches_after_timeout: 3, max_asks: 128 }
    }
}

/// The result of a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The position's closest successor. It answered that it owns the position, or all nodes
    /// between were found dead.
    pub owner: Contact,
    /// The closest node before the position that answered and whose successor list reaches past it.
    /// None if the owner was found without one.
    pub predecessor: Option<Contact>,
    /// The nodes of that list at or after the position, closest first, without those that this
    /// lookup found dead.
    pub successors: Vec<Contact>,
    /// The nodes that answered, in that order.
    pub path: Vec<Contact>,
    /// Hops from this node to the one that named the owner, its predecessor: the path length of the
    /// Chord paper.
    pub hops: usize,
    /// Rounds in which none of the nodes answered.
    pub timeouts: usize,
    /// Nodes asked.
    pub asked: usize,
}

/// Why a lookup failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// All nodes that were named are dead, or answer nonsense.
    #[error("of {0} nodes asked none led to the key's owner; try again, or through another node")]
    NoAnswer(usize),
    /// [`LookupSettings::max_asks`].
    #[error("gave up after asking {0} nodes for the key's owner; try again in a while")]
    TooManyAsked(usize),
}

/// One lookup. It expects an outcome for each node that it names: an answer, or a failure.
#[derive(Clone, Debug)]
pub struct Lookup {
    settings: LookupSettings,
    known: Known,
    rounds: Rounds,
    /// The next questions begin a new round: better nodes are known than when the last one began.
    improved: bool,
    path: Vec<Contact>,
    asked: usize,
    outcome: Option<Result<Outcome, Failure>>,
}

impl Lookup {
    /// A member looks up a position, beginning with its own routing table.
    pub fn new(position: Position, start: &Found, settings: LookupSettings) -> Self {
        let mut lookup = Self::with(Known::new(position, Goal::Owner), settings);
        let me = lookup.known.insert(&start.node, 0);
        lookup.known.absorb(me, start);
        lookup.settle();
        lookup
    }

    /// A node looks up its own place in a ring through the members `seeds`. The lookup ends only
    /// with the live node right before that place; an earlier life of the joiner, which others may
    /// remember, is not asked.
    pub fn of_joiner(joiner: &Contact, seeds: &[Contact], settings: LookupSettings) -> Self {
        let known = Known::new(joiner.position, Goal::Place);
        let mut lookup = Self::with(known, settings);
        for seed in seeds.iter().filter(|seed| seed.position != joiner.position) {
            lookup.known.insert(seed, 1);
        }
        lookup.settle();
        lookup
    }

    fn with(known: Known, settings: LookupSettings) -> Self {
        Self {
            settings,
            known,
            rounds: Rounds::default(),
            improved: false,
            path: Vec::new(),
            asked: 0,
            outcome: None,
        }
    }

    /// The nodes to ask now, if any. More may follow after any answer or failure.
    pub fn next_asks(&mut self) -> Vec<Contact> {
        if self.outcome.is_some() {
            return Vec::new();
        }
        let candidates = self.candidates();
        if self.improved && !candidates.is_empty() {
            self.rounds.begin_anew();
            self.improved = false;
        }
        let free = self.width().saturating_sub(self.rounds.under_way());
        let free = free.min(self.settings.max_asks.saturating_sub(self.asked));
        let mut asks = Vec::new();
        for distance in candidates.into_iter().take(free) {
            let round = self.rounds.ask();
            asks.extend(self.known.ask(distance, round));
        }
        self.asked += asks.len();
        asks
    }

    /// A node has not answered for so long that others should be asked. It may still answer, or
    /// fail.
    pub fn late(&mut self, asked: &Contact) {
        let Some((distance, Some(round))) = self.known.awaited(asked) else { return };
        self.rounds.failed(round);
        self.known.delay(distance);
    }

    /// A node answered.
    pub fn answered(&mut self, asked: &Contact, found: &Found) {
        let Some((distance, round)) = self.known.awaited(asked) else { return };
        if found.node.position != asked.position || found.node.id != asked.id {
            // Another node has its address.
            self.failed(asked);
            return;
        }
        if let Some(round) = round {
            self.rounds.answered(round);
        }
        self.path.push(asked.clone());
        self.improved |= self.known.absorb(distance, found);
        self.settle();
    }

    /// A node will not answer, refused, or answered nonsense.
    pub fn failed(&mut self, asked: &Contact) {
        let Some((distance, round)) = self.known.awaited(asked) else { return };
        if let Some(round) = round {
            self.rounds.failed(round);
        }
        self.known.fail(distance);
        self.settle();
    }

    /// The result, once the lookup is over. No more answers are needed then.
    pub const fn outcome(&self) -> Option<&Result<Outcome, Failure>> {
        self.outcome.as_ref()
    }

    fn candidates(&self) -> Vec<u128> {
        self.known.candidates(self.width(), self.rounds.under_way() == 0)
    }

    /// How many questions may be in flight.
    fn width(&self) -> usize {
        let LookupSettings { branches, branches_after_timeout, .. } = self.settings;
        match (self.asked, self.rounds.timeouts()) {
            // The first of the own list usually is the owner.
            (0, _) if self.known.is_covered() => 1,
            (_, 0) => branches.max(1),
            _ => branches_after_timeout.max(1),
        }
    }

    /// Ends the lookup if there is nothing left to find, or no node left to ask.
    fn settle(&mut self) {
        if self.outcome.is_some() {
            return;
        }
        let idle = self.known.is_idle();
        let stuck = idle && (self.candidates().is_empty() || self.asked >= self.settings.max_asks);
        self.outcome = match self.known.owner() {
            Some((owner, hops)) if stuck || self.known.is_done() => {
                Some(Ok(self.outcome_of(owner.clone(), hops)))
            }
            _ if !stuck => None,
            _ if self.asked >= self.settings.max_asks => {
                Some(Err(Failure::TooManyAsked(self.asked)))
            }
            _ => Some(Err(Failure::NoAnswer(self.asked))),
        };
    }

    fn outcome_of(&self, owner: Contact, hops: usize) -> Outcome {
        let (predecessor, successors) = self.known.predecessor().unzip();
        Outcome {
            owner,
            predecessor,
            successors: successors.unwrap_or_default(),
            path: self.path.clone(),
            hops: hops.saturating_sub(1),
            timeouts: self.rounds.timeouts(),
            asked: self.asked,
        }
    }
}

#[cfg(test)]
mod tests;
