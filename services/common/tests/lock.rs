//! A lock whose holder panicked. A test binary of its own: a poisoned lock affects the whole
//! process.

use std::{panic, sync::Arc, thread, time::Duration};

use shoal_common::{
    health::Health,
    lock::{Mutex, poisoned},
    supervisor::{Failure, Supervisor},
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_request_that_panics_while_it_holds_a_lock_ends_the_process() {
    let health = Health::new(&["shoal.test"]).await;
    let supervisor = Supervisor::new(health.clone());
    let stop = CancellationToken::new();
    let state = Arc::new(Mutex::new(vec![1, 2]));
    let guarded = tokio::spawn({
        let (supervisor, stop) = (supervisor.clone(), stop.clone());
        async move {
            let stopped = stop.clone();
            let life = async move {
                stopped.cancelled().await;
                Ok::<_, Failure>(())
            };
            supervisor.supervise(&stop, life).await
        }
    });

    // A panic without a lock ends only the request.
    let request = tokio::spawn(async { panic!("without a lock") });
    assert!(request.await.is_err());
    assert!(!poisoned().is_cancelled());

    let held = Arc::clone(&state);
    let request = tokio::spawn(async move {
        let mut state = held.lock();
        state.pop();
        panic!("in the middle of a change");
    });
    assert!(request.await.is_err());
    // Half-changed state is never read: taking the lock panics.
    let next = Arc::clone(&state);
    let refused = thread::spawn(move || next.lock().len()).join();
    assert!(refused.is_err());
    // A thread that unwinds may still take the lock, to clean up.
    let last = Arc::clone(&state);
    let unwound = panic::catch_unwind(move || {
        let _cleanup = CleanUp(last);
        panic!("with something to clean up");
    });
    assert!(unwound.is_err());

    let ended = timeout(Duration::from_secs(10), guarded).await.expect("it ends by itself");
    let failure = ended.expect("it does not panic").expect_err("it failed");
    assert!(
        failure.to_string().starts_with("a lock was held by a thread that panicked"),
        "{failure}"
    );
    assert!(stop.is_cancelled());
}

struct CleanUp(Arc<Mutex<Vec<i32>>>);

impl Drop for CleanUp {
    fn drop(&mut self) {
        self.0.lock().clear();
    }
}
