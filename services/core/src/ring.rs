//! The ring: positions of nodes on the circle, ownership of keys, and agreement on replica sets.
//!
//! A key belongs to its closest successor: the node at its position or the next one clockwise
//! (Stoica et al., "Chord", ToN 2003). The ring is maintained by the corrected protocol (Zave, "How
//! to Make Chord Correct", 2017).
//!
//! | module | what it is about |
//! |---|---|
//! | `position`, `range_map`, `node_id`, `contact`, `message` | the circle, its nodes, and what they say |
//! | `chord`, `node` | a node's place in the ring, and the schedule that maintains it |
//! | `membership` | all nodes, by gossip |
//! | `routing` | fingers, routing tables, and lookups |
//! | `liveness` | unanswered calls: when to give up one, and when a node is dead |
//! | `replication` | replica sets, leases and versions |

mod chord;
mod contact;
mod liveness;
mod membership;
mod message;
mod node;
mod node_id;
mod position;
mod range_map;
mod replication;
mod routing;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use chord::{ChordNode, JoinError, Next};
pub use contact::Contact;
pub use liveness::{TimeoutSettings, Timeouts};
pub use membership::{Digest as MembershipDigest, Entry, Introducer, Life, Membership};
pub use message::{Found, Standing, State};
pub use node::{
    Answer, Awaited, Founding, Input, Node, NodeSettings, Output, Purpose, Question, Seeds,
    Silence, Wait,
};
pub use node_id::{NodeId, NodeIdError};
pub use position::{Bits, KeyRange, Position};
pub use range_map::RangeMap;
pub use replication::{
    Ballot, Configuration, Configurations, LeaderLease, LeaseExpiry, Leases, Lineage, Proposal,
    Refusal, ReplicaSet, Stamp, Superseding, Version, VersionError, WriteRefusal, next_members,
    proposals, replicas,
};
pub use routing::{
    Failure as LookupFailure, FingerBase, Fingers, LiveNodes, Lookup, LookupSettings, Outcome,
    RoutingTable,
};
