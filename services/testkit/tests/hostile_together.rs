//! All attacks of strangers at once, during an honest download.

use std::{
    fs,
    time::{Duration, Instant},
};

use shoal_testkit::{
    cluster::{Cluster, assert_same},
    hostile::{
        Meter,
        together::{AllAttacks, Targets},
    },
    process::{Process, wait_for},
    ring::RingCluster,
};
use tokio::runtime::Runtime;

const MB: usize = 1_000_000;
/// No process has more resident memory.
const MOST: u64 = 256 << 20;
/// A seeder's uplink, which the attackers compete for.
const UPLINK: &str = "100mbit";
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn a_download_under_all_attacks_takes_at_most_three_times_as_long() {
    let runtime = Runtime::new().expect("a runtime");
    let ring = runtime.block_on(RingCluster::of(3));
    let cluster = Cluster::start();
    let node = ring.address(0);
    let seeder = cluster.peer("seeder", &["--dht", &node, "--limits-upload", UPLINK]);
    let file = cluster.file("source/data.bin", 100 * MB, 1);
    let id = seeder.publish(&file);
    let tree = cluster.path().join("tree");
    fs::create_dir_all(&tree).expect("it is created");
    for number in 0..4_000 {
        let name = format!("{number:06}{}", "x".repeat(200));
        fs::write(tree.join(name), [number as u8]).expect("it is written");
    }
    let tree = seeder.publish(&tree);

    let time_to_get = |name: &str| {
        let started = Instant::now();
        let getter = cluster.get(&id, name, &["--dht", &node]);
        let meter = Meter::start(&getter.process);
        getter.wait_for_bytes(1);
        println!("{name}: the first bytes after {:?}", started.elapsed());
        getter.completed();
        let (took, taken) = (started.elapsed(), meter.read());
        assert_same(&file, &getter.directory.join("data.bin"));
        println!("{name}: {took:?}, {taken}");
        assert!(taken.peak < MOST, "the leecher: {taken}");
        took
    };
    let undisturbed = time_to_get("undisturbed");

    let victims: [(&str, &Process); 5] = [
        ("the seeder", &seeder.process),
        ("the tracker", cluster.tracker_process()),
        ("ring node 0", ring.process(0)),
        ("ring node 1", ring.process(1)),
        ("ring node 2", ring.process(2)),
    ];
    let meters = victims.map(|(name, process)| (name, Meter::start(process)));
    let attacks = AllAttacks::start(Targets {
        tracker: cluster.tracker(),
        node: node.clone(),
        seeder: seeder.address.clone(),
        admins: vec![ring.admin(0)],
        id: id.clone(),
        tree,
    });
    wait_for("all attacks to run", PATIENCE, || {
        let rounds = attacks.rounds();
        (rounds["announces at the ring"] > 0 && rounds["empty elements"] > 0).then_some(())
    });
    let attacked = time_to_get("under attack");
    println!(
        "{:.2} times as long as undisturbed; rounds: {:?}",
        ratio(attacked, undisturbed),
        attacks.rounds()
    );
    drop(attacks);
    for (name, meter) in meters {
        let taken = meter.read();
        println!("{name}: {taken}");
        assert!(taken.peak < MOST, "{name}: {taken}");
    }
    assert!(attacked <= 3 * undisturbed, "{attacked:?} under attack, {undisturbed:?} without");
}

fn ratio(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}
