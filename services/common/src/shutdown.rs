//! Ending a process on request.

use std::{io, process};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// What a shell reports for a process that SIGINT ended.
const EXIT_IMPATIENT: i32 = 130;

/// A token that is cancelled by SIGTERM or SIGINT. A second signal ends the process at once.
///
/// Call it within a runtime.
pub fn on_signal() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        let signal = next().await;
        info!(signal, "shutting down");
        cancelled.cancel();
        let signal = next().await;
        warn!(signal, "exiting at once");
        process::exit(EXIT_IMPATIENT);
    });
    Ok(token)
}
