//! A ring serves while nodes are silent: their hosts are lost or hang, and no connection breaks.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use shoal_common::lock::Mutex;
use shoal_proto::dht::v1::{GetRequest, PutRequest};
use shoal_testkit::ring::{
    RingCluster, addressed,
    load::{Load, Nodes},
    state,
};
use tonic::Code;

/// How soon a key with two answering replicas is readable and writable again.
const SOON: Duration = Duration::from_secs(5);
/// How long a node is silent, at most.
const SILENCE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_delays_its_keys_for_seconds_and_undoes_nothing_when_it_resumes() {
    let mut ring = RingCluster::of(5).await;
    let others: Nodes = Arc::new(Mutex::new((1..5).map(|number| ring.address(number)).collect()));
    let load = Load::start(others, "silent", 4, 25);
    ring.pause(0);
    // The others have replaced it: whatever it may still send has an outdated epoch.
    ring.settled(SILENCE).await;
    load.goes_on(100, SILENCE).await;
    ring.resume(0);
    ring.settled(SILENCE).await;
    load.goes_on(100, SILENCE).await;
    let verdict = load.stop(SOON).await.history.judge();
    println!("{verdict:?}");
    assert!(verdict.flaws.is_empty(), "{:#?}", verdict.flaws);
    assert!(verdict.slowest_read.0 <= SOON, "{verdict:?}");
    assert!(verdict.acknowledged > 100 && verdict.read > 100, "{verdict:?}");
}

/// The keys of the second node still have two of three replicas; those of the first have one.
#[tokio::test(flavor = "multi_thread")]
async fn keys_with_a_majority_left_by_two_silent_nodes_are_served() {
    let mut ring = RingCluster::of(5).await;
    let order = in_order(&ring).await;
    let (silent, alive) = (&order[..2], order[2]);
    let key = key_of(&ring, silent[1]).await;
    for node in silent {
        ring.pause(*node);
    }
    let since = Instant::now();
    while put(&ring, alive, &key).await.is_err() {
        assert!(since.elapsed() < 2 * SOON, "{key} cannot be written");
    }
    let took = since.elapsed();
    println!("written after {took:?}");
    assert!(took <= SOON, "{took:?}");
}

/// No node can replace the silent one, so each renewal of the leases calls it again.
#[tokio::test(flavor = "multi_thread")]
async fn the_two_others_of_a_ring_of_three_answer_at_once_while_one_is_silent() {
    const AT_ONCE: Duration = Duration::from_millis(500);
    let mut ring = RingCluster::of(3).await;
    ring.pause(0);
    ring.settled(SOON).await;
    let until = Instant::now() + SILENCE;
    let mut number = 0;
    while Instant::now() < until {
        let key = format!("key-{number}");
        let asked = Instant::now();
        put(&ring, 1 + number % 2, &key).await.expect("two of three replicas answer");
        assert!(asked.elapsed() < AT_ONCE, "{key} took {:?} to write", asked.elapsed());
        let asked = Instant::now();
        let request = GetRequest { key: key.clone().into(), direct: false };
        ring.client(2 - number % 2).get(request).await.expect("two of three replicas answer");
        assert!(asked.elapsed() < AT_ONCE, "{key} took {:?} to read", asked.elapsed());
        number += 1;
    }
}

async fn put(ring: &RingCluster, through: usize, key: &str) -> Result<(), tonic::Status> {
    let request = PutRequest { key: key.to_owned().into(), ..PutRequest::default() };
    ring.client(through).put(request).await.map(drop)
}

/// The nodes, sorted by position.
async fn in_order(ring: &RingCluster) -> Vec<usize> {
    let mut nodes = Vec::new();
    for number in ring.running() {
        let answer = state(&mut ring.client(number)).await.expect("it answers");
        let node = answer.state.and_then(|state| state.node).expect("its state names it");
        nodes.push((node.position, number));
    }
    nodes.sort_unstable();
    nodes.into_iter().map(|(_, number)| number).collect()
}

/// A key that a node owns.
async fn key_of(ring: &RingCluster, node: usize) -> String {
    let (mut client, id) = (ring.client(node), ring.id(node).await);
    for number in 0..1000 {
        let key = format!("key-{number}");
        let request = GetRequest { key: key.clone().into(), direct: true };
        // A node that does not own the key answers otherwise.
        let answer = client.get(addressed(&id, request)).await;
        if answer.is_err_and(|status| status.code() == Code::NotFound) {
            return key;
        }
    }
    panic!("node {node} owns none of a thousand keys")
}
