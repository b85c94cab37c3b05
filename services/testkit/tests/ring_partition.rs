//! A ring in two halves that cannot reach each other, and that find together again.

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
    network::{Link, Network, address, place},
    ring::{
        Ring, client,
        load::{COUNTERS, Load, Record},
    },
};
use tokio::{runtime::Builder, time::sleep};

const PREFIX: &str = "shoal-partition-";
/// The hosts of either half. The last one of each has clients only.
const HALVES: [[u32; 5]; 2] = [[0, 1, 2, 3, 8], [4, 5, 6, 7, 9]];
const NODES: u32 = 8;
/// Clients work for so long before, during and after the partition.
const BEFORE: Duration = Duration::from_secs(3);
const DURING: Duration = Duration::from_secs(12);
/// One ring again, and each key readable, so soon after the two halves can reach each other.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn two_halves_find_together_and_only_one_of_them_wrote_a_key() {
    let interrupt = Interrupt::deaf().expect("a runtime");
    let unshaped = Link { up: LinkRate::UNSHAPED, down: LinkRate::UNSHAPED };
    let network = Network::new(PREFIX, &[unshaped; 10], &interrupt).expect("a network; needs root");
    let places = (0..NODES).map(|host| (place(PREFIX, host), node(host)));
    let ring = Ring::starting(places.collect());
    at(&network, 8, async || ring.settled(Duration::from_secs(30)).await);

    let (begun, ended) = (Barrier::new(3), Barrier::new(3));
    let records = thread::scope(|scope| {
        let clients = HALVES.map(|half| {
            let (network, begun, ended) = (&network, &begun, &ended);
            scope.spawn(move || at(network, half[4], async || work(&half, begun, ended).await))
        });
        begun.wait();
        thread::sleep(BEFORE);
        network.part(HALVES[1]).expect("it is parted");
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
        println!("half of {}: {} writes, {during} while alone", half[0], verdict.acknowledged);
        assert!(verdict.flaws.is_empty(), "{} flaws: {:#?}", verdict.flaws.len(), verdict.flaws);
        assert!(*during > 0, "this half wrote nothing while it was alone");
    }
    at(&network, 8, async || check_counters(&records.map(|(record, _)| record)).await);
}

/// Works through the nodes of one half. Returns what was done, and how many writes were acknowledged
/// while the half was alone.
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

/// Runs something as if on a host.
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

/// Both halves incremented the same counters by compare-and-set: none of the increments that either
/// was told of is lost.
async fn check_counters(records: &[Arc<Record>]) {
    let sum = |counts: fn(&Record) -> &[AtomicU64; COUNTERS], counter: usize| -> u64 {
        records.iter().map(|record| counts(record)[counter].load(Ordering::Relaxed)).sum()
    };
    for counter in 0..COUNTERS {
        let key = format!("counter-{counter}");
        let request = GetRequest { key: key.clone().into(), direct: false };
        let found = client(&node(0)).get(request).await.expect("it is there").into_inner();
        let value: u64 = String::from_utf8_lossy(&found.value).parse().expect("it is a number");
        let sure = sum(|record| &record.incremented, counter);
        let doubtful = sum(|record| &record.doubtful, counter);
        println!("{key} is {value}; {sure} increments acknowledged, {doubtful} in doubt");
        assert!((sure..=sure + doubtful).contains(&value), "{key}");
    }
}
