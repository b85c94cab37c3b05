//! Finding a ring to join, and founding one if there is none.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use rand::{Rng, seq::IteratorRandom as _};

use super::{Node, NodeSettings, Output, Purpose, Question};
use crate::{
    Address,
    ring::{Contact, Standing, State},
};

/// The pause before the next attempt to find a ring; doubled each time.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// The addresses to join through, as far as names could be resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeds {
    /// IP addresses and ports.
    pub addresses: BTreeSet<Address>,
    /// Names, as configured, that have no address at present.
    pub unresolved: BTreeSet<Address>,
    /// Which node founds a ring if there is none.
    pub founding: Founding,
}

/// Which node founds a ring if none is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Founding {
    /// This node, because it has no address to join.
    Anyway,
    /// The node with the smallest advertised address among this one and those that answer at the
    /// named addresses. So nodes that start at the same time and are told of each other form one
    /// ring, whether a node is named to itself or not.
    Smallest,
}

/// What a node without a ring has found so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// How long it has looked for a ring.
    pub waited: Duration,
    /// What it waits for.
    pub awaited: Awaited,
    /// Addresses that do not answer.
    pub silent: Vec<Address>,
    /// Names that have no address.
    pub unresolved: Vec<Address>,
    /// Other nodes that answer and have no ring either.
    pub others: Vec<Address>,
}

/// What a node without a ring waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// No name has an address.
    Names,
    /// No other node answers.
    AnyNode,
    /// Another node, whose address is smaller, is to found the ring.
    Founder,
    /// This node founds the ring, once the others have had time to start.
    OwnTime,
    /// There is a ring, and this node's place in it is being looked up.
    Place,
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Names => "a name to join that stands for an address",
            Self::AnyNode => "another node to answer at an address to join",
            Self::Founder => "the node with the smallest address to found the ring",
            Self::OwnTime => "the time to found a ring",
            Self::Place => "the lookup of this node's place in the ring",
        })
    }
}

/// What is known while a node looks for its ring.
#[derive(Debug)]
pub(super) struct Joining {
    since: Instant,
    next: Instant,
    backoff: Duration,
    seeds: Option<Seeds>,
    /// Addresses at which this node itself answered: a name may have several of its addresses.
    own: BTreeSet<Address>,
    /// Addresses of other nodes that have no ring either.
    waiting: BTreeMap<Address, Contact>,
    /// Addresses that did not answer.
    unmet: BTreeSet<Address>,
    /// A lookup of this node's place is in progress.
    looking_up: bool,
    /// A member was met recently: there is a ring.
    met_member: Option<Instant>,
}

impl Joining {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            next: now,
            backoff: FIRST_BACKOFF,
            seeds: None,
            own: BTreeSet::new(),
            waiting: BTreeMap::new(),
            unmet: BTreeSet::new(),
            looking_up: false,
            met_member: None,
        }
    }

    pub(super) const fn next_deadline(&self) -> Instant {
        self.next
    }

    /// Names may have other addresses by now.
    pub(super) fn learn(&mut self, seeds: Seeds) {
        self.own.retain(|address| seeds.addresses.contains(address));
        self.waiting.retain(|address, _| seeds.addresses.contains(address));
        self.unmet.retain(|address| seeds.addresses.contains(address));
        self.seeds = Some(seeds);
    }

    pub(super) fn unmet(&mut self, address: Address) {
        self.own.remove(&address);
        self.waiting.remove(&address);
        self.unmet.insert(address);
    }

    pub(super) const fn looked_up(&mut self) {
        self.looking_up = false;
    }

    /// An address to join through, except this node's own.
    pub(super) fn any_seed(&self, rng: &mut impl Rng) -> Option<Address> {
        let addresses = self.seeds.iter().flat_map(|seeds| &seeds.addresses);
        addresses.filter(|address| !self.own.contains(*address)).choose(rng).cloned()
    }

    /// There is no ring, and this node founds one.
    fn may_found(&self, me: &Contact, now: Instant, settings: &NodeSettings) -> bool {
        let waited = now.saturating_duration_since(self.since);
        self.patience(me, settings).is_some_and(|patience| waited >= patience)
            && !self.met_lately(now, settings)
    }

    /// After how long this node founds a ring; none if it does not, as far as it knows.
    fn patience(&self, me: &Contact, settings: &NodeSettings) -> Option<Duration> {
        let NodeSettings { found_after, found_late_after, .. } = *settings;
        let seeds = self.seeds.as_ref()?;
        match seeds.founding {
            Founding::Anyway if seeds.addresses.is_empty() => Some(Duration::ZERO),
            Founding::Anyway => Some(found_after),
            Founding::Smallest if !self.is_smallest(me) => None,
            Founding::Smallest => {
                let all_met = if self.some_may_start() { found_late_after } else { found_after };
                match (self.own.is_empty(), self.waiting.is_empty()) {
                    (false, _) => Some(all_met),
                    // Those that are named to themselves go first: they may not know this node.
                    (true, false) => Some(all_met + found_after),
                    // None of the nodes that this node was to join is there.
                    (true, true) => None,
                }
            }
        }
    }

    fn is_smallest(&self, me: &Contact) -> bool {
        self.waiting.values().all(|other| rank(me) < rank(other))
    }

    /// Some of the named addresses do not answer yet, and may just be starting. An address of a
    /// family (IPv4, IPv6) in which none answers says nothing if one does in the other: `localhost`
    /// has two.
    fn some_may_start(&self) -> bool {
        let is_v6 = |address: &Address| address.ip().is_some_and(|ip| ip.is_ipv6());
        let answers = || self.own.iter().chain(self.waiting.keys());
        self.unmet.iter().any(|unmet| {
            answers().next().is_none() || answers().any(|met| is_v6(met) == is_v6(unmet))
        })
    }

    fn met_lately(&self, now: Instant, settings: &NodeSettings) -> bool {
        let since = |met| now.saturating_duration_since(met);
        self.met_member.is_some_and(|met| since(met) < settings.found_after)
    }

    fn wait(&self, me: &Contact, now: Instant, settings: &NodeSettings) -> Wait {
        let seeds = self.seeds.as_ref();
        let awaited = if self.met_lately(now, settings) {
            Awaited::Place
        } else if seeds.is_none_or(|seeds| seeds.addresses.is_empty()) {
            Awaited::Names
        } else if self.patience(me, settings).is_some() {
            Awaited::OwnTime
        } else if self.waiting.is_empty() {
            Awaited::AnyNode
        } else {
            Awaited::Founder
        };
        Wait {
            waited: now.saturating_duration_since(self.since),
            awaited,
            silent: self.unmet.iter().cloned().collect(),
            unresolved: seeds.iter().flat_map(|seeds| &seeds.unresolved).cloned().collect(),
            others: self.waiting.keys().cloned().collect(),
        }
    }
}

/// Orders nodes by their advertised addresses as numbers, 10.0.0.9 before 10.0.0.10; then by their
/// names. All nodes compute the same order, wherever they reached each other.
fn rank(node: &Contact) -> (bool, Option<SocketAddr>, &Contact) {
    let number = node.address.socket();
    (number.is_none(), number, node)
}

impl Node {
    /// A node answered at an address.
    pub(super) fn met(
        &mut self,
        now: Instant,
        address: Address,
        state: &State,
        out: &mut Vec<Output>,
    ) {
        self.joining.unmet.remove(&address);
        let at = address.clone();
        if state.node.id == self.member.me().id {
            self.joining.own.insert(address);
        } else if self.member.standing() == Standing::Joining {
            if state.standing == Standing::Joining {
                self.joining.waiting.insert(address, state.node.clone());
            } else {
                self.joining.waiting.remove(&address);
            }
            self.told(now, &at, state, out);
        } else if state.standing == Standing::Member {
            // Perhaps it belongs to another ring.
            self.answered_at(now, &at, state);
            out.push(Output::Ask(state.node.clone(), Question::Probe(self.member.state())));
        }
    }

    /// What it waits for, while it has no ring.
    pub fn wait(&self, now: Instant) -> Option<Wait> {
        let is_joining = self.member.standing() == Standing::Joining;
        is_joining.then(|| self.joining.wait(self.member.me(), now, &self.settings))
    }

    /// Looks for a ring, if that is due.
    pub(super) fn seek(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.joining.may_found(self.member.me(), now, &self.settings) {
            self.member.found();
            self.founded = true;
            return;
        }
        if self.joining.next > now {
            return;
        }
        let addresses = self.joining.seeds.iter().flat_map(|seeds| &seeds.addresses);
        out.extend(addresses.cloned().map(Output::Meet));
        self.joining.looking_up = false;
        self.joining.next = self.after(now, self.joining.backoff);
        // A node that may found a ring looks often enough to do it in time.
        self.joining.backoff = (2 * self.joining.backoff).min(MAX_BACKOFF);
    }

    /// A node told its state: this node's place may be right after it, or it knows a node to ask.
    pub(super) fn try_to_join(&mut self, now: Instant, state: &State, out: &mut Vec<Output>) {
        if state.standing != Standing::Member {
            return;
        }
        self.joining.met_member = Some(now);
        if let Ok(neighbours) = self.member.join(state) {
            self.predecessor_heard = now;
            let mine = self.member.state();
            let told = neighbours.into_iter();
            out.extend(told.map(|node| Output::Ask(node, Question::Notify(mine.clone()))));
            self.gossip_with(state.node.clone(), out);
        } else if !self.joining.looking_up {
            self.joining.looking_up = true;
            let place = self.member.me().position;
            out.push(Output::LookUp(Purpose::Join, place, Some(state.node.clone())));
        }
    }
}

#[cfg(test)]
mod tests;
