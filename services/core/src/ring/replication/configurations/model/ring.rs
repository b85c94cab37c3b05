//! The state of the model: four nodes, the messages sent so far, and what clients were told.
//!
//! A request that was sent may be handled at any later time, or never; nothing is taken back when
//! its sender fails. An answer counts from the moment the request was handled: a node that acts on
//! it later, or never, has not received it yet.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use uuid::Uuid;

use crate::ring::{
    Ballot, Configuration, Configurations, Contact, KeyRange, Lineage, NodeId, Position, Proposal,
    ReplicaSet,
};

/// Positions are independent: one is enough.
pub(super) const POSITION: Position = Position::from_u128(0);
/// The range of all messages.
pub(super) const RANGE: KeyRange = KeyRange::whole(POSITION);

/// A node by its place on the circle. `A`, `B` and `C` are the first set, `D` lies before them.
pub(super) type Node = usize;
pub(super) const D: Node = 0;
pub(super) const A: Node = 1;
pub(super) const B: Node = 2;
pub(super) const C: Node = 3;
pub(super) const NODES: [Node; 4] = [D, A, B, C];

pub(super) fn contact(node: Node) -> Contact {
    let position = Position::from_u128(node as u128);
    Contact { position, id: id(node), address: SocketAddr::from(([0; 4], 0)).into() }
}

pub(super) fn id(node: Node) -> NodeId {
    NodeId::new(Uuid::from_u128(node as u128))
}

pub(super) fn members(set: &ReplicaSet) -> impl Iterator<Item = Node> {
    set.members.iter().map(node)
}

pub(super) fn primary(set: &ReplicaSet) -> Node {
    node(set.primary())
}

fn node(contact: &Contact) -> Node {
    contact.position.to_u128() as Node
}

/// A set of nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Nodes(u8);

impl Nodes {
    pub(super) fn has(self, node: Node) -> bool {
        self.0 & 1 << node != 0
    }

    pub(super) fn add(&mut self, node: Node) {
        self.0 |= 1 << node;
    }

    pub(super) fn remove(&mut self, node: Node) {
        self.0 &= !(1 << node);
    }

    pub(super) fn count(self) -> usize {
        self.0.count_ones() as usize
    }
}

/// The version of the key's record. The id identifies the write, the other fields order writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Version {
    /// Of the set under which it was written, or written again.
    pub(super) epoch: u64,
    /// A reconfiguration found it on some members only. The next primary writes it again.
    pub(super) is_indeterminate: bool,
    pub(super) count: u8,
    /// Later writes have lower ones: of two that are equal otherwise, the wrong one is the greater.
    pub(super) id: u8,
}

impl Version {
    /// There is no record.
    pub(super) const NOTHING: Self = Self::of_write(0, 0, 0);
    /// A record that was removed, and its tombstone purged, while D was away.
    pub(super) const REMOVED: Self = Self::of_write(0, 1, 7);

    pub(super) const fn of_write(epoch: u64, count: u8, id: u8) -> Self {
        Self { epoch, is_indeterminate: false, count, id }
    }

    /// Another write followed it.
    pub(super) fn is_before(self, other: Self) -> bool {
        self < other && self.id != other.id
    }

    const fn bit(self) -> u8 {
        1 << self.id
    }
}

/// A node. Configurations and record are on disk.
#[derive(Clone, Debug, PartialEq, Hash)]
pub(super) struct Member {
    pub(super) configurations: Arc<Configurations>,
    pub(super) record: Version,
    pub(super) term: Option<Term>,
    /// It restarted under the set of this epoch, and is the primary of later ones only.
    pub(super) resigned: u64,
}

/// A primary's knowledge of its replicas, lost when it restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Term {
    pub(super) epoch: u64,
    /// The members whose leases it holds: until they promise, because they wait that long.
    pub(super) leases: Nodes,
    /// The members that have all of its records.
    pub(super) same: Nodes,
    /// A majority had, once: it serves.
    pub(super) is_compared: bool,
}

/// An attempt to have the next set chosen.
#[derive(Clone, Debug, PartialEq, Hash)]
pub(super) struct Attempt {
    pub(super) ballot: Ballot,
    pub(super) present: Arc<ReplicaSet>,
    pub(super) wanted: Arc<ReplicaSet>,
    pub(super) phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Hash)]
pub(super) enum Phase {
    /// Members that promised, with what they had accepted before and their record.
    Asking(BTreeMap<Node, (Option<Proposal>, Version)>),
    Proposing {
        read: Version,
        next: Arc<ReplicaSet>,
        supplied: Nodes,
        accepted: Nodes,
    },
    Chosen {
        read: Version,
        next: Arc<ReplicaSet>,
    },
}

impl Attempt {
    pub(super) fn chosen(&self) -> Option<&ReplicaSet> {
        match &self.phase {
            Phase::Chosen { next, .. } => Some(next),
            _ => None,
        }
    }
}

/// A compare-and-set. A put does not compare, so it has fewer ways to fail.
#[derive(Clone, Debug, PartialEq, Hash)]
pub(super) struct Write {
    pub(super) set: Arc<ReplicaSet>,
    pub(super) expected: Version,
    pub(super) version: Version,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Outcome {
    /// These have stored it so far.
    Pending(Nodes),
    Acknowledged,
    /// The primary has given up: no client will be told that it succeeded, but it may.
    Unknown,
}

impl Write {
    pub(super) fn is_pending(&self) -> bool {
        matches!(self.outcome, Outcome::Pending(_))
    }
}

/// A read that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Reading {
    pub(super) node: Node,
    pub(super) epoch: u64,
    pub(super) record: Version,
    /// The newest version that any client had been told of when it began.
    pub(super) newest: Version,
}

/// What clients were told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Told {
    versions: u8,
    pub(super) newest: Version,
    /// A client was told an older version than another client before.
    pub(super) is_stale: bool,
}

impl Told {
    /// An answer that was given when clients had been told of `newest`.
    pub(super) fn tell(&mut self, version: Version, newest: Version) {
        self.versions |= version.bit();
        self.newest = self.newest.max(version);
        self.is_stale |= version.is_before(newest);
    }

    pub(super) fn has(self, version: Version) -> bool {
        self.versions & version.bit() != 0
    }
}

/// The whole state.
#[derive(Clone, Debug, PartialEq, Hash)]
pub(super) struct Ring {
    pub(super) nodes: Vec<Member>,
    pub(super) attempts: Vec<Attempt>,
    pub(super) writes: Vec<Write>,
    pub(super) restarts: usize,
    pub(super) reads: usize,
    pub(super) reading: Option<Reading>,
    pub(super) told: Told,
}

impl Ring {
    /// Every node knows the first set, and there is no record except on D, which was away for long.
    pub(super) fn new() -> Self {
        let first = Self::first();
        let nodes = NODES.into_iter().map(|node| {
            let mut configurations = Configurations::new(id(node));
            configurations.learn(RANGE, &first);
            let record = if node == D { Version::REMOVED } else { Version::NOTHING };
            Member { configurations: Arc::new(configurations), record, term: None, resigned: 0 }
        });
        Self {
            nodes: nodes.collect(),
            attempts: Vec::new(),
            writes: Vec::new(),
            restarts: 0,
            reads: 0,
            reading: None,
            told: Told { versions: 1, newest: Version::NOTHING, is_stale: false },
        }
    }

    fn first() -> ReplicaSet {
        let members = [A, B, C].map(contact).to_vec();
        ReplicaSet { lineage: Lineage(Uuid::nil()), epoch: 1, members }
    }

    pub(super) fn configurations(&mut self, node: Node) -> &mut Configurations {
        Arc::make_mut(&mut self.nodes[node].configurations)
    }

    pub(super) fn present(&self, node: Node) -> &ReplicaSet {
        &self.nodes[node].configurations.at(POSITION).expect("all know some set").present
    }

    pub(super) fn is_sealed(&self, node: Node) -> bool {
        self.nodes[node].configurations.at(POSITION).is_some_and(Configuration::is_sealed)
    }

    /// The writes of a node as the primary, finished or not.
    pub(super) fn own_writes(&self, node: Node) -> impl Iterator<Item = &Write> {
        self.writes.iter().filter(move |write| primary(&write.set) == node)
    }

    /// The latest set that was chosen.
    pub(super) fn latest(&self) -> ReplicaSet {
        let chosen = self.attempts.iter().filter_map(Attempt::chosen).cloned();
        chosen.chain([Self::first()]).max_by_key(|set| set.epoch).expect("there is the first")
    }

    /// No two sets were chosen after the same one, or have the same epoch.
    pub(super) fn is_agreed(&self) -> bool {
        let chosen = self
            .attempts
            .iter()
            .filter_map(|attempt| Some((attempt.present.epoch, attempt.chosen()?)));
        let chosen: Vec<_> = chosen.collect();
        chosen.iter().all(|(after, set)| {
            let mut rivals = chosen
                .iter()
                .filter(|(other_after, other)| other_after == after || other.epoch == set.epoch);
            rivals.all(|(_, other)| other == set)
        })
    }

    /// What clients were told forms one history: each version was written over the one before.
    pub(super) fn is_one_history(&self) -> bool {
        let mut left = self.told.versions;
        let mut version = self.told.newest;
        loop {
            left &= !version.bit();
            let Some(write) = self.writes.iter().find(|write| write.version.id == version.id)
            else {
                return left == 0 && version == Version::NOTHING;
            };
            version = write.expected;
        }
    }

    /// Any majority of the latest set has the newest version that any client was told of.
    pub(super) fn is_kept(&self) -> bool {
        let latest = self.latest();
        let behind =
            members(&latest).filter(|node| self.nodes[*node].record.is_before(self.told.newest));
        behind.count() < latest.majority()
    }
}
