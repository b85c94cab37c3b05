//! Why a call failed, in a form that callers can act on: a gRPC code, a message, and a reason in an
//! `ErrorInfo` detail.

use std::{collections::HashMap, time::Duration};

use shoal_common::ring::{NOT_SERVING, TOO_LATE};
use shoal_core::ring::Contact;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{
    replication::{kv::KvError, primary::NotServing},
    storage::StoreError,
    time::steady_ms,
    wire::{self, WireError},
};

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

/// The node is not the primary, and names the primary.
fn elsewhere(message: String, primary: &Contact) -> Status {
    let names = [
        (PRIMARY_ID.to_owned(), primary.id.to_string()),
        (PRIMARY_ADDRESS.to_owned(), primary.address.to_string()),
    ];
    with_metadata(Reason::NotServing, message, names.into())
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
    wire::parse_named(&node_id, &address).ok()
}

/// The reason of a refusal, if it has one.
pub(crate) fn reason(status: &Status) -> Option<Reason> {
    let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN)?;
    Reason::ALL.into_iter().find(|reason| reason.name() == info.reason)
}

impl From<KvError> for Status {
    fn from(error: KvError) -> Self {
        let message = error.to_string();
        match error {
            KvError::NotServing(NotServing::Primary(primary)) => {
                elsewhere(format!("{message}; ask {}", primary.address), &primary)
            }
            KvError::NotServing(NotServing::NoPrimary | NotServing::Sealed) => {
                status(Reason::NotServing, format!("{message}; try again"))
            }
            KvError::NotServing(NotServing::NoLease) | KvError::Unsettled(_) => {
                status(Reason::NotServing, message)
            }
            KvError::TooManyIndeterminate => {
                let message = format!("{message}; bring those back, or try again later");
                status(Reason::NotServing, message)
            }
            KvError::TooLate => {
                let clock = [(CLOCK.to_owned(), steady_ms().to_string())];
                with_metadata(Reason::TooLate, message, clock.into())
            }
            KvError::Full { .. } => Self::resource_exhausted(message),
            KvError::Condition(_) => Self::aborted(message),
            KvError::TooFewCopies { .. } => status(Reason::TooFewReplicas, message),
            KvError::TooManyCopies(_) => Self::failed_precondition(message),
            KvError::Unknown(_) => status(Reason::OutcomeUnknown, message),
            KvError::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full(_) => Self::resource_exhausted(error.to_string()),
            _ => Self::internal(error.to_string()),
        }
    }
}

impl From<WireError> for Status {
    fn from(error: WireError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use shoal_core::ring::{NodeId, Position};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn who_is_not_the_primary_names_who_is() {
        let id = NodeId::new(Uuid::from_u128(7));
        let primary_of = |address: &str| {
            let primary =
                Contact { position: Position::of_node(id, 0), id, address: address.into() };
            let refused = Status::from(KvError::NotServing(NotServing::Primary(primary.clone())));
            assert_eq!(reason(&refused), Some(Reason::NotServing));
            (super::primary(&refused), primary)
        };
        let (named, right) = primary_of("10.0.0.1:7071");
        assert_eq!(named, Some(right));
        assert_eq!(primary_of("0.0.0.0:7071").0, None, "nobody can dial it");
        let nobody = Status::from(KvError::NotServing(NotServing::NoPrimary));
        assert_eq!(super::primary(&nobody), None);
    }
}
