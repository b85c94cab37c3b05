//! A checker of linearizability, for a register with compare-and-set (Herlihy and Wing 1990): could
//! the calls on one key have happened one after another, each at one moment between its request and
//! its answer?
//!
//! The checker walks through requests and answers in the order of time. It keeps every possible
//! state of the key, each with the open calls that have taken effect in it (Lowe 2017,
//! "just-in-time linearization"). An answer removes the states that contradict it. If no state is
//! left, no order of the calls explains the answers.
//!
//! The ring's guarantees:
//! - A conditional write takes effect at most once. If its outcome is unknown, it may do so at any
//!   later time.
//! - A write without a condition may take effect more than once until it is answered, since a node
//!   repeats it when it gets no answer. If its outcome is unknown, it may do so for ever.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    time::Instant,
};

/// The value of a key. No two writes of a key have the same value.
pub type Value = Option<u64>;

/// The operation of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Get.
    Read,
    /// Put or Delete without a condition.
    Write(Value),
    /// Put or Delete on the condition that the key is unchanged since it was read.
    Swap {
        /// The value that was read.
        expected: Value,
        /// The new value.
        new: Value,
    },
}

/// The result of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A read returned this.
    Found(Value),
    /// A write took effect.
    Done,
    /// The condition did not hold, so the write had no effect.
    Refused,
    /// A write may have taken effect, or may still do so.
    Unknown,
}

/// A call on a key.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The client that made it, for the description of a flaw.
    pub client: usize,
    /// What it requested.
    pub action: Action,
    /// When it was sent.
    pub asked: Instant,
    /// When it was answered, or timed out.
    pub answered: Instant,
    /// Its result.
    pub outcome: Outcome,
}

/// Why a history was rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// No order of the calls explains the answer to this call, by its index in the history.
    NotLinearizable(usize),
    /// There are too many orders to try.
    Undecided,
}

/// The largest number of states kept. A correct history of six clients needs a few hundred.
const MAX_STATES: usize = 1 << 18;

/// A possible state of the key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    value: Value,
    /// Open calls that have taken effect, in ascending order.
    effective: Vec<usize>,
}

/// Checks all calls on a key that had no value before.
pub fn check(calls: &[Call]) -> Result<(), Flaw> {
    Checker::new(calls).run()
}

/// The calls up to a flaw, one per line.
pub fn describe(calls: &[Call], flaw: usize) -> String {
    /// The number of calls shown.
    const SHOWN: usize = 24;
    let end = calls[flaw].answered;
    let mut shown: Vec<_> = calls.iter().filter(|call| call.asked <= end).collect();
    shown.sort_by_key(|call| call.answered);
    let first = shown.len().saturating_sub(SHOWN);
    let seconds = |at: Instant| end.saturating_duration_since(at).as_secs_f64();
    let lines = shown[first..].iter().map(|call| {
        let Call { client, action, outcome, .. } = call;
        let (asked, answered) = (seconds(call.asked), seconds(call.answered));
        format!(
            "\n  {asked:.3} s to {answered:.3} s before: client {client}: {action:?}: {outcome:?}"
        )
    });
    lines.collect()
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLinearizable(_) => f.write_str("no order of the calls explains an answer"),
            Self::Undecided => f.write_str("the calls have too many orders to try them all"),
        }
    }
}

impl State {
    /// The state after this call has taken effect.
    fn with(mut self, call: usize) -> Self {
        if let Err(at) = self.effective.binary_search(&call) {
            self.effective.insert(at, call);
        }
        self
    }
}

struct Checker<'a> {
    calls: &'a [Call],
    /// The call that wrote each value. Values that no call wrote have no entry.
    writers: HashMap<u64, usize>,
    /// Values that a read returned or a condition expected.
    observed: HashSet<u64>,
    /// Calls without an answer so far. Calls with an unknown outcome stay.
    open: Vec<usize>,
    /// Calls that cannot take effect any more.
    over: HashSet<usize>,
    states: HashSet<State>,
}

impl<'a> Checker<'a> {
    fn new(calls: &'a [Call]) -> Self {
        let written = |call: &Call| match call.action {
            Action::Write(value) | Action::Swap { new: value, .. } => value,
            Action::Read => None,
        };
        let observed = |call: &Call| match (call.action, call.outcome) {
            (Action::Swap { expected: value, .. }, _) | (_, Outcome::Found(value)) => value,
            _ => None,
        };
        let writers = calls.iter().enumerate();
        let writers = writers.filter_map(|(index, call)| Some((written(call)?, index))).collect();
        let observed = calls.iter().filter_map(observed).collect();
        let empty = State { value: None, effective: Vec::new() };
        let (open, over, states) = (Vec::new(), HashSet::new(), HashSet::from([empty]));
        Self { calls, writers, observed, open, over, states }
    }

    fn run(mut self) -> Result<(), Flaw> {
        for (_, answers, index) in moments(self.calls) {
            if answers {
                self.answer(index)?;
            } else {
                self.request(index);
            }
        }
        Ok(())
    }

    fn request(&mut self, call: usize) {
        if self.open.iter().any(|open| self.may_stand_for(*open, call)) {
            return;
        }
        self.open.push(call);
        let states: Vec<_> = self.states.drain().collect();
        self.states = states.into_iter().map(|state| self.with_explained(state)).collect();
    }

    /// Of writes that may take effect for ever, one of each kind suffices: all deletes are
    /// equivalent, and so are all writes whose values nobody observed.
    fn may_stand_for(&self, open: usize, call: usize) -> bool {
        let kind = |index: usize| match self.calls[index] {
            Call { action: Action::Write(value), outcome: Outcome::Unknown, .. } => {
                Some(value.map(|value| self.observed.contains(&value).then_some(value)))
            }
            _ => None,
        };
        kind(call).is_some_and(|of_call| kind(open) == Some(of_call))
    }

    /// Keeps the states in which this call has taken effect.
    fn answer(&mut self, call: usize) -> Result<(), Flaw> {
        let reached = self.reached()?;
        self.open.retain(|open| *open != call);
        self.over.insert(call);
        let with_it = reached.into_iter().filter_map(|mut state| {
            let at = state.effective.binary_search(&call).ok()?;
            state.effective.remove(at);
            Some(self.without_the_impossible(state))
        });
        self.states = with_it.collect();
        self.forget_what_is_over();
        if self.states.is_empty() { Err(Flaw::NotLinearizable(call)) } else { Ok(()) }
    }

    /// All states reachable from the present ones by open calls.
    fn reached(&self) -> Result<HashSet<State>, Flaw> {
        let mut reached = self.states.clone();
        let mut todo: Vec<_> = self.states.iter().cloned().collect();
        while let Some(state) = todo.pop() {
            for call in &self.open {
                let next = self.apply(*call, &state).map(|next| self.with_explained(next));
                if let Some(next) = next.filter(|next| !reached.contains(next)) {
                    if reached.len() >= MAX_STATES {
                        return Err(Flaw::Undecided);
                    }
                    reached.insert(next.clone());
                    todo.push(next);
                }
            }
        }
        Ok(reached)
    }

    /// The state after a write takes effect, if it can.
    fn apply(&self, index: usize, state: &State) -> Option<State> {
        let Call { action, outcome, .. } = self.calls[index];
        let is_effective = state.effective.binary_search(&index).is_ok();
        let after = |value| State { value, effective: state.effective.clone() };
        match (action, outcome) {
            // Not marked as effective: it may take effect again.
            (Action::Write(value), Outcome::Unknown) => Some(after(value)),
            (Action::Write(value), _) => Some(after(value).with(index)),
            (Action::Swap { expected, new }, Outcome::Done | Outcome::Unknown) => {
                let may_happen = !is_effective && state.value == expected;
                may_happen.then(|| after(new).with(index))
            }
            _ => None,
        }
    }

    /// Marks the open calls that change nothing and whose answers this state explains: they take
    /// effect as early as possible.
    fn with_explained(&self, state: State) -> State {
        let value = state.value;
        let explained = self.open.iter().filter(|index| {
            let Call { action, outcome, .. } = self.calls[**index];
            match (action, outcome) {
                (Action::Read, Outcome::Found(found)) => found == value,
                (Action::Swap { expected, .. }, Outcome::Refused) => {
                    expected != value || self.may_have_two_versions(expected)
                }
                _ => false,
            }
        });
        explained.fold(state, |state, index| state.with(*index))
    }

    /// Whether a value may have two versions: an unconditional write may take effect twice.
    fn may_have_two_versions(&self, value: Value) -> bool {
        let writer = value.and_then(|value| self.writers.get(&value));
        writer.is_some_and(|writer| matches!(self.calls[*writer].action, Action::Write(_)))
    }

    /// Marks swaps of unknown outcome that cannot take effect any more, because their expected
    /// value cannot return. Whether they did makes no difference, so both states become one.
    fn without_the_impossible(&self, state: State) -> State {
        let impossible = self.open.iter().filter(|index| {
            let Call { action, outcome, .. } = self.calls[**index];
            let Action::Swap { expected: Some(expected), .. } = action else { return false };
            outcome == Outcome::Unknown
                && state.value != Some(expected)
                && !self.may_be_written(expected, &state)
        });
        let impossible: Vec<_> = impossible.copied().collect();
        impossible.into_iter().fold(state, State::with)
    }

    fn may_be_written(&self, value: u64, state: &State) -> bool {
        let Some(writer) = self.writers.get(&value) else { return false };
        let repeats = matches!(self.calls[*writer].action, Action::Write(_));
        !self.over.contains(writer) && (repeats || state.effective.binary_search(writer).is_err())
    }

    /// Closes the calls of unknown outcome that are marked in every state.
    fn forget_what_is_over(&mut self) {
        let is_over = |index: &usize| {
            self.calls[*index].outcome == Outcome::Unknown
                && self.states.iter().all(|state| state.effective.binary_search(index).is_ok())
        };
        let (over, open): (Vec<_>, Vec<_>) = self.open.iter().copied().partition(is_over);
        if over.is_empty() || self.states.is_empty() {
            return;
        }
        self.open = open;
        self.over.extend(&over);
        let forget = |mut state: State| {
            state.effective.retain(|index| !over.contains(index));
            state
        };
        self.states = self.states.drain().map(forget).collect();
    }
}

/// Requests and answers in the order of time, requests first at equal times.
fn moments(calls: &[Call]) -> Vec<(Instant, bool, usize)> {
    let asked = calls.iter().enumerate().map(|(index, call)| (call.asked, false, index));
    let known = calls.iter().enumerate().filter(|(_, call)| call.outcome != Outcome::Unknown);
    let answered = known.map(|(index, call)| (call.answered, true, index));
    let mut moments: Vec<_> = asked.chain(answered).collect();
    moments.sort_unstable();
    moments
}

#[cfg(test)]
mod tests;
