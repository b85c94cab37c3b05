//! Looking for a ring, and founding one if there is none.

use std::{
    cmp::Ordering,
    collections::BTreeSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{Rng, seq::IteratorRandom as _};

use super::{Node, Output, Purpose, Question};
use crate::ring::{Standing, State};

/// Wait before the next look for a ring; doubled each time.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// Through whom to join, as far as names could be resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeds {
    /// HOST:PORT, each a number and a port.
    pub addresses: BTreeSet<Arc<str>>,
    /// Who founds a ring if there is none.
    pub founding: Founding,
}

/// Who founds a ring if none is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Founding {
    /// This node, as it was told of nobody to join.
    Anyway,
    /// Of those that answer at the addresses named, the one with the smallest. So nodes that are
    /// started at the same time, with the same names, become one ring.
    Smallest,
}

/// What is known while a node looks for its ring.
#[derive(Debug)]
pub(super) struct Joining {
    since: Instant,
    next: Instant,
    backoff: Duration,
    seeds: Option<Seeds>,
    /// Where this node itself answered.
    own: Option<Arc<str>>,
    /// Where others answered that are in no ring either.
    waiting: BTreeSet<Arc<str>>,
    /// Where nobody answered.
    unmet: BTreeSet<Arc<str>>,
    /// A lookup of this node's place is under way.
    looking_up: bool,
    /// A member was met lately: there is a ring.
    met_member: Option<Instant>,
}

impl Joining {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            next: now,
            backoff: FIRST_BACKOFF,
            seeds: None,
            own: None,
            waiting: BTreeSet::new(),
            unmet: BTreeSet::new(),
            looking_up: false,
            met_member: None,
        }
    }

    pub(super) const fn next_deadline(&self) -> Instant {
        self.next
    }

    /// Names may stand for other addresses by now.
    pub(super) fn learn(&mut self, seeds: Seeds) {
        self.waiting.retain(|address| seeds.addresses.contains(address));
        self.unmet.retain(|address| seeds.addresses.contains(address));
        self.seeds = Some(seeds);
    }

    pub(super) fn unmet(&mut self, address: Arc<str>) {
        self.waiting.remove(&address);
        self.unmet.insert(address);
    }

    pub(super) const fn looked_up(&mut self) {
        self.looking_up = false;
    }

    /// An address to join by, but not this node's own.
    pub(super) fn any_seed(&self, rng: &mut impl Rng) -> Option<Arc<str>> {
        let addresses = self.seeds.iter().flat_map(|seeds| &seeds.addresses);
        addresses.filter(|address| self.own.as_ref() != Some(*address)).choose(rng).cloned()
    }

    /// There is no ring to be found, and it is this node that founds one.
    fn may_found(&self, now: Instant, found_after: Duration, found_late_after: Duration) -> bool {
        let Some(seeds) = &self.seeds else { return false };
        let waited = now.saturating_duration_since(self.since);
        let patience = match seeds.founding {
            Founding::Anyway if seeds.addresses.is_empty() => Duration::ZERO,
            Founding::Smallest if !self.unmet.is_empty() => found_late_after,
            _ => found_after,
        };
        let is_mine = match (seeds.founding, &self.own) {
            (Founding::Anyway, _) => true,
            (Founding::Smallest, Some(own)) => {
                self.waiting.iter().all(|other| by_number(own, other).is_lt())
            }
            (Founding::Smallest, None) => false,
        };
        let met_lately =
            self.met_member.is_some_and(|met| now.saturating_duration_since(met) < found_after);
        is_mine && waited >= patience && !met_lately
    }
}

/// Compares addresses as numbers: 10.0.0.9 comes before 10.0.0.10.
fn by_number(one: &str, other: &str) -> Ordering {
    match (one.parse::<SocketAddr>(), other.parse::<SocketAddr>()) {
        (Ok(one), Ok(other)) => one.cmp(&other),
        _ => one.cmp(other),
    }
}

impl Node {
    /// Somebody answered at an address.
    pub(super) fn met(
        &mut self,
        now: Instant,
        address: Arc<str>,
        state: &State,
        out: &mut Vec<Output>,
    ) {
        self.joining.unmet.remove(&address);
        if state.node.id == self.member.me().id {
            self.joining.own = Some(address);
        } else if self.member.standing() == Standing::Joining {
            if state.standing == Standing::Joining {
                self.joining.waiting.insert(address);
            }
            self.told(now, state, out);
        } else if state.standing == Standing::Member {
            // Perhaps of another ring.
            self.heard_of(now, state);
            out.push(Output::Ask(state.node.clone(), Question::Probe(self.member.state())));
        }
    }

    /// Looks for a ring, if it is time to.
    pub(super) fn seek(&mut self, now: Instant, out: &mut Vec<Output>) {
        let (found_after, late) = (self.settings.found_after, self.settings.found_late_after);
        if self.joining.may_found(now, found_after, late) {
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
        // Whoever may found one looks often enough to do it in time.
        self.joining.backoff = (2 * self.joining.backoff).min(MAX_BACKOFF);
    }

    /// A node told its state: perhaps this node's place is after it, or it knows who knows.
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
