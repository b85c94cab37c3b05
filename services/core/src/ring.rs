//! The ring: positions of nodes on the circle, ownership of keys, and agreement on replica sets.
//!
//! A key belongs to its closest successor: the node at its position or the next one clockwise
//! (Stoica et al., "Chord", ToN 2003). The ring is maintained by the corrected protocol (Zave, "How
//! to Make Chord Correct", 2017).

mod chord;
mod configurations;
mod contact;
mod failure_detector;
mod fingers;
mod intervals;
mod leases;
mod live_nodes;
mod lookup;
mod membership;
mod message;
mod node;
mod placement;
mod position;
mod routing_table;
mod source;
mod timeouts;
mod version;

pub use chord::{ChordNode, JoinError, Next};
pub use configurations::{
    Agreement, Ballot, Configurations, Lineage, Proposal, Refusal, ReplicaSet, Superseding,
    WriteRefusal, next_members, proposals,
};
pub use contact::{Contact, NodeId, NodeIdError};
pub use fingers::{FingerBase, Fingers};
pub use intervals::Intervals;
pub use leases::{LeaderLease, LeaseExpiry, Leases};
pub use live_nodes::LiveNodes;
pub use lookup::{Failure as LookupFailure, Lookup, LookupSettings, Outcome};
pub use membership::{Digest as MembershipDigest, Entry, Life, Membership};
pub use message::{Found, Standing, State};
pub use node::{
    Answer, Awaited, Founding, Input, Node, NodeSettings, Output, Purpose, Question, Seeds,
    Silence, Wait,
};
pub use placement::replicas;
pub use position::{Bits, KeyRange, Position};
pub use routing_table::RoutingTable;
pub use source::Source;
pub use timeouts::{TimeoutSettings, Timeouts};
pub use version::{Stamp, Version, VersionError};

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
