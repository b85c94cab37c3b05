//! The steps of slow work on the disk, for tests: one can look in at each, or have it fail.

use std::io;

/// What is about to happen, or just has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Bytes of a file are about to be written.
    Write,
    /// The bytes of a file are about to be synced.
    SyncData,
    /// The log of the pieces held is about to be synced.
    SyncLog,
    /// A directory is about to be synced.
    SyncDirectory,
    /// The database is about to commit.
    Commit,
    /// A directory is about to be deleted with all that is in it.
    Delete,
}

#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "in tests a step can fail")]
pub(super) const fn reach(_: Step) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(super) use watched::{reach, watch};

#[cfg(test)]
mod watched {
    use std::cell::RefCell;

    use super::{Step, io};

    type Watcher = Box<dyn FnMut(Step) -> io::Result<()>>;

    thread_local! {
        static WATCHER: RefCell<Option<Watcher>> = const { RefCell::new(None) };
    }

    /// Has `watcher` see the steps of this thread while `work` runs. It does not see its own.
    pub(in crate::store) fn watch<T>(
        watcher: impl FnMut(Step) -> io::Result<()> + 'static,
        work: impl FnOnce() -> T,
    ) -> T {
        WATCHER.set(Some(Box::new(watcher)));
        let done = work();
        WATCHER.set(None);
        done
    }

    pub(in crate::store) fn reach(step: Step) -> io::Result<()> {
        let Some(mut watcher) = WATCHER.take() else { return Ok(()) };
        let seen = watcher(step);
        WATCHER.set(Some(watcher));
        seen
    }
}
