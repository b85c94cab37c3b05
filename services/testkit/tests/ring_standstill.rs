//! A node that pauses for a moment is not dead. A test binary of its own: other tests would use the
//! processors and make the pauses longer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use shoal_common::lock::Mutex;
use shoal_proto::dht::v1::ListNodesRequest;
use shoal_testkit::ring::{Client, RingCluster};
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_secs(20);
/// How long a node pauses.
const PAUSE: Duration = Duration::from_millis(250);
/// A pause that was longer for the node's callers, on a busy machine, is not judged.
const TOO_LONG: Duration = Duration::from_millis(300);
const PAUSES: usize = 40;

/// Three successive time limits, of 50, 100 and 200 ms, add up to more than a pause. Two concurrent
/// calls and one after them time out within 150 ms: when each of these counted, about one of 40
/// such pauses was taken for a death.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_pauses_for_a_moment_is_not_declared_dead() {
    let mut ring = RingCluster::of(2).await;
    let mut other = ring.client(1);
    let since = Instant::now();
    while known(&mut other).await < 2 {
        assert!(since.elapsed() < PATIENCE, "the other node is not known");
    }
    let answers = Answers::of(ring.client(0));
    let mut judged = 0;
    for pause in 0..PAUSES {
        answers.forget();
        sleep(PAUSE).await;
        ring.pause(0);
        let since = Instant::now();
        let mut least = 2;
        while since.elapsed() < PAUSE {
            sleep(Duration::from_millis(10)).await;
            least = known(&mut other).await.min(least);
        }
        ring.resume(0);
        while since.elapsed() < 2 * PAUSE {
            sleep(Duration::from_millis(10)).await;
            least = known(&mut other).await.min(least);
        }
        let lasted = answers.longest_pause();
        if lasted <= TOO_LONG {
            judged += 1;
            assert_eq!(least, 2, "pause {pause} of {lasted:?} was taken for a death");
        }
        let since = Instant::now();
        while known(&mut other).await < 2 {
            assert!(since.elapsed() < PATIENCE, "the node is not known to be alive again");
        }
    }
    println!("{judged} of {PAUSES} pauses were short enough to judge");
    assert!(judged >= PAUSES / 2);
}

/// When a node answered; it is called all the time.
#[derive(Clone)]
struct Answers(Arc<Mutex<Vec<Instant>>>);

impl Answers {
    fn of(mut node: Client) -> Self {
        let answers = Self(Arc::default());
        let noted = answers.clone();
        tokio::spawn(async move {
            loop {
                if node.list_nodes(ListNodesRequest::default()).await.is_ok() {
                    noted.0.lock().push(Instant::now());
                }
                sleep(Duration::from_millis(5)).await;
            }
        });
        answers
    }

    fn forget(&self) {
        self.0.lock().clear();
    }

    /// The longest time between two answers, or since the last one.
    fn longest_pause(&self) -> Duration {
        let mut answers = self.0.lock().clone();
        answers.push(Instant::now());
        let pauses = answers.windows(2).map(|pair| pair[1] - pair[0]);
        pauses.max().unwrap_or(Duration::MAX)
    }
}

/// How many live nodes this one knows.
async fn known(node: &mut Client) -> usize {
    let nodes = node.list_nodes(ListNodesRequest::default()).await.expect("a list");
    nodes.into_inner().nodes.len()
}
