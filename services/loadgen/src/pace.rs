//! When calls are made. In a closed loop, each caller waits for its answer before it calls again.
//! In an open loop, calls are due at fixed times, and latency counts from then: a stall of the
//! server adds to the latency of all calls due meanwhile, not only of the few in flight (Tene's
//! "coordinated omission").

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use shoal_common::lock::Mutex;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::record::{Operation, Outcome, Record};

/// The pause of a caller in a closed loop after a failure: immediate refusals must not cause a
/// flood of calls.
const AFTER_FAILURE: Duration = Duration::from_millis(10);

/// How often the pacer checks whether it must end.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// How calls are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Calls that are due in a second; none means a closed loop.
    pub(crate) rate: Option<u64>,
    /// The number of callers.
    pub(crate) concurrency: u32,
    /// How long calls are made, or are due.
    pub(crate) duration: Duration,
    /// The most calls.
    pub(crate) calls: u64,
    /// The longest wait for an answer. Calls that are due may begin this long after `duration`.
    pub(crate) timeout: Duration,
}

/// Something to call.
pub(crate) trait Target: Send + Sync + 'static {
    /// The kind of the call with this number.
    fn operation(&self, number: u64) -> Operation;

    /// Makes the call with this number, and returns the bytes of the answer.
    fn call(&self, number: u64) -> impl Future<Output = Result<u64, Status>> + Send;
}

/// The outcome of the calls.
pub(crate) struct Run {
    pub(crate) record: Record,
    pub(crate) took: Duration,
}

/// State shared by the callers.
struct Shared<T> {
    target: T,
    pace: Pace,
    start: Instant,
    begun: AtomicU64,
    record: Mutex<Record>,
    end: CancellationToken,
}

/// Makes calls at this pace, until its end or `end`.
pub(crate) async fn run(target: impl Target, pace: Pace, end: &CancellationToken) -> Run {
    let shared = Arc::new(Shared {
        target,
        pace,
        start: Instant::now(),
        begun: AtomicU64::new(0),
        record: Mutex::default(),
        end: end.clone(),
    });
    match pace.rate {
        None => shared.closed().await,
        Some(rate) => shared.open(rate).await,
    }
    let took = shared.start.elapsed();
    let mut record = shared.record.lock();
    Run { record: std::mem::take(&mut record), took }
}

impl<T: Target> Shared<T> {
    async fn closed(self: &Arc<Self>) {
        let callers = (0..self.pace.concurrency).map(|_| {
            let shared = self.clone();
            async move {
                while shared.start.elapsed() < shared.pace.duration {
                    let number = shared.begun.fetch_add(1, Ordering::Relaxed);
                    if number >= shared.pace.calls {
                        break;
                    }
                    match shared.call(number, Instant::now()).await {
                        None => break,
                        Some(Outcome::Answered(_)) => {}
                        Some(_) => sleep(AFTER_FAILURE).await,
                    }
                }
            }
        });
        callers.collect::<JoinSet<_>>().join_all().await;
    }

    async fn open(self: &Arc<Self>, rate: u64) {
        let in_time = self.pace.duration.as_secs_f64() * rate as f64;
        let total = (in_time.ceil() as u64).min(self.pace.calls);
        let due = Arc::new(Semaphore::new(0));
        let callers = (0..self.pace.concurrency).map(|_| {
            let (shared, due) = (self.clone(), due.clone());
            async move {
                while let Some(Ok(permit)) = shared.end.run_until_cancelled(due.acquire()).await {
                    permit.forget();
                    let number = shared.begun.fetch_add(1, Ordering::Relaxed);
                    if number >= total {
                        break;
                    }
                    let intended = shared.start + time_of(number, rate);
                    if shared.start.elapsed() > shared.pace.duration + shared.pace.timeout {
                        shared.note(number, intended, Outcome::NotBegun);
                    } else if shared.call(number, intended).await.is_none() {
                        break;
                    }
                }
            }
        });
        let callers: JoinSet<_> = callers.collect();
        let shared = self.clone();
        // A thread of its own, because tokio's timers have a resolution of 1 ms.
        let pacer = thread::spawn(move || shared.release(rate, total, &due));
        callers.join_all().await;
        // It ends with the last call that was due, or soon after `end`.
        let _ = tokio::task::spawn_blocking(move || pacer.join()).await;
    }

    /// Releases each call to a caller when it is due.
    fn release(&self, rate: u64, total: u64, due: &Semaphore) {
        let mut released = 0;
        while released < total && !self.end.is_cancelled() {
            let elapsed = self.start.elapsed();
            let now_due = ((elapsed.as_secs_f64() * rate as f64) as u64 + 1).min(total);
            if now_due > released {
                due.add_permits((now_due - released) as usize);
                released = now_due;
            }
            let wait = time_of(released, rate).saturating_sub(self.start.elapsed());
            thread::sleep(wait.min(CHECK_INTERVAL));
        }
        // Each caller takes one more permit, and finds that no call is left.
        due.add_permits(self.pace.concurrency as usize);
    }

    /// Makes a call that was due at `intended`; none if it was cancelled.
    async fn call(&self, number: u64, intended: Instant) -> Option<Outcome> {
        let called = timeout(self.pace.timeout, self.target.call(number));
        let outcome = match self.end.run_until_cancelled(called).await? {
            Ok(Ok(bytes)) => Outcome::Answered(bytes),
            Ok(Err(status)) => Outcome::Failed(status.code()),
            Err(_) => Outcome::Failed(Code::DeadlineExceeded),
        };
        self.note(number, intended, outcome);
        Some(outcome)
    }

    fn note(&self, number: u64, intended: Instant, outcome: Outcome) {
        let at = intended.saturating_duration_since(self.start);
        let took = intended.elapsed();
        let operation = self.target.operation(number);
        let mut record = self.record.lock();
        record.note(operation, at, took, outcome);
    }
}

/// The time from the start until a call is due.
fn time_of(number: u64, rate: u64) -> Duration {
    Duration::from_secs_f64(number as f64 / rate as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::NOT_BEGUN;

    /// Answers at once, except between two points in time.
    struct Stalling {
        started: Instant,
        from: Duration,
        to: Duration,
    }

    impl Stalling {
        fn new(from_ms: u64, to_ms: u64) -> Self {
            let (from, to) = (Duration::from_millis(from_ms), Duration::from_millis(to_ms));
            Self { started: Instant::now(), from, to }
        }
    }

    impl Target for Stalling {
        fn operation(&self, _: u64) -> Operation {
            Operation::Echo
        }

        async fn call(&self, _: u64) -> Result<u64, Status> {
            let now = self.started.elapsed();
            if (self.from..self.to).contains(&now) {
                sleep(self.to.saturating_sub(now)).await;
            }
            Ok(1)
        }
    }

    /// Refuses everything.
    struct Refusing;

    impl Target for Refusing {
        fn operation(&self, _: u64) -> Operation {
            Operation::Echo
        }

        async fn call(&self, _: u64) -> Result<u64, Status> {
            Err(Status::resource_exhausted("no"))
        }
    }

    fn pace(rate: Option<u64>, concurrency: u32, millis: u64) -> Pace {
        let (duration, timeout) = (Duration::from_millis(millis), Duration::from_secs(10));
        Pace { rate, concurrency, duration, calls: u64::MAX, timeout }
    }

    fn quantile_ms(run: &Run, quantile: f64) -> f64 {
        run.record.total().latency.value_at_quantile(quantile) as f64 / 1e3
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stall_adds_to_the_latency_of_every_call_due_meanwhile() {
        let end = CancellationToken::new();
        let run = run(Stalling::new(300, 700), pace(Some(500), 4, 1000), &end).await;
        assert_eq!(run.record.answered(), 500);
        // 40 % of the calls were due during the stall, a quarter of them in its first 100 ms.
        assert!(quantile_ms(&run, 0.9) >= 290.0, "{}", quantile_ms(&run, 0.9));
        assert!(quantile_ms(&run, 0.65) >= 40.0, "{}", quantile_ms(&run, 0.65));
        assert!(quantile_ms(&run, 0.999) >= 390.0, "{}", quantile_ms(&run, 0.999));
        // Calls belong to the second in which they were due.
        assert_eq!(run.record.seconds.keys().copied().collect::<Vec<_>>(), [0]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn calls_that_did_not_begin_before_the_end_are_counted() {
        let end = CancellationToken::new();
        let timeout = Duration::from_millis(100);
        let pace = Pace { timeout, ..pace(Some(100), 2, 400) };
        let run = run(Stalling::new(0, 10_000), pace, &end).await;
        let total = run.record.total();
        assert_eq!(total.failed(), 40, "{total:?}");
        // Two callers, each of which waits for 100 ms, begin at most 10 in the 500 ms.
        assert!((1..=12).contains(&total.errors["DEADLINE_EXCEEDED"]), "{total:?}");
        assert!(total.errors[NOT_BEGUN] >= 28, "{total:?}");
        assert!(run.took < Duration::from_secs(5), "{:?}", run.took);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_closed_loop_ends_in_time_or_after_its_calls() {
        let end = CancellationToken::new();
        let few = Pace { calls: 100, ..pace(None, 8, 60_000) };
        assert_eq!(run(Stalling::new(0, 0), few, &end).await.record.answered(), 100);
        let refused = run(Refusing, pace(None, 2, 200), &end).await;
        let total = refused.record.total();
        assert_eq!(refused.record.answered(), 0);
        // Two callers that wait for 10 ms after each refusal.
        assert!((1..=42).contains(&total.errors["RESOURCE_EXHAUSTED"]), "{total:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn cancelling_ends_a_run() {
        for rate in [None, Some(10)] {
            let end = CancellationToken::new();
            let ending = end.clone();
            let cancel = async move {
                sleep(Duration::from_millis(100)).await;
                ending.cancel();
            };
            let pace = pace(rate, 2, 600_000);
            let (run, ()) = tokio::join!(run(Stalling::new(50, 600_000), pace, &end), cancel);
            assert!(run.took < Duration::from_secs(5), "{:?}", run.took);
        }
    }
}
