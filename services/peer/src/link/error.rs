//! Why a link was not made.

use shoal_core::{PeerId, peer_list::Refusal};
use tonic::{Code, Status};

use super::wire::WireError;

/// Why a link was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error(transparent)]
    Connect(#[from] shoal_common::channel::ConnectError),
    #[error("the peer refused the link: {}", .0.message())]
    Status(#[from] Status),
    #[error("the peer did not say hello in time")]
    Silent,
    #[error("the peer broke the protocol: {0}")]
    Wire(#[from] WireError),
    #[error("another peer answers at its address: {0}")]
    OtherPeer(PeerId),
    #[error("the peer answered for another content")]
    OtherContent,
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("this peer is stopping")]
    Stopping,
}

impl From<LinkError> for Status {
    fn from(error: LinkError) -> Self {
        let code = match &error {
            LinkError::Connect(_) | LinkError::Stopping => Code::Unavailable,
            LinkError::Status(status) => status.code(),
            LinkError::Silent => Code::DeadlineExceeded,
            LinkError::Wire(WireError::Version(..)) => Code::FailedPrecondition,
            LinkError::Wire(_) | LinkError::OtherPeer(_) | LinkError::OtherContent => {
                Code::InvalidArgument
            }
            LinkError::Refused(refusal) => match refusal {
                Refusal::Banned => Code::PermissionDenied,
                Refusal::Myself => Code::InvalidArgument,
                Refusal::Duplicate => Code::AlreadyExists,
                Refusal::Full | Refusal::Crowded => Code::ResourceExhausted,
                Refusal::NoContent => Code::NotFound,
            },
        };
        Self::new(code, error.to_string())
    }
}
