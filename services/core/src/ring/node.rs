//! A node of the ring: its place, its fingers and its membership, and the schedule by which each is
//! maintained.
//!
//! It is a state machine: it is told what happens, and returns what to ask which node. Its shell
//! makes the calls, and serves its [`RoutingTable`] to callers.

mod events;
mod joining;
mod settings;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::Xoshiro256PlusPlus, seq::IteratorRandom as _};

use self::joining::Joining;
use super::{
    ChordNode, Contact, Entry, Fingers, Introducer, Life, Membership, MembershipDigest, Next,
    Outcome, RoutingTable, Standing, State, liveness::FailureDetector,
};
use crate::Address;

pub use events::{Answer, Input, Output, Purpose, Question, Silence};
pub use joining::{Awaited, Founding, Seeds, Wait};
pub use settings::NodeSettings;

/// A period is stretched or shrunk by up to this part, so that nodes do not act at the same time.
const JITTER: f64 = 0.2;
/// Rumours in one message.
const RUMOURS: usize = 64;

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
        source: &Introducer,
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

    fn notified(
        &mut self,
        now: Instant,
        source: &Introducer,
        state: &State,
        out: &mut Vec<Output>,
    ) {
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
                self.membership.heard(now, &Introducer::of_address(&by.address), &entries);
            }
        }
    }

    fn told(&mut self, now: Instant, at: &Address, state: &State, out: &mut Vec<Output>) {
        self.answered_at(now, at, state);
        if self.member.standing() == Standing::Joining {
            self.try_to_join(now, state, out);
            return;
        }
        let next = self.member.answered(state);
        self.follow(next, out);
    }

    /// The node at an address answered with its state.
    fn answered_at(&mut self, now: Instant, address: &Address, state: &State) {
        let Some(life) = self.heard_of(now, state) else { return };
        if state.node.address == *address {
            self.membership.observe(now, &state.node, life);
        } else {
            self.membership.claimed(now, &Introducer::of_address(address), &state.node, life);
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
