//! A ring keeps its guarantees while nodes are killed, leave, return and join.

use std::{
    env,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use shoal_common::lock::Mutex;
use shoal_proto::dht::v1::GetRequest;
use shoal_testkit::ring::{
    RingCluster,
    load::{COUNTERS, Load, Nodes, Record},
};
use tokio::time::sleep;

/// Nodes at the start.
const NODES: usize = 16;
/// How long the ring is changed, unless `SHOAL_CHURN_SECONDS` is set.
const TROUBLE: Duration = Duration::from_secs(30);
/// How soon after the last change the nodes form one ring again.
const SOON: Duration = Duration::from_secs(5);
/// The longest time for which a key is refused.
const UNAVAILABLE: Duration = Duration::from_secs(5);
/// The grace period of a node that leaves.
const GRACE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_under_churn() {
    let trouble = env::var("SHOAL_CHURN_SECONDS").ok().and_then(|text| text.parse().ok());
    let trouble = trouble.map_or(TROUBLE, Duration::from_secs);
    // `SHOAL_CHURN_SEED` repeats the changes of a run, but not their effects.
    let seed = env::var("SHOAL_CHURN_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(rand::random);
    println!("seed {seed}");
    let mut ring = RingCluster::of(NODES).await;
    let nodes = Arc::new(Mutex::new(addresses(&ring)));
    let load = Load::start(nodes.clone(), "churn", 4, 25);
    let changes = churn(&mut ring, &nodes, trouble, StdRng::seed_from_u64(seed)).await;
    let took = ring.one(SOON).await;
    let record = load.stop(UNAVAILABLE).await;

    let verdict = record.history.judge();
    println!(
        "{changes} changes; {} writes, {} reads; one ring after {took:?}; \
         longest unavailable {:?}",
        verdict.acknowledged, verdict.read, verdict.longest_unavailable
    );
    assert!(verdict.flaws.is_empty(), "{} flaws: {:#?}", verdict.flaws.len(), verdict.flaws);
    assert!(verdict.acknowledged > 100 && verdict.read > 100, "{verdict:?}");
    assert!(verdict.longest_unavailable.0 <= UNAVAILABLE, "{verdict:?}");
    check_counters(&ring, &record).await;
}

fn addresses(ring: &RingCluster) -> Vec<String> {
    ring.running().into_iter().map(|number| ring.address(number)).collect()
}

/// Changes the ring until the time is over, with at most one node down. Returns the number of
/// changes.
async fn churn(ring: &mut RingCluster, nodes: &Nodes, trouble: Duration, mut rng: StdRng) -> usize {
    let deadline = Instant::now() + trouble;
    let mut changes = 0;
    while Instant::now() < deadline {
        changes += 1;
        let victim = *ring.running().choose(&mut rng).expect("there are nodes");
        let away = Duration::from_millis(rng.random_range(0..3000));
        match rng.random_range(0..3) {
            0 if ring.running().len() < NODES + 4 => {
                let added = ring.add();
                println!("node {added} joins");
            }
            1 => {
                without(ring, nodes, victim);
                println!("node {victim} leaves");
                ring.leave(victim, GRACE).await;
                sleep(away).await;
                ring.start(victim);
            }
            _ => {
                println!("node {victim} is killed for {away:?}");
                ring.kill(victim);
                sleep(away).await;
                ring.start(victim);
            }
        }
        // A starting node still counts as down: the next change waits for it.
        ring.one(Duration::from_secs(20)).await;
        *nodes.lock() = addresses(ring);
        sleep(Duration::from_millis(rng.random_range(0..1000))).await;
    }
    changes
}

/// Clients stop using a node before it leaves, as with a load balancer.
fn without(ring: &RingCluster, nodes: &Nodes, victim: usize) {
    let gone = ring.address(victim);
    nodes.lock().retain(|node| *node != gone);
}

/// Each counter equals the acknowledged increments, plus at most the indeterminate ones.
async fn check_counters(ring: &RingCluster, record: &Record) {
    for counter in 0..COUNTERS {
        let key = format!("counter-{counter}");
        let request = GetRequest { key: key.clone().into(), direct: false };
        let value = ring.client(0).get(request).await.expect("it exists").into_inner().value;
        let value: u64 = String::from_utf8_lossy(&value).parse().expect("it is a number");
        let sure = record.incremented[counter].load(Ordering::Relaxed);
        let indeterminate = record.indeterminate[counter].load(Ordering::Relaxed);
        println!("{key} is {value}; {sure} increments acknowledged, {indeterminate} indeterminate");
        assert!((sure..=sure + indeterminate).contains(&value), "{key}");
        assert!(sure > 0, "{key}");
    }
}
