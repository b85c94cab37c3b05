//! Signals that end a run, which then cleans up as after a failure.

use std::{
    io,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
};

/// The exit code that a shell reports for a process ended by SIGINT.
const EXIT_INTERRUPTED: u8 = 130;

/// Records whether SIGINT, SIGTERM or SIGHUP has come.
pub struct Interrupt {
    came: Arc<AtomicBool>,
    /// Its thread waits for the signals until it is dropped.
    listener: Runtime,
}

/// The error of a run that a signal interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

impl Interrupt {
    /// From now on signals do not end this process: it has to call [`check`](Self::check).
    pub fn listen() -> io::Result<Self> {
        let interrupt = Self::deaf()?;
        let _context = interrupt.listener.enter();
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            let (mut signals, came) = (signal(kind)?, interrupt.came.clone());
            interrupt.listener.spawn(async move {
                signals.recv().await;
                came.store(true, Ordering::Relaxed);
            });
        }
        Ok(interrupt)
    }

    /// An instance that receives no signals.
    pub fn deaf() -> io::Result<Self> {
        let listener = Builder::new_multi_thread().worker_threads(1).enable_io().build()?;
        Ok(Self { came: Arc::default(), listener })
    }

    /// Fails once a signal has come.
    pub fn check(&self) -> Result<(), Interrupted> {
        if self.came.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
    }

    /// Calls `condition` at the interval `every` until it returns a value. Fails after `patience`,
    /// when the condition fails, or when a signal has come.
    pub fn wait_for<T>(
        &self,
        what: &str,
        every: Duration,
        patience: Duration,
        mut condition: impl FnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + patience;
        loop {
            self.check()?;
            if let Some(value) = condition()? {
                return Ok(value);
            }
            ensure!(Instant::now() < deadline, "timed out after {patience:?} waiting for {what}");
            thread::sleep(every);
        }
    }
}

/// Prints the error of a program, if any, and returns its exit code.
pub fn exit_code(program: &str, outcome: anyhow::Result<()>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    eprintln!("{program}: {error:#}");
    if error.is::<Interrupted>() { ExitCode::from(EXIT_INTERRUPTED) } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    use super::*;
    use crate::process::wait_for;

    #[test]
    fn a_signal_is_noticed() {
        let interrupt = Interrupt::listen().unwrap();
        assert_eq!(interrupt.check(), Ok(()));
        kill_process(getpid(), Signal::TERM).unwrap();
        wait_for("the signal", Duration::from_secs(10), || interrupt.check().err());
    }
}
