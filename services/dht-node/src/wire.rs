//! Conversion between wire messages and the node's own types: parsed at the edge, then trusted.

mod addressee;
mod agreement;
mod contact;
mod count;
mod record;

use std::fmt::Display;

use prost_types::Timestamp;
use shoal_common::Address;
use shoal_core::ring::{KeyRange, Position};
use shoal_proto::dht::v1 as pb;

pub(crate) use addressee::{Addressee, check_addressee, require_addressee};
pub(crate) use agreement::{
    agreement, ballot, configurations, parse_agreement, parse_ballot, parse_configurations,
    parse_promise, parse_proposal, parse_superseded, proposal, superseded,
};
pub(crate) use contact::{
    Told, contact, found, parse_contact, parse_found, parse_membership_digest, parse_named,
    parse_rumours, parse_state, rumour, state,
};
pub(crate) use count::{credible, is_credible};
pub(crate) use record::{
    digest, epoch, parse_digest, parse_digests, parse_records, parse_records_of, parse_stamps,
    record,
};

/// A message that violates the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0}")]
    Field(String),
    #[error("{0} leads nowhere from another host")]
    HostLocal(Address),
    #[error("{id} stands at {right}, not at {claimed}; positions are computed from ids")]
    Position { id: String, claimed: String, right: Position },
    #[error("{got} {what} are more than the {max} allowed")]
    TooMany { what: &'static str, got: usize, max: usize },
    #[error(
        "{what} {got} is more than {days} days ahead of this node's clock, taken as milliseconds since \
         1970: no ring comes so far; set the clocks of both nodes",
        days = count::MAX_AHEAD.as_secs() / 86_400
    )]
    Absurd { what: &'static str, got: u64 },
    #[error("{got} {what} answer a question about {asked}")]
    Unequal { what: &'static str, got: usize, asked: usize },
    #[error("{0} do not come in order, or are of what was not asked for")]
    OutOfOrder(&'static str),
}

/// Any error as the error of a field.
pub(crate) fn field(error: impl Display) -> WireError {
    WireError::Field(error.to_string())
}

/// Refuses more than `max` items.
fn at_most<T>(what: &'static str, items: Vec<T>, max: usize) -> Result<Vec<T>, WireError> {
    let got = items.len();
    if got <= max { Ok(items) } else { Err(WireError::TooMany { what, got, max }) }
}

/// Milliseconds since the Unix epoch as a timestamp.
pub(crate) fn timestamp(ms: u64) -> Timestamp {
    Timestamp { seconds: (ms / 1000).cast_signed(), nanos: (ms % 1000 * 1_000_000) as i32 }
}

/// A timestamp as milliseconds since the Unix epoch.
pub(crate) fn parse_timestamp(timestamp: Timestamp) -> Result<u64, WireError> {
    let Timestamp { seconds, nanos } = timestamp;
    let ms = || {
        let nanos = u64::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
        u64::try_from(seconds).ok()?.checked_mul(1000)?.checked_add(nanos / 1_000_000)
    };
    ms().ok_or_else(|| WireError::Field(format!("{seconds}.{nanos:09} s is no point in time")))
}

/// A position as 32 hex digits.
pub(crate) fn parse_position(text: &str) -> Result<Position, WireError> {
    let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten();
    number
        .map(Position::from_u128)
        .ok_or_else(|| WireError::Field(format!("{text:?} is no position; write 32 hex digits")))
}

pub(crate) fn range(range: KeyRange) -> pb::KeyRange {
    pb::KeyRange { after: range.after.to_string(), last: range.last.to_string() }
}

pub(crate) fn parse_range(range: Option<pb::KeyRange>) -> Result<KeyRange, WireError> {
    let range = range.ok_or(WireError::Missing("the range"))?;
    Ok(KeyRange { after: parse_position(&range.after)?, last: parse_position(&range.last)? })
}
