//! Messages that violate the protocol.

use std::fmt::Display;

use shoal_core::{Address, ring::Position};
use tonic::Status;

use crate::counters::{MAX_AHEAD, is_credible};

/// A message that violates the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0}")]
    Field(String),
    #[error("{0} cannot be dialled from another host")]
    HostLocal(Address),
    #[error("{id} is at {right}, not at {claimed}; positions are computed from ids")]
    Position { id: String, claimed: String, right: Position },
    #[error("{got} {what} are more than the {max} allowed")]
    TooMany { what: &'static str, got: usize, max: usize },
    #[error(
        "{what} {got} is more than {days} days ahead of this node's clock, taken as milliseconds since \
         1970: no ring reaches that; set the clocks of both nodes",
        days = MAX_AHEAD.as_secs() / 86_400
    )]
    Absurd { what: &'static str, got: u64 },
    #[error("{got} {what} answer a request for {asked}")]
    Unequal { what: &'static str, got: usize, asked: usize },
    #[error("{0} are out of order, or were not requested")]
    OutOfOrder(&'static str),
}

/// Any error as the error of a field.
pub(crate) fn field(error: impl Display) -> WireError {
    WireError::Field(error.to_string())
}

impl From<WireError> for Status {
    fn from(error: WireError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

/// Refuses more than `max` items.
pub(super) fn at_most<T>(
    what: &'static str,
    items: Vec<T>,
    max: usize,
) -> Result<Vec<T>, WireError> {
    let got = items.len();
    if got <= max { Ok(items) } else { Err(WireError::TooMany { what, got, max }) }
}

/// The counter, if it can have been reached by now.
pub(super) fn credible(what: &'static str, got: u64) -> Result<u64, WireError> {
    if is_credible(got) { Ok(got) } else { Err(WireError::Absurd { what, got }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::unix_ms;

    #[test]
    fn a_count_is_credible_up_to_a_day_ahead() {
        let day = MAX_AHEAD.as_millis() as u64;
        let now = unix_ms();
        assert!(credible("epoch", 0).is_ok() && credible("epoch", now + day - 1).is_ok());
        let refused = credible("epoch", now + day + 60_000).expect_err("it is further ahead");
        assert!(refused.to_string().starts_with("epoch 1"), "{refused}");
        assert!(refused.to_string().contains("more than 1 days ahead"), "{refused}");
    }
}
