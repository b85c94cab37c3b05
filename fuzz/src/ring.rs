//! Ring messages about a few nodes and positions, most of them valid: a position is a hash of the
//! node's id, which no fuzzer finds by itself.

mod questions;

use arbitrary::Arbitrary;
use shoal_core::ring::{Contact, KeyRange, NodeId, Position};
use shoal_proto::dht::v1 as pb;
use uuid::Uuid;

pub use questions::{Reply, answered, unanswered};

/// The number of nodes.
pub const NODES: u8 = 12;

/// The number of the node under test.
pub const ME: u8 = 7;

/// One of the nodes, as a message names it.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Node {
    number: u8,
    /// 0 to 2 give a wrong position, a second position, or another address.
    variant: u8,
}

/// The id of the node of a number.
pub fn id(number: u8) -> NodeId {
    NodeId::new(Uuid::from_u128(u128::from(number % NODES)))
}

/// The node of a number, with its usual position and address.
pub fn contact(number: u8) -> Contact {
    let id = id(number);
    let address = format!("10.0.0.{}:7073", number % NODES).parse().expect("an address");
    Contact { position: Position::of_node(id, 0), id, address }
}

impl Node {
    /// The node in a message.
    pub fn info(self) -> pb::NodeInfo {
        let Contact { id, position, address } = contact(self.number);
        let mut info = pb::NodeInfo {
            node_id: id.to_string(),
            position: position.to_string(),
            address: address.to_string(),
            ..pb::NodeInfo::default()
        };
        match self.variant {
            0 => info.position = Position::from_u128(1).to_string(),
            1 => {
                info.index = 1;
                info.position = Position::of_node(id, 1).to_string();
            }
            2 => info.address = "0.0.0.0:9".to_owned(),
            _ => {}
        }
        info
    }
}

/// A position on the circle: near a node, or near 0.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Place(Option<u8>, i8);

impl Place {
    /// Its position.
    pub fn position(self) -> Position {
        let near = self.0.map_or(Position::from_u128(0), |number| contact(number).position);
        Position::from_u128(near.to_u128().wrapping_add_signed(self.1.into()))
    }
}

/// A range between two positions.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Range(Place, Place);

impl Range {
    /// As a key range.
    pub fn range(self) -> KeyRange {
        KeyRange { after: self.0.position(), last: self.1.position() }
    }
}

/// An epoch, a round or an incarnation.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Count {
    /// A common value.
    Small(u8),
    /// Any value that a message may claim.
    Any(u64),
}

impl Count {
    /// Its number.
    pub fn number(self) -> u64 {
        match self {
            Self::Small(number) => number.into(),
            Self::Any(number) => number,
        }
    }
}

/// A node's state.
#[derive(Arbitrary, Clone, Debug)]
pub struct State {
    node: Node,
    standing: u8,
    predecessor: Option<Node>,
    successors: Vec<Node>,
}

impl State {
    /// As a message.
    pub fn message(&self) -> Option<pb::NodeState> {
        Some(pb::NodeState {
            node: Some(self.node.info()),
            standing: i32::from(self.standing % 5),
            predecessor: self.predecessor.map(Node::info),
            successors: infos(&self.successors),
        })
    }
}

/// A node's answer to `FindSuccessor`.
#[derive(Arbitrary, Clone, Debug)]
pub struct Found {
    node: Node,
    owns: bool,
    successors: Vec<Node>,
    closer: Vec<Node>,
}

impl Found {
    /// As a message.
    pub fn message(&self) -> pb::FindSuccessorResponse {
        pb::FindSuccessorResponse {
            node: Some(self.node.info()),
            owns: self.owns,
            successors: infos(&self.successors),
            closer: infos(&self.closer),
        }
    }
}

/// A rumour about a node.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Rumour(Node, Count, u8);

impl Rumour {
    /// As a message.
    pub fn message(self) -> pb::Rumour {
        let Self(node, incarnation, life) = self;
        let (node, incarnation) = (Some(node.info()), incarnation.number());
        pb::Rumour { node, incarnation, life: i32::from(life % 5) }
    }
}

/// A replica set.
#[derive(Arbitrary, Clone, Debug)]
pub struct Set {
    lineage: u8,
    epoch: Count,
    members: Vec<Node>,
}

impl Set {
    /// As the set of a range.
    pub fn of(&self, range: Range) -> Option<pb::RangeReplicaSet> {
        let KeyRange { after, last } = range.range();
        let range = pb::KeyRange { after: after.to_string(), last: last.to_string() };
        Some(pb::RangeReplicaSet { range: Some(range), replica_set: self.message() })
    }

    /// As a message.
    pub fn message(&self) -> Option<pb::ReplicaSet> {
        let lineage = Uuid::from_u128(u128::from(self.lineage % 3)).to_string();
        let (epoch, members) = (self.epoch.number(), infos(&self.members));
        Some(pb::ReplicaSet { lineage, epoch, members })
    }
}

/// An attempt to have a set chosen.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Ballot(Count, u8);

impl Ballot {
    /// As a message.
    pub fn message(self) -> Option<pb::Ballot> {
        let Self(round, number) = self;
        Some(pb::Ballot { round: round.number(), node_id: id(number).to_string() })
    }
}

fn infos(nodes: &[Node]) -> Vec<pb::NodeInfo> {
    nodes.iter().map(|node| node.info()).collect()
}
