//! The end of a command: a message on stderr, and an exit status for scripts.

use std::{error::Error, fmt, io, process::ExitCode};

use serde::Serialize;
use shoal_common::{
    channel::ConnectError, clock::unix_ms, server::BindError, status::words, text::printable,
};
use shoal_peer::store::StoreError;
use tonic::{Code, Status};

use crate::{output, progress::Event};

/// The exit status of a command that failed. `shoal --help` documents the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Exit {
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Unreachable = 4,
    Storage = 5,
    TimedOut = 6,
    Stalled = 7,
    Damaged = 8,
    Interrupted = 130,
}

impl Exit {
    pub(crate) fn of_store(error: &StoreError) -> Self {
        match error {
            StoreError::DiskFull { .. }
            | StoreError::NoSpace { .. }
            | StoreError::Denied { .. }
            | StoreError::NotSynced(_)
            | StoreError::QuotaExceeded { .. } => Self::Storage,
            StoreError::Unknown(_) | StoreError::Removed(_) => Self::NotFound,
            StoreError::Io { source, .. } => of_io(source.kind()),
            _ => Self::Failed,
        }
    }
}

/// An error with its exit status.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    pub(crate) const fn exit(&self) -> Exit {
        self.exit
    }

    /// A service refused: the message is the service's.
    pub(crate) fn refused(status: &Status) -> Self {
        let exit = match status.code() {
            Code::NotFound => Exit::NotFound,
            Code::Unavailable | Code::DeadlineExceeded => Exit::Unreachable,
            Code::InvalidArgument => Exit::Usage,
            Code::PermissionDenied | Code::ResourceExhausted => Exit::Storage,
            _ => Exit::Failed,
        };
        Self::new(exit, words(status))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {}

// The messages of both include those of their causes.
impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(Exit::of_store(&error), error.to_string())
    }
}

impl From<BindError> for Failure {
    fn from(error: BindError) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::refused(&status)
    }
}

/// Where an error is reported.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    /// As an event on stdout too, for programs that read JSON lines.
    pub(crate) json: bool,
}

impl Report {
    pub(crate) fn exit_code(self, outcome: anyhow::Result<()>) -> ExitCode {
        let Err(error) = outcome else { return ExitCode::SUCCESS };
        if is_broken_pipe(&error) {
            // The reader of stdout has closed it and wants no more.
            return ExitCode::SUCCESS;
        }
        let exit = classify(&error);
        let message = format!("{error:#}");
        let message = printable(&message);
        if self.json {
            let event = Event::Error { message: &message, exit, unix_ms: unix_ms() };
            // If stdout is gone too, the error cannot be reported there.
            let _ = output::json(&event);
        }
        match exit {
            Exit::Interrupted => eprintln!("{message}"),
            _ => eprintln!("error: {message}"),
        }
        ExitCode::from(exit as u8)
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// The exit status of the first cause that has one.
fn classify(error: &anyhow::Error) -> Exit {
    error.chain().find_map(exit_of).unwrap_or(Exit::Failed)
}

fn exit_of(cause: &(dyn Error + 'static)) -> Option<Exit> {
    if let Some(failure) = cause.downcast_ref::<Failure>() {
        return Some(failure.exit);
    }
    if cause.is::<ConnectError>() {
        return Some(Exit::Unreachable);
    }
    cause.downcast_ref::<io::Error>().map(|error| of_io(error.kind()))
}

fn of_io(kind: io::ErrorKind) -> Exit {
    match kind {
        io::ErrorKind::NotFound => Exit::NotFound,
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::StorageFull
        | io::ErrorKind::QuotaExceeded => Exit::Storage,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    fn of_status(code: Code) -> Exit {
        classify(&Failure::refused(&Status::new(code, "why")).into())
    }

    #[test]
    fn the_exit_status_depends_on_the_cause() {
        assert_eq!(of_status(Code::NotFound), Exit::NotFound);
        assert_eq!(of_status(Code::Unavailable), Exit::Unreachable);
        assert_eq!(of_status(Code::Internal), Exit::Failed);
        for (kind, exit) in [
            (io::ErrorKind::NotFound, Exit::NotFound),
            (io::ErrorKind::StorageFull, Exit::Storage),
            (io::ErrorKind::PermissionDenied, Exit::Storage),
            (io::ErrorKind::InvalidData, Exit::Failed),
        ] {
            let error = Err::<(), _>(io::Error::from(kind)).context("cannot read it").unwrap_err();
            assert_eq!(classify(&error), exit, "{kind:?}");
        }
        assert_eq!(classify(&anyhow::anyhow!("why")), Exit::Failed);
    }

    #[test]
    fn a_services_message_cannot_control_the_terminal() {
        let failure = Failure::refused(&Status::not_found("gone\u{1b}[2J"));
        assert_eq!(failure.to_string(), "gone\\u{1b}[2J");
        assert!(!Failure::refused(&Status::not_found("")).to_string().is_empty());
    }
}
