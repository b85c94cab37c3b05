//! A ring split into two halves that cannot reach each other, and then merge again.

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use shoal_common::lock::Mutex;
use shoal_proto::dht::v1::GetRequest;
use shoal_testkit::{
    interrupt::Interrupt,
    lab::LinkRate,
    network::{Link, Network, address, process_network},
    ring::{
        RingCluster, client,
        load::{COUNTERS, Load, Record},
    },
};
use tokio::{runtime::Builder, time::sleep};

const PREFIX: &str = "shoal-partition-";
/// The hosts of the two halves. The last host of each has clients only.
const HALVES: [[u32; 5]; 2] = [[0, 1, 2, 3, 8], [4, 5, 6, 7, 9]];
const NODES: u32 = 8;
/// How long clients work before and during the partition.
const BEFORE: Duration = Duration::from_secs(3);
const DURING: Duration = Duration::from_secs(12);
/// How soon after the partition there is one ring again, and each key is readable.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn two_halves_merge_without_conflicting_writes() {
    let interrupt = Interrupt::deaf().expect("a runtime");
    let unshaped = Link { up: LinkRate::UNSHAPED, down: LinkRate::UNSHAPED };
    let network = Network::new(PREFIX, &[unshaped; 10], &interrupt).expect("a network; needs root");
    let nodes = (0..NODES).map(|host| (process_network(PREFIX, host), node(host)));
    let ring = RingCluster::starting(nodes.collect());
    at(&network, 8, async || ring.settled(Duration::from_secs(30)).await);

    let (begun, ended) = (Barrier::new(3), Barrier::new(3));
    let records = thread::scope(|scope| {
        let clients = HALVES.map(|half| {
            let (network, begun, ended) = (&network, &begun, &ended);
            scope.spawn(move || at(network, half[4], async || work(&half, begun, ended).await))
        });
        begun.wait();
        thread::sleep(BEFORE);
        network.part(HALVES[1]).expect("the network is split");
        thread::sleep(DURING);
        network.heal(HALVES[1]).expect("it is healed");
        let healed = Instant::now();
        at(&network, 8, async || {
            let took = ring.one(SOON).await;
            println!("one ring {took:?} after the partition ended");
        });
        ended.wait();
        let records = clients.map(|clients| clients.join().expect("clients work"));
        println!("all keys read {:?} after the partition ended", healed.elapsed());
        records
    });

    for (half, (record, during)) in HALVES.iter().zip(&records) {
        let verdict = record.history.judge();
        println!("half of {}: {} writes, {during} while separated", half[0], verdict.acknowledged);
        assert!(verdict.flaws.is_empty(), "{} flaws: {:#?}", verdict.flaws.len(), verdict.flaws);
        assert!(*during > 0, "this half wrote nothing while separated");
    }
    at(&network, 8, async || check_counters(&records.map(|(record, _)| record)).await);
}

/// Runs clients against the nodes of one half. Returns their record, and the number of writes that
/// were acknowledged in the last half of the partition.
async fn work(half: &[u32; 5], begun: &Barrier, ended: &Barrier) -> (Arc<Record>, usize) {
    let nodes = half[..4].iter().map(|host| node(*host)).collect();
    let load = Load::start(Arc::new(Mutex::new(nodes)), &format!("half-{}", half[0]), 25, 4);
    begun.wait();
    sleep(BEFORE + DURING / 2).await;
    let acknowledged = load.record.history.judge().acknowledged;
    sleep(DURING / 2).await;
    let during = load.record.history.judge().acknowledged - acknowledged;
    ended.wait();
    (load.stop(SOON).await, during)
}

/// Runs something in the network of a host.
fn at<T: Send>(network: &Network, host: u32, work: impl AsyncFnOnce() -> T + Send) -> T {
    let run = || {
        network.enter(host).expect("the host is there");
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(work())
    };
    thread::scope(|scope| scope.spawn(run).join()).expect("it does not panic")
}

fn node(host: u32) -> String {
    format!("{}:7071", address(host))
}

/// Both halves incremented the same counters by compare-and-set: no acknowledged increment may be
/// lost.
async fn check_counters(records: &[Arc<Record>]) {
    let sum = |counts: fn(&Record) -> &[AtomicU64; COUNTERS], counter: usize| -> u64 {
        records.iter().map(|record| counts(record)[counter].load(Ordering::Relaxed)).sum()
    };
    for counter in 0..COUNTERS {
        let key = format!("counter-{counter}");
        let request = GetRequest { key: key.clone().into(), direct: false };
        let found = client(&node(0)).get(request).await.expect("it exists").into_inner();
        let value: u64 = String::from_utf8_lossy(&found.value).parse().expect("it is a number");
        let sure = sum(|record| &record.incremented, counter);
        let indeterminate = sum(|record| &record.indeterminate, counter);
        println!("{key} is {value}; {sure} increments acknowledged, {indeterminate} indeterminate");
        assert!((sure..=sure + indeterminate).contains(&value), "{key}");
    }
}
