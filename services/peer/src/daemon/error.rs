//! Errors of the daemon as statuses of its local API.

use tonic::{Code, Status};

use crate::{node::Stopped, store::StoreError};

impl From<Stopped> for Status {
    fn from(stopped: Stopped) -> Self {
        Self::unavailable(stopped.to_string())
    }
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        Self::new(code_of(&error), error.to_string())
    }
}

pub(crate) fn code_of(error: &StoreError) -> Code {
    match error {
        StoreError::DiskFull { .. }
        | StoreError::NoSpace { .. }
        | StoreError::QuotaExceeded { .. } => Code::ResourceExhausted,
        StoreError::Denied { .. } | StoreError::Outside { .. } => Code::PermissionDenied,
        StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Code::NotFound
        }
        StoreError::Unknown(_) => Code::NotFound,
        StoreError::Interrupted(_) => Code::Cancelled,
        StoreError::Exists(_) => Code::AlreadyExists,
        StoreError::LinkCycle(_)
        | StoreError::NotFiles(_)
        | StoreError::Dangling(_)
        | StoreError::LinksRefused(_)
        | StoreError::Names { .. }
        | StoreError::Unnamed(_)
        | StoreError::Descriptor(_)
        | StoreError::Manifest(_)
        | StoreError::FalseHole(_)
        | StoreError::Layout(_)
        | StoreError::Import(_) => Code::InvalidArgument,
        StoreError::SourceChanged(_)
        | StoreError::WrongRoot(_)
        | StoreError::Incomplete(_)
        | StoreError::Downloading(_) => Code::FailedPrecondition,
        _ => Code::Internal,
    }
}
