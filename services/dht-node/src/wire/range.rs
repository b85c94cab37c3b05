//! Positions and ranges of keys.

use shoal_core::ring::{KeyRange, Position};
use shoal_proto::dht::v1 as pb;

use super::WireError;

/// A position as 32 hex digits.
pub(crate) fn parse_position(text: &str) -> Result<Position, WireError> {
    Position::from_hex(text)
        .ok_or_else(|| WireError::Field(format!("{text:?} is not a position; write 32 hex digits")))
}

pub(crate) fn range(range: KeyRange) -> pb::KeyRange {
    pb::KeyRange { after: range.after.to_string(), last: range.last.to_string() }
}

pub(crate) fn parse_range(range: Option<pb::KeyRange>) -> Result<KeyRange, WireError> {
    let range = range.ok_or(WireError::Missing("the range"))?;
    Ok(KeyRange { after: parse_position(&range.after)?, last: parse_position(&range.last)? })
}
