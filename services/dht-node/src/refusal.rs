//! Why a call failed, in a form that callers can act on: a gRPC code, words, and a reason in an
//! `ErrorInfo` detail.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{kv::KvError, primary::NotServing, store::StoreError, wire::WireError};

/// Who made the reasons up.
const DOMAIN: &str = "shoal.dht.v1";
/// When to try again what is being settled.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// What a caller needs to know to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Nothing happened; another node, or this one soon, will answer.
    NotServing,
    /// Nothing happened; too few of the key's replicas live.
    TooFewReplicas,
    /// It may have happened.
    OutcomeUnknown,
}

impl Reason {
    const ALL: [Self; 3] = [Self::NotServing, Self::TooFewReplicas, Self::OutcomeUnknown];

    const fn name(self) -> &'static str {
        match self {
            Self::NotServing => "NOT_SERVING",
            Self::TooFewReplicas => "TOO_FEW_REPLICAS",
            Self::OutcomeUnknown => "OUTCOME_UNKNOWN",
        }
    }

    const fn code(self) -> Code {
        match self {
            Self::NotServing | Self::OutcomeUnknown => Code::Unavailable,
            Self::TooFewReplicas => Code::FailedPrecondition,
        }
    }
}

/// A refusal for this reason.
pub(crate) fn status(reason: Reason, message: impl Into<String>) -> Status {
    let mut details = ErrorDetails::with_error_info(
        reason.name(),
        DOMAIN,
        std::collections::HashMap::<String, String>::new(),
    );
    details.set_retry_info(Some(RETRY_AFTER));
    Status::with_error_details(reason.code(), message, details)
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
            KvError::NotServing(NotServing::NotPrimary | NotServing::Sealed) => {
                status(Reason::NotServing, format!("{message}; try again"))
            }
            KvError::NotServing(NotServing::NoLease) => status(Reason::NotServing, message),
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
