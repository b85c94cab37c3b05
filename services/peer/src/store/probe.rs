//! The steps of slow disk work, for tests: a test can observe each step, or make it fail.

/// A step that is about to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Writing bytes of a file.
    Write,
    /// Syncing the bytes of a file.
    SyncData,
    /// Syncing the log of the pieces held.
    SyncLog,
    /// Syncing a directory.
    SyncDirectory,
    /// Committing a transaction of the database.
    Commit,
    /// Deleting a directory with everything in it.
    Delete,
    /// Restoring the mode or the time of a file.
    Restore,
    /// Syncing a tree before it is moved to its destination.
    SyncTree,
}

#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "in tests a step can fail")]
pub(super) const fn reach(_: Step) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(super) use watched::{reach, watch};

#[cfg(test)]
mod watched {
    use std::{cell::RefCell, io};

    use crate::store::probe::Step;

    type Watcher = Box<dyn FnMut(Step) -> io::Result<()>>;

    thread_local! {
        static WATCHER: RefCell<Option<Watcher>> = const { RefCell::new(None) };
    }

    /// Calls `watcher` at the steps of this thread while `work` runs, except at the watcher's own.
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
