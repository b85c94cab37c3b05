//! Ending a process on request, whatever it is doing.

use std::{io, process, thread, time::Duration};

use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// The exit status that a shell reports for a process ended by SIGINT.
const EXIT_IMPATIENT: i32 = 130;

/// The process did not end in time.
const EXIT_LATE: i32 = 1;

/// How long a service may take to end, usually: Kubernetes sends SIGKILL after 30 s.
pub const GRACE: Duration = Duration::from_secs(25);

/// The same for a command, whose user waits. A peer in it takes up to 7 s to leave its swarms.
pub const GRACE_OF_COMMAND: Duration = Duration::from_secs(10);

/// A token that is cancelled by SIGTERM or SIGINT. A second signal ends the process at once, and so
/// does the end of `grace` after the first.
///
/// The signals have a thread of their own, so that this works whatever the process is busy with.
pub fn on_signal(grace: Duration) -> io::Result<CancellationToken> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (mut terminate, mut interrupt) = {
        let _within = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    let token = CancellationToken::new();
    // If the thread panicked, the process would end in order.
    let cancel = token.clone().drop_guard();
    let listen = async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        let signal = next().await;
        info!(signal, "shutting down");
        drop(cancel);
        if let Ok(signal) = timeout(grace, next()).await {
            warn!(signal, "exiting at once");
            process::exit(EXIT_IMPATIENT);
        }
        error!(?grace, "not ended in time, exiting at once");
        process::exit(EXIT_LATE);
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(listen))?;
    Ok(token)
}
