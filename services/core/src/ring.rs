//! The ring: who stands where on the circle, whose a key is, and who keeps it.
//!
//! A key belongs to its closest successor: the node at its position or the next one clockwise
//! (Stoica et al., "Chord", ToN 2003). Membership follows the corrected protocol (Zave, "How to Make
//! Chord Correct", 2017).

mod contact;
mod custody;
mod intervals;
mod leases;
mod message;
mod position;

pub use contact::{Contact, NodeId, NodeIdError};
pub use custody::{
    Agreement, Ballot, Custody, Lineage, Proposal, Refusal, ReplicaSet, Superseding, WriteRefusal,
    next_members, proposals,
};
pub use intervals::Intervals;
pub use leases::{Lapse, Leases, Tenure};
pub use message::{Found, Standing, State};
pub use position::{Bits, KeyRange, Position};
