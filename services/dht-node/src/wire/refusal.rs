//! Why a call failed, in a form that callers can act on: a gRPC code, a message, and a reason in an
//! `ErrorInfo` detail.

use std::{collections::HashMap, time::Duration};

use shoal_common::ring_client::{NOT_SERVING, TOO_LATE};
use shoal_core::ring::Contact;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::contact::parse_named;
use crate::time::steady_ms;

/// The domain of the reasons.
const DOMAIN: &str = "shoal.dht.v1";
/// Metadata: the node that serves the key instead.
const PRIMARY_ID: &str = "primary_node_id";
const PRIMARY_ADDRESS: &str = "primary_address";
/// Metadata: the time at the refusing node, in milliseconds since the Unix epoch.
const CLOCK: &str = "clock_unix_ms";
/// The retry delay while an earlier write is being resolved.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// What a caller has to know before a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Nothing happened; another node, or this one soon, will answer.
    NotServing,
    /// Nothing happened; too few of the key's replicas are alive.
    TooFewReplicas,
    /// Nothing happened; the call was delayed for too long.
    TooLate,
    /// It may have happened.
    OutcomeUnknown,
}

impl Reason {
    const ALL: [Self; 4] =
        [Self::NotServing, Self::TooFewReplicas, Self::TooLate, Self::OutcomeUnknown];

    const fn name(self) -> &'static str {
        match self {
            Self::NotServing => NOT_SERVING,
            Self::TooFewReplicas => "TOO_FEW_REPLICAS",
            Self::TooLate => TOO_LATE,
            Self::OutcomeUnknown => "OUTCOME_UNKNOWN",
        }
    }

    const fn code(self) -> Code {
        match self {
            Self::NotServing | Self::TooLate | Self::OutcomeUnknown => Code::Unavailable,
            Self::TooFewReplicas => Code::FailedPrecondition,
        }
    }
}

/// A refusal with this reason.
pub(crate) fn status(reason: Reason, message: impl Into<String>) -> Status {
    with_metadata(reason, message, HashMap::new())
}

fn with_metadata(
    reason: Reason,
    message: impl Into<String>,
    metadata: HashMap<String, String>,
) -> Status {
    let mut details = ErrorDetails::with_error_info(reason.name(), DOMAIN, metadata);
    details.set_retry_info(Some(RETRY_AFTER));
    Status::with_error_details(reason.code(), message, details)
}

/// A refusal by a node that is not the primary, which names the primary.
pub(crate) fn elsewhere(message: impl Into<String>, primary: &Contact) -> Status {
    let names = [
        (PRIMARY_ID.to_owned(), primary.id.to_string()),
        (PRIMARY_ADDRESS.to_owned(), primary.address.to_string()),
    ];
    with_metadata(Reason::NotServing, message, names.into())
}

/// A refusal of a write that came too late, with the time at this node.
pub(crate) fn too_late(message: impl Into<String>) -> Status {
    let clock = [(CLOCK.to_owned(), steady_ms().to_string())];
    with_metadata(Reason::TooLate, message, clock.into())
}

/// The time at the refusing node, by its steady clock.
pub(crate) fn clock(status: &Status) -> Option<u64> {
    let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN)?;
    info.metadata.get(CLOCK)?.parse().ok()
}

/// The node that serves the key instead, according to the refusing node.
pub(crate) fn primary(status: &Status) -> Option<Contact> {
    let mut info = status.get_details_error_info().filter(|info| info.domain == DOMAIN)?;
    let node_id = info.metadata.remove(PRIMARY_ID)?;
    let address = info.metadata.remove(PRIMARY_ADDRESS)?;
    parse_named(&node_id, &address).ok()
}

/// The reason of a refusal, if it has one.
pub(crate) fn reason(status: &Status) -> Option<Reason> {
    let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN)?;
    Reason::ALL.into_iter().find(|reason| reason.name() == info.reason)
}

#[cfg(test)]
mod tests {
    use shoal_core::ring::{NodeId, Position};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_node_that_is_not_the_primary_names_the_primary() {
        let id = NodeId::new(Uuid::from_u128(7));
        let primary_of = |address: &str| {
            let address = address.parse().expect(address);
            let primary = Contact { position: Position::of_node(id, 0), id, address };
            let refused = elsewhere("another node is the primary", &primary);
            assert_eq!(reason(&refused), Some(Reason::NotServing));
            (super::primary(&refused), primary)
        };
        let (named, right) = primary_of("10.0.0.1:7071");
        assert_eq!(named, Some(right));
        assert_eq!(primary_of("0.0.0.0:7071").0, None, "nobody can dial it");
        assert_eq!(super::primary(&status(Reason::NotServing, "no primary is known")), None);
    }
}
