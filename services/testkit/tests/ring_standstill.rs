//! A node that stands still for a moment is busy, not dead. Alone in its program: others would keep the
//! processors busy, and make moments longer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use shoal_common::lock::Mutex;
use shoal_proto::dht::v1::ListNodesRequest;
use shoal_testkit::ring::{Client, Ring};
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_secs(20);
/// How long a node stands still.
const MOMENT: Duration = Duration::from_millis(250);
/// A moment that lasted longer for whoever asks the node, as the machine was busy, says nothing.
const TOO_LONG: Duration = Duration::from_millis(300);
const MOMENTS: usize = 40;

/// Three waits in turn, of 50, 100 and 200 ms, are longer. Two questions at once and one after them are
/// given up in 150 ms: when each of those counted, about one of 40 such moments was taken for a death.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stands_still_for_a_moment_is_not_taken_for_dead() {
    let mut ring = Ring::of(2).await;
    let mut other = ring.client(1);
    let since = Instant::now();
    while known(&mut other).await < 2 {
        assert!(since.elapsed() < PATIENCE, "word of the other node gets round");
    }
    let answers = Answers::of(ring.client(0));
    let mut judged = 0;
    for moment in 0..MOMENTS {
        answers.forget();
        sleep(MOMENT).await;
        ring.pause(0);
        let since = Instant::now();
        let mut least = 2;
        while since.elapsed() < MOMENT {
            sleep(Duration::from_millis(10)).await;
            least = known(&mut other).await.min(least);
        }
        ring.resume(0);
        while since.elapsed() < 2 * MOMENT {
            sleep(Duration::from_millis(10)).await;
            least = known(&mut other).await.min(least);
        }
        let lasted = answers.longest_pause();
        if lasted <= TOO_LONG {
            judged += 1;
            assert_eq!(least, 2, "moment {moment} of {lasted:?} was taken for a death");
        }
        let since = Instant::now();
        while known(&mut other).await < 2 {
            assert!(since.elapsed() < PATIENCE, "it is known to live again");
        }
    }
    println!("{judged} of {MOMENTS} moments were as short as they should be");
    assert!(judged >= MOMENTS / 2);
}

/// When a node answered, that is asked all the time.
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

/// How many nodes live, as this one has heard.
async fn known(node: &mut Client) -> usize {
    let nodes = node.list_nodes(ListNodesRequest::default()).await.expect("a list");
    nodes.into_inner().nodes.len()
}
