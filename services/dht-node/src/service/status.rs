//! Errors of this node as gRPC statuses.

use tonic::Status;

use crate::{
    replication::{kv::KvError, primary::NotServing},
    storage::StoreError,
    wire::refusal::{self, Reason},
};

impl From<KvError> for Status {
    fn from(error: KvError) -> Self {
        let message = error.to_string();
        match error {
            KvError::NotServing(NotServing::Primary(primary)) => {
                refusal::elsewhere(format!("{message}; ask {}", primary.address), &primary)
            }
            KvError::NotServing(NotServing::NoPrimary | NotServing::Sealed) => {
                refusal::status(Reason::NotServing, format!("{message}; try again"))
            }
            KvError::NotServing(NotServing::NoLease) | KvError::EarlierUnresolved(_) => {
                refusal::status(Reason::NotServing, message)
            }
            KvError::TooManyIndeterminate => {
                let message = format!("{message}; bring those back, or try again later");
                refusal::status(Reason::NotServing, message)
            }
            KvError::TooLate => refusal::too_late(message),
            KvError::Full { .. } => Self::resource_exhausted(message),
            KvError::Condition(_) => Self::aborted(message),
            KvError::TooFewCopies { .. } => refusal::status(Reason::TooFewReplicas, message),
            KvError::TooManyCopies(_) => Self::failed_precondition(message),
            KvError::Unknown(_) => refusal::status(Reason::OutcomeUnknown, message),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_a_primary_to_name_says_that_it_does_not_serve() {
        let refused = Status::from(KvError::NotServing(NotServing::NoPrimary));
        assert_eq!(refusal::reason(&refused), Some(Reason::NotServing));
        assert_eq!(refusal::primary(&refused), None);
    }
}
