//! Fault injection for tests of whole processes, by files in the directory that `SHOAL_FAULTS`
//! names. Only built with the feature `faults`.
//!
//! - A task panics once there is a file of its name.
//! - The wall clock is moved by the milliseconds in the file `clock`, forwards or backwards.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicI64, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::time::sleep;
use tracing::warn;

/// How often the file is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A task that panics on request.
pub(crate) async fn struck(name: &'static str, task: impl Future<Output = ()>) {
    match env::var_os("SHOAL_FAULTS") {
        None => task.await,
        Some(directory) => {
            let file = PathBuf::from(directory).join(name);
            tokio::select! {
                () = task => {}
                () = sought(file) => panic!("a test wanted it"),
            }
        }
    }
}

async fn sought(file: PathBuf) {
    while !file.exists() {
        sleep(LOOK_EVERY).await;
    }
}

/// How far a test moves the wall clock ahead.
pub(crate) fn clock_ahead_ms() -> i64 {
    static AHEAD: OnceLock<&AtomicI64> = OnceLock::new();
    let ahead = AHEAD.get_or_init(|| {
        static AHEAD_MS: AtomicI64 = AtomicI64::new(0);
        if let Some(directory) = env::var_os("SHOAL_FAULTS") {
            let file = PathBuf::from(directory).join("clock");
            move_clock(&AHEAD_MS, &file);
            thread::spawn(move || {
                loop {
                    thread::sleep(LOOK_EVERY);
                    move_clock(&AHEAD_MS, &file);
                }
            });
        }
        &AHEAD_MS
    });
    ahead.load(Ordering::Relaxed)
}

fn move_clock(ahead: &AtomicI64, file: &Path) {
    let wanted_ms = fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
    let ahead_ms = wanted_ms.unwrap_or_default();
    if ahead.swap(ahead_ms, Ordering::Relaxed) != ahead_ms {
        warn!(ahead_ms, "a test has moved the wall clock");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_moved_as_the_file_says_and_back_without_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("clock");
        let ahead = AtomicI64::new(0);
        for wanted in [3_600_000, -3_600_000] {
            fs::write(&file, format!("{wanted}\n")).expect("it is written");
            move_clock(&ahead, &file);
            assert_eq!(ahead.load(Ordering::Relaxed), wanted);
        }
        fs::remove_file(&file).expect("it is there");
        move_clock(&ahead, &file);
        assert_eq!(ahead.load(Ordering::Relaxed), 0);
    }
}
