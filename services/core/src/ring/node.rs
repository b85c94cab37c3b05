//! A node of the ring: its place, its fingers and its membership, and the schedule by which each is
//! maintained.
//!
//! It is a state machine: it is told what happens, and returns what to ask which node. Its shell
//! makes the calls, and serves its [`RoutingTable`] to callers.

mod joining;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::Xoshiro256PlusPlus, seq::IteratorRandom as _};

use self::joining::Joining;
use super::{
    Bits, ChordNode, Contact, Entry, FingerBase, Fingers, Found, Life, Membership,
    MembershipDigest, Next, Outcome, Position, RoutingTable, Source, Standing, State,
    failure_detector::FailureDetector,
};

pub use joining::{Awaited, Founding, Seeds, Wait};

/// A period is stretched or shrunk by up to this part, so that nodes do not act at the same time.
const JITTER: f64 = 0.2;
/// Rumours in one message.
const RUMOURS: usize = 64;

/// Periods and sizes.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// Bits of a position.
    pub bits: Bits,
    /// The shortest successor list. It grows with the ring: 2 log2 of its size, so that half of the
    /// nodes may fail at once (Stoica 2003, theorem 4).
    pub min_successors: usize,
    /// The longest successor list.
    pub max_successors: usize,
    /// Time between two rounds of stabilisation.
    pub stabilise_every: Duration,
    /// Time between two rounds of gossip; without gossip, lookups use successors and fingers alone.
    pub gossip_every: Option<Duration>,
    /// Time between two probes for lost parts of the ring.
    pub probe_every: Duration,
    /// Time between two finger lookups, without gossip.
    pub fix_finger_every: Duration,
    /// How fingers are spaced.
    pub finger_base: FingerBase,
    /// Consecutive questions that a node may leave unanswered before it counts as dead.
    pub patience: u32,
    /// How long the death or departure of a node is remembered.
    pub ends_kept: Duration,
    /// A node that finds no ring founds one after this long, if it may.
    pub found_after: Duration,
    /// The same, if some of the named addresses do not answer: they may just be starting.
    pub found_late_after: Duration,
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self {
            bits: Bits::FULL,
            min_successors: 8,
            max_successors: 128,
            stabilise_every: Duration::from_millis(500),
            gossip_every: Some(Duration::from_millis(500)),
            probe_every: Duration::from_secs(2),
            fix_finger_every: Duration::from_secs(1),
            finger_base: FingerBase::Sixteen,
            patience: 3,
            ends_kept: Duration::from_secs(3600),
            found_after: Duration::from_secs(3),
            found_late_after: Duration::from_secs(15),
        }
    }
}

/// A question to another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// For its state.
    State,
    /// Notifies it of this node's state.
    Notify(State),
    /// For the nodes around this one, to its knowledge.
    Probe(State),
    /// Gossip, which is answered with gossip.
    Gossip(Vec<Entry>, MembershipDigest),
}

/// The answer of another node.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To [`Question::State`].
    State(State),
    /// To [`Question::Notify`].
    Noticed,
    /// To [`Question::Probe`]: its state, and what it knows about the position after this node's.
    Probed(State, Found),
    /// To [`Question::Gossip`].
    Gossip(Vec<Entry>),
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Nothing listens at the address.
    Refused,
    /// None came in time, or an invalid one.
    NoAnswer,
}

/// The purpose of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To find this node's place.
    Join,
    /// To find the node of a finger.
    Finger(Position),
}

/// An event.
#[derive(Clone, Debug)]
pub enum Input {
    /// The addresses to join through.
    Seeds(Seeds),
    /// A node answered at an address.
    Met(Arc<str>, State),
    /// No node answered there.
    Unmet(Arc<str>),
    /// A node at this source sent its state: see [`Question::Notify`].
    Notified(Source, State),
    /// A node answered a question.
    Answered(Contact, Answer),
    /// A node did not answer a question.
    Unanswered {
        /// The node.
        node: Contact,
        /// The question.
        question: Question,
        /// When it was asked.
        asked: Instant,
        /// Why there is no answer.
        why: Silence,
    },
    /// A lookup has ended; none if it failed.
    LookedUp(Purpose, Option<Outcome>),
    /// The node shall leave.
    Leave,
    /// Time has passed: see [`Node::next_deadline`].
    Tick,
}

/// An action that a node requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Ask a node.
    Ask(Contact, Question),
    /// Ask the node at an address for its state.
    Meet(Arc<str>),
    /// Look up a position, starting from a node, or from this node's own routing table.
    LookUp(Purpose, Position, Option<Contact>),
    /// The routing table has changed.
    Changed,
}

/// The next deadlines.
#[derive(Clone, Copy, Debug)]
struct Timers {
    stabilise: Instant,
    gossip: Instant,
    probe: Instant,
    fix_finger: Instant,
}

/// A node of the ring.
#[derive(Debug)]
pub struct Node {
    settings: NodeSettings,
    rng: Xoshiro256PlusPlus,
    member: ChordNode,
    joining: Joining,
    fingers: Arc<Fingers>,
    membership: Membership,
    timers: Timers,
    silent: FailureDetector,
    /// When the predecessor was last heard.
    predecessor_heard: Instant,
    founded: bool,
}

impl Node {
    /// A node that looks for its ring. Its incarnation must be higher than any it used before: its
    /// start time, for example.
    pub fn new(
        me: Contact,
        incarnation: u64,
        settings: NodeSettings,
        seed: u64,
        now: Instant,
    ) -> Self {
        Self {
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            member: ChordNode::new(me.clone(), settings.min_successors),
            joining: Joining::new(now),
            fingers: Arc::new(Fingers::new(me.position, settings.bits, settings.finger_base)),
            membership: Membership::new(me, incarnation, settings.ends_kept, now),
            timers: Timers { stabilise: now, gossip: now, probe: now, fix_finger: now },
            silent: FailureDetector::default(),
            predecessor_heard: now,
            founded: false,
            settings,
        }
    }

    /// Handles an event, and returns the actions that follow.
    pub fn handle(&mut self, now: Instant, input: Input, out: &mut Vec<Output>) {
        let before = self.member.state();
        match input {
            Input::Seeds(seeds) => self.joining.learn(seeds),
            Input::Met(address, state) => self.met(now, address, &state, out),
            Input::Unmet(address) => self.joining.unmet(address),
            Input::Notified(source, state) => self.notified(now, &source, &state, out),
            Input::Answered(by, answer) => self.answered(now, &by, answer, out),
            Input::Unanswered { node, question, asked, why } => {
                let silences = self.silent.note(node.id, asked, now);
                if why == Silence::NoAnswer && silences < self.settings.patience {
                    let again = matches!(question, Question::State | Question::Notify(_));
                    out.extend(again.then_some(Output::Ask(node, question)));
                } else {
                    self.died(now, &node, out);
                }
            }
            Input::LookedUp(purpose, outcome) => self.looked_up(purpose, outcome, out),
            Input::Leave => self.leave(now, out),
            Input::Tick => {}
        }
        self.act(now, out);
        if before != self.member.state() {
            out.push(Output::Changed);
        }
    }

    /// Gossip from another node. Returns gossip for it.
    pub fn gossiped(
        &mut self,
        now: Instant,
        source: &Source,
        entries: &[Entry],
        digest: Option<&MembershipDigest>,
    ) -> Vec<Entry> {
        self.membership.heard(now, source, entries);
        let mut news = self.membership.rumours(RUMOURS);
        if let Some(digest) = digest {
            news.extend(self.membership.entries_differing(digest, RUMOURS, &mut self.rng));
        }
        news
    }

    /// When it needs an [`Input::Tick`] at the latest.
    pub fn next_deadline(&self) -> Instant {
        if self.member.standing() == Standing::Joining {
            return self.joining.next_deadline();
        }
        let Timers { stabilise, gossip, probe, fix_finger } = self.timers;
        match self.settings.gossip_every {
            Some(_) => stabilise.min(gossip).min(probe),
            None => stabilise.min(fix_finger).min(probe),
        }
    }

    /// Its state, as told to others.
    pub fn state(&self) -> State {
        self.member.state()
    }

    /// What others may read without asking it.
    pub fn routing_table(&mut self) -> RoutingTable {
        let live_nodes = self.settings.gossip_every.map(|_| self.membership.live_nodes());
        RoutingTable { state: self.member.state(), fingers: self.fingers.clone(), live_nodes }
    }

    /// It founded its ring, rather than join one.
    pub const fn has_founded(&self) -> bool {
        self.founded
    }

    /// What it has heard of all nodes, including dead ones.
    pub const fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Does what is due.
    fn act(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.member.standing() == Standing::Joining {
            self.seek(now, out);
            return;
        }
        if self.timers.stabilise <= now {
            self.timers.stabilise = self.after(now, self.settings.stabilise_every);
            self.stabilise(now, out);
        }
        if self.timers.probe <= now {
            self.timers.probe = self.after(now, self.settings.probe_every);
            self.probe(out);
        }
        match self.settings.gossip_every {
            Some(every) if self.timers.gossip <= now => {
                self.timers.gossip = self.after(now, every);
                self.gossip(now, out);
            }
            None if self.timers.fix_finger <= now => {
                self.timers.fix_finger = self.after(now, self.settings.fix_finger_every);
                self.fix_finger(out);
            }
            _ => {}
        }
    }

    fn after(&mut self, now: Instant, period: Duration) -> Instant {
        now + period.mul_f64(self.rng.random_range(1.0 - JITTER..=1.0 + JITTER))
    }

    fn stabilise(&mut self, now: Instant, out: &mut Vec<Output>) {
        self.size_list();
        let head = self.member.head().cloned();
        out.extend(head.map(|head| Output::Ask(head, Question::State)));
        // The membership may name a closer successor, or a way back for an isolated node.
        let next = self.member.me().position.next();
        if let Some(hint) = self.membership.owner_of(next).cloned() {
            self.consider(hint, out);
        }
        let unheard = now.saturating_duration_since(self.predecessor_heard);
        if unheard > 2 * self.settings.stabilise_every
            && let Some(predecessor) = self.member.predecessor().cloned()
        {
            out.push(Output::Ask(predecessor, Question::State));
        }
    }

    fn size_list(&mut self) {
        let NodeSettings { min_successors, max_successors, .. } = self.settings;
        let doublings = self.membership.len().max(1).ilog2() as usize;
        let length = (2 * doublings).clamp(min_successors, max_successors.max(min_successors));
        self.member.set_max_successors(length);
    }

    fn consider(&self, hint: Contact, out: &mut Vec<Output>) {
        if self.member.consider(&hint) {
            out.push(Output::Ask(hint, Question::State));
        }
    }

    /// Probes for lost parts of the ring, through a node that is believed dead or an address to
    /// join through.
    fn probe(&mut self, out: &mut Vec<Output>) {
        let dead = self.membership.ends().filter(|entry| entry.life == Life::Dead);
        if let Some(dead) = dead.choose(&mut self.rng) {
            let me = self.member.state();
            out.push(Output::Ask(dead.contact.clone(), Question::Probe(me)));
        }
        out.extend(self.joining.any_seed(&mut self.rng).map(Output::Meet));
    }

    fn gossip(&mut self, now: Instant, out: &mut Vec<Output>) {
        self.membership.expire(now);
        if let Some(fingers) = Arc::get_mut(&mut self.fingers) {
            fingers.fill_from(&self.membership.live_nodes());
        } else {
            let mut fingers = Fingers::clone(&self.fingers);
            fingers.fill_from(&self.membership.live_nodes());
            self.fingers = Arc::new(fingers);
        }
        if let Some(other) = self.membership.random(&mut self.rng).cloned() {
            self.gossip_with(other, out);
        }
        out.push(Output::Changed);
    }

    fn gossip_with(&mut self, other: Contact, out: &mut Vec<Output>) {
        let rumours = self.membership.rumours(RUMOURS);
        out.push(Output::Ask(other, Question::Gossip(rumours, self.membership.digest().clone())));
    }

    fn fix_finger(&mut self, out: &mut Vec<Output>) {
        let covered = self.member.successors().last().map(|last| last.position);
        if let Some(target) = Arc::make_mut(&mut self.fingers).next_to_fix(covered) {
            out.push(Output::LookUp(Purpose::Finger(target), target, None));
        }
    }

    fn notified(&mut self, now: Instant, source: &Source, state: &State, out: &mut Vec<Output>) {
        if let Some(life) = self.heard_of(now, state) {
            self.membership.claimed(now, source, &state.node, life);
        }
        let next = self.member.notified(state);
        self.follow(next, out);
    }

    fn answered(&mut self, now: Instant, by: &Contact, answer: Answer, out: &mut Vec<Output>) {
        self.silent.end(by.id);
        match answer {
            Answer::State(state) => self.told(now, &by.address, &state, out),
            Answer::Noticed => {}
            Answer::Probed(state, found) => {
                self.answered_at(now, &by.address, &state);
                for hint in [state.node].into_iter().chain(found.successors) {
                    self.consider(hint, out);
                }
                self.gossip_with(by.clone(), out);
            }
            Answer::Gossip(entries) => {
                self.membership.heard(now, &Source::of_address(&by.address), &entries);
            }
        }
    }

    fn told(&mut self, now: Instant, at: &str, state: &State, out: &mut Vec<Output>) {
        self.answered_at(now, at, state);
        if self.member.standing() == Standing::Joining {
            self.try_to_join(now, state, out);
            return;
        }
        let next = self.member.answered(state);
        self.follow(next, out);
    }

    /// The node at an address answered with its state.
    fn answered_at(&mut self, now: Instant, address: &str, state: &State) {
        let Some(life) = self.heard_of(now, state) else { return };
        if *state.node.address == *address {
            self.membership.observe(now, &state.node, life);
        } else {
            self.membership.claimed(now, &Source::of_address(address), &state.node, life);
        }
    }

    /// A node told its state. Returns its liveness, if it is part of a ring.
    fn heard_of(&mut self, now: Instant, state: &State) -> Option<Life> {
        if self.member.predecessor().is_some_and(|known| known.id == state.node.id) {
            self.predecessor_heard = now;
        }
        match state.standing {
            Standing::Member => Some(Life::Alive),
            Standing::Leaving => Some(Life::Left),
            Standing::Joining => None,
        }
    }

    fn follow(&self, next: Next, out: &mut Vec<Output>) {
        match next {
            Next::Rest => {}
            Next::Ask(node) => out.push(Output::Ask(node, Question::State)),
            Next::Notify(node) => {
                out.push(Output::Ask(node, Question::Notify(self.member.state())));
            }
        }
    }

    fn died(&mut self, now: Instant, node: &Contact, out: &mut Vec<Output>) {
        self.silent.end(node.id);
        self.membership.observe(now, node, Life::Dead);
        Arc::make_mut(&mut self.fingers).forget(node);
        let next = self.member.dead(node);
        self.follow(next, out);
    }

    fn looked_up(&mut self, purpose: Purpose, outcome: Option<Outcome>, out: &mut Vec<Output>) {
        match (purpose, outcome) {
            (Purpose::Join, outcome) => {
                self.joining.looked_up();
                let predecessor = outcome.and_then(|outcome| outcome.predecessor);
                out.extend(predecessor.map(|node| Output::Ask(node, Question::State)));
            }
            (Purpose::Finger(target), Some(outcome)) => {
                Arc::make_mut(&mut self.fingers).learn(target, outcome.owner);
            }
            (Purpose::Finger(_), None) => {}
        }
    }

    fn leave(&mut self, now: Instant, out: &mut Vec<Output>) {
        let neighbours = self.member.leave();
        self.membership.leave(now);
        let state = self.member.state();
        let told = neighbours.into_iter();
        out.extend(told.map(|node| Output::Ask(node, Question::Notify(state.clone()))));
        for _ in 0..3 {
            if let Some(other) = self.membership.random(&mut self.rng).cloned() {
                self.gossip_with(other, out);
            }
        }
    }
}

#[cfg(test)]
mod tests;
