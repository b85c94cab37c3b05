//! Swarms of real processes: the guarantees that users rely on.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use shoal_testkit::{
    cluster::{Cluster, Getter, PATIENCE, assert_same},
    process::wait_for,
};

const MB: usize = 1_000_000;

/// Starts eight downloads that seed afterwards, and waits until each is complete.
fn eight_get(cluster: &Cluster, id: &str) -> Vec<Getter> {
    let getters: Vec<_> =
        (0..8).map(|n| cluster.get(id, &format!("peer-{n}"), &["--seed=10m"])).collect();
    for getter in &getters {
        getter.completed();
    }
    getters
}

#[test]
fn eight_peers_get_a_file_byte_for_byte() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 64 * MB, 1);
    let seeder = cluster.seed(&file, &[]);
    for getter in eight_get(&cluster, &seeder.id) {
        assert_same(&file, &getter.directory.join("data.bin"));
        let left: Vec<_> =
            fs::read_dir(&getter.directory).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["data.bin"], "the state beside the destination was not deleted");
    }
}

#[test]
fn eight_peers_get_a_tree_of_a_thousand_small_files_and_a_big_one() {
    let cluster = Cluster::start();
    for n in 0..1000 {
        cluster.file(&format!("source/tree/dir-{}/file-{n}", n % 17), n * 7, n as u64);
    }
    cluster.file("source/tree/big.bin", 20 * MB, 5000);
    let tree = cluster.path().join("source/tree");
    fs::create_dir(tree.join("empty")).unwrap();
    let seeder = cluster.seed(&tree, &[]);
    for getter in eight_get(&cluster, &seeder.id) {
        assert_same(&tree, &getter.directory.join("tree"));
    }
}

#[test]
fn the_swarm_completes_without_its_seeder_once_another_peer_is_complete() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 64 * MB, 2);
    let mut seeder = cluster.seed(&file, &["--up", "40MB/s"]);
    let getters: Vec<_> = (0..8)
        .map(|n| cluster.get(&seeder.id, &format!("peer-{n}"), &["--seed=10m", "--up", "8MB/s"]))
        .collect();
    wait_for("one full copy", PATIENCE, || {
        getters.iter().find(|getter| getter.process.last_event("completed").is_some()).map(|_| ())
    });
    seeder.process.kill();
    for getter in &getters {
        getter.completed();
        assert_same(&file, &getter.directory.join("data.bin"));
    }
}

#[test]
fn a_download_killed_ten_times_completes_and_fetches_less_than_5_percent_twice() {
    let cluster = Cluster::start();
    let bytes = 512 * MB;
    let file = cluster.file("source/data.bin", bytes, 3);
    let mut seeder = cluster.seed(&file, &[]);
    for _ in 0..10 {
        let mut getter = cluster.get(&seeder.id, "peer", &["--down", "20MB/s"]);
        let started = Instant::now();
        getter.process.event("progress", PATIENCE);
        // A fixed time between two kills; there is no event to wait for.
        thread::sleep(Duration::from_millis(1500).saturating_sub(started.elapsed()));
        assert!(getter.process.is_running(), "{}", getter.process.stderr());
        getter.process.kill();
    }
    let getter = cluster.get(&seeder.id, "peer", &["--down", "20MB/s"]);
    getter.completed();
    assert_same(&file, &getter.directory.join("data.bin"));

    let held = getter.process.last_event("completed").unwrap();
    seeder.process.terminate();
    seeder.process.wait(PATIENCE);
    let sent = seeder.process.last_event("progress").unwrap()["uploaded_bytes"].as_u64().unwrap();
    let twice = sent as f64 / bytes as f64 - 1.0;
    assert!(twice < 0.05, "{:.1} % was fetched twice: {held}", twice * 100.0);
}

#[test]
fn a_publisher_that_stops_first_uploads_the_pieces_that_only_it_has() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 8 * MB, 9);
    let mut seeder = cluster.seed(&file, &["--up", "4MB/s"]);
    let getters: Vec<_> =
        (0..2).map(|n| cluster.get(&seeder.id, &format!("peer-{n}"), &["--seed=10m"])).collect();
    for getter in &getters {
        getter.wait_for_bytes(3 * MB as u64);
    }
    seeder.process.terminate();
    seeder.process.wait(PATIENCE);
    for getter in &getters {
        getter.completed();
        assert_same(&file, &getter.directory.join("data.bin"));
    }
}

#[test]
fn a_restart_of_the_tracker_does_not_disturb_downloads() {
    let mut cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 64 * MB, 4);
    let seeder = cluster.seed(&file, &["--up", "20MB/s"]);
    let early: Vec<_> =
        (0..4).map(|n| cluster.get(&seeder.id, &format!("early-{n}"), &["--seed=10m"])).collect();
    early[0].wait_for_bytes(5 * MB as u64);
    cluster.restart_tracker();
    for getter in &early {
        getter.completed();
        assert_same(&file, &getter.directory.join("data.bin"));
    }
    // The tracker knows the peers again after their next announces.
    let late = cluster.get(&seeder.id, "late", &[]);
    late.completed();
    assert_same(&file, &late.directory.join("data.bin"));
}

#[test]
fn a_download_with_neighbours_completes_without_a_tracker() {
    let mut cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 40 * MB, 5);
    let seeder = cluster.seed(&file, &["--up", "10MB/s"]);
    let getter = cluster.get(&seeder.id, "peer", &[]);
    getter.wait_for_bytes(2 * MB as u64);
    cluster.kill_tracker();
    getter.completed();
    assert_same(&file, &getter.directory.join("data.bin"));
}
