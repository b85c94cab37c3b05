//! The tasks and threads that own state, by name: if one of them ends unexpectedly, the process
//! ends.
//!
//! A task that panics loses its state. Its senders see a closed queue, the rest of the process
//! continues, and its health reports that all is well. Therefore everything that owns state runs
//! under a [`Supervisor`]. If it ends without being told to, the process reports that it is not
//! ready, logs the task's name at ERROR, ends what it can within [`DRAIN`], and fails.
//!
//! | what | runs as | what a panic means | what a return means |
//! |---|---|---|---|
//! | a task that lasts as long as the process | [`Supervisor::spawn`], [`Supervisor::lasting`] | failure | failure, unless the process is ending |
//! | a task that its owner waits for, and that ends when its work is done | [`Jobs::spawn`], [`Supervisor::job`] | failure | nothing |
//! | an OS thread | a lasting task that waits for its end | failure | failure, unless the process is ending |
//! | a request, or a connection | a plain task | the end of that request; failure, if it held a [lock](crate::lock) that others need | nothing |

use std::{any::Any, borrow::Cow, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::error;

use crate::{
    health::Health,
    lock::{self, Mutex, MutexGuard},
};

/// How long a process may take to end its work after a part of it has failed: the 2 s that servers
/// give to open calls, and one more second.
pub const DRAIN: Duration = Duration::from_secs(3);

/// How long lasting tasks may take to end with the process. Most have to be polled once more; the
/// admin server informs the watchers of its health.
const LAST_POLL: Duration = Duration::from_secs(1);

/// Supervises the tasks and threads of a process that own state. Clones share their state.
#[derive(Clone, Debug)]
pub struct Supervisor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    health: Health,
    /// Cancelled when tasks may return.
    ending: CancellationToken,
    /// Cancelled once `failure` is set.
    failed: CancellationToken,
    failure: Mutex<Option<Failure>>,
    tasks: TaskTracker,
}

/// A task or thread that owns state ended without being told to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{task} {how}; the process cannot go on without it, start it again")]
pub struct Failure {
    task: Cow<'static, str>,
    how: How,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum How {
    Returned,
    Panicked(String),
    Poisoned,
}

impl std::fmt::Display for How {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Returned => f.write_str("ended by itself"),
            Self::Panicked(message) => write!(f, "panicked: {message}"),
            Self::Poisoned => f.write_str("was held by a thread that panicked"),
        }
    }
}

impl How {
    fn panicked(payload: &(dyn Any + Send)) -> Self {
        let message = payload.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| payload.downcast_ref::<&str>().copied());
        Self::Panicked(message.unwrap_or("for an unknown reason").to_owned())
    }
}

impl Supervisor {
    /// Supervises a process, and reports its health.
    pub fn new(health: Health) -> Self {
        Self(Arc::new(Inner {
            health,
            ending: CancellationToken::new(),
            failed: CancellationToken::new(),
            failure: Mutex::default(),
            tasks: TaskTracker::new(),
        }))
    }

    /// The health of the process.
    pub fn health(&self) -> &Health {
        &self.0.health
    }

    /// Cancelled when the process ends in order: from then on tasks may return.
    pub fn ending(&self) -> &CancellationToken {
        &self.0.ending
    }

    /// Runs a task on the current runtime until the process ends, when it is dropped.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let ending = self.0.ending.clone();
        let task = async move {
            ending.run_until_cancelled_owned(task).await;
        };
        tokio::spawn(self.lasting(name, task));
    }

    /// A task that lasts as long as the process, and notices the end itself; to be spawned.
    pub fn lasting<F>(
        &self,
        name: &'static str,
        task: F,
    ) -> impl Future<Output = ()> + Send + use<F>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let supervisor = self.clone();
        let task = supervisor.job(name, task);
        let tracked = self.0.tasks.token();
        async move {
            task.await;
            if !supervisor.0.ending.is_cancelled() {
                supervisor.fail(name.into(), How::Returned);
            }
            drop(tracked);
        }
    }

    /// A task that may end when its work is done, but must not panic; to be spawned.
    pub fn job<F>(&self, name: &'static str, task: F) -> impl Future<Output = ()> + Send + use<F>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let supervisor = self.clone();
        #[cfg(feature = "faults")]
        let task = crate::runtime::faults::struck(name, task);
        async move {
            // The state of the task is not used again: the process ends.
            if let Err(payload) = AssertUnwindSafe(task).catch_unwind().await {
                supervisor.fail(name.into(), How::panicked(&*payload));
            }
        }
    }

    /// A group of jobs that their owner can wait for.
    pub fn jobs(&self) -> Jobs {
        Jobs { supervisor: self.clone(), tasks: TaskTracker::new() }
    }

    /// Runs `life`, the work of the process, to its end, and then ends its tasks.
    ///
    /// If a part of the process fails meanwhile, its health is closed, `stop` is cancelled, and
    /// `life` is given [`DRAIN`] to end: then the failure is returned, whatever `life` returns.
    pub async fn supervise<E: From<Failure>>(
        &self,
        stop: &CancellationToken,
        life: impl Future<Output = Result<(), E>>,
    ) -> Result<(), E> {
        let mut life = std::pin::pin!(life);
        let failed = async {
            tokio::select! {
                () = self.0.failed.cancelled() => {}
                () = lock::poisoned().cancelled() => self.fail("a lock".into(), How::Poisoned),
            }
        };
        let lived = tokio::select! {
            () = failed => {
                self.0.health.close().await;
                stop.cancel();
                // The failure is returned; an interrupted life has nothing better to report.
                let _ = timeout(DRAIN, life).await;
                Ok(())
            }
            lived = &mut life => lived,
        };
        self.0.ending.cancel();
        self.0.tasks.close();
        // A task that does not notice is ended with its runtime.
        let _ = timeout(LAST_POLL, self.0.tasks.wait()).await;
        match self.failure().take() {
            Some(failure) => Err(failure.into()),
            None => lived,
        }
    }

    fn fail(&self, task: Cow<'static, str>, how: How) {
        error!(task = &*task, error = %how, "a part of the process failed, so the process ends");
        let mut failure = self.failure();
        // One is reported. A task that panics closes its queues before the panic is caught, so
        // tasks that return for that reason may be noticed first.
        let is_worse = |known: &Failure| known.how == How::Returned && how != How::Returned;
        if failure.as_ref().is_none_or(is_worse) {
            *failure = Some(Failure { task, how });
        }
        drop(failure);
        self.0.failed.cancel();
    }

    fn failure(&self) -> MutexGuard<'_, Option<Failure>> {
        self.0.failure.lock()
    }
}

/// Jobs of one owner, which can wait for them. Clones share the group.
#[derive(Clone, Debug)]
pub struct Jobs {
    supervisor: Supervisor,
    tasks: TaskTracker,
}

impl Jobs {
    /// Runs a job on the current runtime: see [`Supervisor::job`].
    pub fn spawn(&self, name: &'static str, job: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.supervisor.job(name, job));
    }

    /// Waits until all jobs have ended.
    pub async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::sync::oneshot;

    use super::*;
    use crate::health::tests::is_ready;

    async fn ready() -> (Supervisor, Health) {
        let health = Health::new(&["shoal.test.Service"]).await;
        health.ready().await;
        (Supervisor::new(health.clone()), health)
    }

    /// A life that ends when it is told to stop.
    async fn live(stop: &CancellationToken) -> Result<(), Failure> {
        stop.cancelled().await;
        Ok(())
    }

    fn failure(task: &'static str, how: How) -> Result<(), Failure> {
        Err(Failure { task: task.into(), how })
    }

    #[tokio::test]
    async fn a_task_that_panics_ends_the_process_and_its_health() {
        let (supervisor, health) = ready().await;
        let stop = CancellationToken::new();
        supervisor.spawn("engine", async { panic!("at piece {}", 7) });
        let lived = supervisor.supervise(&stop, live(&stop)).await;
        assert_eq!(lived, failure("engine", How::Panicked("at piece 7".to_owned())));
        assert!(stop.is_cancelled());
        assert!(!is_ready(&health).await);
        // A late report of readiness does not revive it.
        health.ready().await;
        assert!(!is_ready(&health).await);
    }

    #[tokio::test]
    async fn a_task_that_lasts_as_long_as_the_process_may_not_return_before() {
        let (supervisor, health) = ready().await;
        let stop = CancellationToken::new();
        supervisor.spawn("reconciler", async {});
        let lived = supervisor.supervise(&stop, live(&stop)).await;
        assert_eq!(lived, failure("reconciler", How::Returned));
        assert!(!is_ready(&health).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_follows_from_a_panic_is_not_told_in_its_place() {
        let (supervisor, _) = ready().await;
        let stop = CancellationToken::new();
        let (tell, told) = oneshot::channel::<()>();
        supervisor.spawn("listener", async { drop(told.await) });
        let life = async {
            // The end of the listener is seen before the panic of its sender.
            supervisor.0.failed.cancelled().await;
            supervisor.jobs().spawn("teller", async { panic!("gone") });
            pending().await
        };
        drop(tell);
        let lived = timeout(DRAIN * 2, supervisor.supervise(&stop, life)).await.expect("in time");
        assert_eq!(lived, failure("teller", How::Panicked("gone".to_owned())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_life_that_does_not_end_after_a_failure_is_cut_short() {
        let (supervisor, _) = ready().await;
        let begun = tokio::time::Instant::now();
        supervisor.spawn("engine", async { panic!("gone") });
        let life = pending::<Result<(), Failure>>();
        let lived = supervisor.supervise(&CancellationToken::new(), life).await;
        assert_eq!(lived, failure("engine", How::Panicked("gone".to_owned())));
        assert_eq!(begun.elapsed(), DRAIN);
    }

    #[tokio::test]
    async fn a_failure_while_the_process_ends_is_one_too() {
        let (supervisor, _) = ready().await;
        let jobs = supervisor.jobs();
        let (tell, told) = oneshot::channel::<()>();
        jobs.spawn("farewell", async move { told.await.expect("it is told") });
        let life = async {
            supervisor.ending().cancel();
            drop(tell);
            jobs.ended().await;
            Ok(())
        };
        let lived = supervisor.supervise(&CancellationToken::new(), life).await;
        assert!(matches!(lived, Err(Failure { how: How::Panicked(_), .. })), "{lived:?}");
    }

    #[tokio::test]
    async fn a_process_that_ends_in_order_has_not_failed() {
        let (supervisor, _) = ready().await;
        let ending = supervisor.ending().clone();
        supervisor.spawn("engine", pending());
        tokio::spawn(supervisor.lasting("server", ending.cancelled_owned()));
        supervisor.jobs().spawn("reconfiguration", async {});
        let lived: Result<(), Failure> = supervisor
            .supervise(&CancellationToken::new(), async {
                tokio::task::yield_now().await;
                Ok(())
            })
            .await;
        assert_eq!(lived, Ok(()));
    }
}
