//! The ring: who stands where on the circle, whose a key is, and who keeps it.
//!
//! A key belongs to its closest successor: the node at its position or the next one clockwise
//! (Stoica et al., "Chord", ToN 2003). Membership follows the corrected protocol (Zave, "How to Make
//! Chord Correct", 2017).

mod census;
mod contact;
mod custody;
mod fingers;
mod intervals;
mod leases;
mod lookup;
mod member;
mod message;
mod node;
mod placement;
mod position;
mod roll;
mod silent;
mod source;
mod timeouts;
mod version;
mod view;

pub use census::Census;
pub use contact::{Contact, NodeId, NodeIdError};
pub use custody::{
    Agreement, Ballot, Custody, Lineage, Proposal, Refusal, ReplicaSet, Superseding, WriteRefusal,
    next_members, proposals,
};
pub use fingers::{FingerBase, Fingers};
pub use intervals::Intervals;
pub use leases::{Lapse, Leases, Tenure};
pub use lookup::{Failure as LookupFailure, Lookup, LookupSettings, Outcome};
pub use member::{JoinError, Member, Next};
pub use message::{Found, Standing, State};
pub use node::{
    Answer, Awaited, Founding, Input, Node, NodeSettings, Output, Purpose, Question, Seeds,
    Silence, Wait,
};
pub use placement::replicas;
pub use position::{Bits, KeyRange, Position};
pub use roll::{Digest as RollDigest, Entry, Life, Roll};
pub use source::Source;
pub use timeouts::{TimeoutSettings, Timeouts};
pub use version::{Stamp, Version, VersionError};
pub use view::View;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
