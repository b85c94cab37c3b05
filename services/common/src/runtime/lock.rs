//! The locks of the standard library, with one policy for all of them: a thread that panics while
//! it holds a lock has left its data half changed, so no thread may use them any more, and the
//! process ends.
//!
//! The next thread that takes such a lock panics as well, and [`poisoned`] tells the process's
//! [`Supervisor`](crate::supervisor::Supervisor), which reports that the process is not ready, and
//! fails. See [ADR 11](../../../docs/adr/0011-a-poisoned-lock-ends-the-process.md).

// The only place that may name them.
#![allow(clippy::disallowed_types)]

pub use std::sync::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};
use std::{
    sync::{self, LazyLock, LockResult},
    thread,
    time::Duration,
};

use tokio_util::sync::CancellationToken;

static POISONED: LazyLock<CancellationToken> = LazyLock::new(CancellationToken::new);

/// Cancelled once a thread has found a lock whose holder had panicked, or a [`Change`] was
/// interrupted.
pub fn poisoned() -> &'static CancellationToken {
    &POISONED
}

/// [`sync::Mutex`]. All methods that lock panic if a holder has panicked.
#[derive(Debug, Default)]
pub struct Mutex<T>(sync::Mutex<T>);

impl<T> Mutex<T> {
    /// See [`sync::Mutex::new`].
    pub const fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    /// See [`sync::Mutex::lock`].
    pub fn lock(&self) -> MutexGuard<'_, T> {
        enter(self.0.lock())
    }

    /// Whether it is not held at the moment, for tests.
    pub fn is_free(&self) -> bool {
        self.0.try_lock().is_ok()
    }

    /// See [`sync::Mutex::into_inner`].
    pub fn into_inner(self) -> T {
        enter(self.0.into_inner())
    }
}

/// [`sync::RwLock`]. All methods that lock panic if a writer has panicked.
#[derive(Debug, Default)]
pub struct RwLock<T>(sync::RwLock<T>);

impl<T> RwLock<T> {
    /// See [`sync::RwLock::new`].
    pub const fn new(value: T) -> Self {
        Self(sync::RwLock::new(value))
    }

    /// See [`sync::RwLock::read`].
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        enter(self.0.read())
    }

    /// See [`sync::RwLock::write`].
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        enter(self.0.write())
    }
}

/// [`sync::Condvar`]. Waiting panics if a holder of the mutex has panicked in the meantime.
#[derive(Debug, Default)]
pub struct Condvar(sync::Condvar);

impl Condvar {
    /// See [`sync::Condvar::wait`].
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        enter(self.0.wait(guard))
    }

    /// See [`sync::Condvar::wait_timeout`]. The caller's clock tells whether the time is over.
    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> MutexGuard<'a, T> {
        enter(self.0.wait_timeout(guard, timeout)).0
    }

    /// See [`sync::Condvar::notify_all`].
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// A change that spans a time without a lock, such as a mark that is set now and cleared later. A
/// panic that drops it leaves the change half done, and ends the process as a poisoned lock does.
#[derive(Debug)]
pub struct Change;

impl Drop for Change {
    fn drop(&mut self) {
        if thread::panicking() {
            POISONED.cancel();
        }
    }
}

fn enter<G>(entered: LockResult<G>) -> G {
    entered.unwrap_or_else(|poison| {
        POISONED.cancel();
        // A second panic during unwinding would abort the process before it could report the cause.
        assert!(thread::panicking(), "a thread panicked while it held this lock");
        poison.into_inner()
    })
}
