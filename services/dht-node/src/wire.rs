//! Conversion between wire messages and the node's own types: parsed at the edge, then trusted.

mod addressee;
mod contact;
mod error;
mod range;
mod record;
pub(crate) mod refusal;
mod replica_set;
mod timestamp;

pub(crate) use addressee::{Addressee, check_addressee, require_addressee};
pub(crate) use contact::{
    Provenance, contact, found, parse_contact, parse_found, parse_membership_digest, parse_rumours,
    parse_state, rumour, state,
};
pub(crate) use error::{WireError, field};
pub(crate) use range::{parse_position, parse_range, range};
pub(crate) use record::{
    digest, epoch, parse_digest, parse_digests, parse_records, parse_records_of, parse_stamps,
    record,
};
pub(crate) use replica_set::{
    ballot, parse_ballot, parse_promise, parse_proposal, parse_range_replica_set, parse_superseded,
    proposal, range_replica_set, superseded,
};
pub(crate) use timestamp::{parse_timestamp, timestamp};
