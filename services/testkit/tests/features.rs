//! Options of downloads, limits, and the quota.

use std::{
    collections::BTreeSet,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;
use shoal_proto::control::v1::FetchRequest;
use shoal_testkit::{
    cluster::{Cluster, PATIENCE, assert_same},
    daemon::Peer,
    process::{Process, wait_for},
};

const MB: usize = 1_000_000;

/// Pieces that may be in flight at a few megabytes a second.
const UNDER_WAY: u32 = 8;

/// The pieces of a content in the order in which a peer received them, batch by batch.
fn arrivals(peer: &Peer, id: &str) -> Vec<Vec<u32>> {
    let mut batches = Vec::new();
    for change in peer.watch(id) {
        let status = change.status.expect("it has a status");
        if !change.new_pieces.is_empty() {
            batches.push(change.new_pieces);
        }
        if status.state() == shoal_proto::control::v1::ContentState::Seeding {
            break;
        }
    }
    batches
}

/// Pairs from the progress of a download: seconds since 1970, and bytes received until then.
struct Received(Vec<(f64, f64)>);

impl Received {
    fn of(process: &Process) -> Self {
        let events = process.stdout().into_iter().filter_map(|line| {
            let event: Value = serde_json::from_str(&line).ok()?;
            let at = event["unix_ms"].as_f64()? / 1000.0;
            Some((at, event["downloaded_bytes"].as_f64()?))
        });
        Self(events.collect())
    }

    /// When so many bytes had been received.
    fn time_of(&self, bytes: f64) -> f64 {
        let after =
            self.0.iter().position(|(_, have)| *have >= bytes).expect("so many were received");
        let ((t0, b0), (t1, b1)) = (self.0[after.saturating_sub(1)], self.0[after]);
        if b1 > b0 { t0 + (t1 - t0) * (bytes - b0) / (b1 - b0) } else { t1 }
    }

    /// How many bytes had been received at a time.
    fn bytes_at(&self, at: f64) -> f64 {
        let after = self.0.iter().position(|(time, _)| *time >= at).unwrap_or(self.0.len() - 1);
        let ((t0, b0), (t1, b1)) = (self.0[after.saturating_sub(1)], self.0[after]);
        if t1 > t0 { b0 + (b1 - b0) * (at - t0) / (t1 - t0) } else { b1 }
    }

    /// Bytes a second between the first and the last tenth of `total` bytes.
    fn steady_rate(&self, total: f64) -> f64 {
        0.8 * total / (self.time_of(0.9 * total) - self.time_of(0.1 * total))
    }
}

fn assert_within_3_percent(rate: f64, cap: f64) {
    assert!((rate / cap - 1.0).abs() < 0.03, "{rate:.0} bytes/s under a cap of {cap:.0}");
}

#[test]
fn in_sequential_mode_pieces_arrive_in_order() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 8 * MB, 1);
    let seeder = cluster.seed(&file, &["--up", "8MB/s"]);
    let peer = cluster.peer("peer", &[]);
    let id = seeder.id.clone();
    peer.fetch_as(FetchRequest { content_id: id, sequential: true, ..FetchRequest::default() })
        .expect("the fetch starts");
    let batches = arrivals(&peer, &seeder.id);
    assert!(batches.len() >= 5, "too few batches: {batches:?}");
    // The piece of the manifest came with it.
    let (mut held, mut first_missing) = (BTreeSet::new(), 1);
    for batch in batches {
        held.extend(batch);
        while held.contains(&first_missing) {
            first_missing += 1;
        }
        let last = *held.last().expect("a piece was received");
        assert!(last < first_missing + UNDER_WAY, "piece {last} came before {first_missing}");
    }
    assert_same(&file, &peer.data_of(&seeder.id));
}

#[test]
fn files_arrive_by_priority_and_skipped_files_never() {
    let cluster = Cluster::start();
    for (seed, name) in ["a-low", "b-skipped", "c-normal", "d-high"].iter().enumerate() {
        cluster.file(&format!("source/tree/{name}"), 2 * MB, seed as u64);
    }
    let tree = cluster.path().join("source/tree");
    let seeder = cluster.seed(&tree, &["--up", "6MB/s"]);
    let peer = cluster.peer("peer", &[]);
    let wanted = ["--priority", "a-low=low", "--priority", "d-high=high"];
    let skipped = ["--priority", "b-skipped=skip"];
    peer.answer(&[&["fetch", &seeder.id, "--detach"][..], &wanted, &skipped].concat());
    let batches = arrivals(&peer, &seeder.id);
    let status = peer.wait_until_complete(&seeder.id);
    // The first piece is that of the manifest.
    let pieces_per_file = (status.piece_count - 1) / 4;
    assert_eq!(status.held_pieces, 1 + 3 * pieces_per_file);

    // The pieces of one batch have no order.
    let batch_of = |file: u32| {
        let of_file = |piece: &u32| *piece > 0 && (piece - 1) / pieces_per_file == file;
        let of_file = |batch: &Vec<u32>| batch.iter().any(of_file);
        let first = batches.iter().position(of_file);
        (first, batches.iter().rposition(of_file))
    };
    let ((low, _), (skipped, _), (normal, last_normal), (_, last_high)) =
        (batch_of(0), batch_of(1), batch_of(2), batch_of(3));
    assert!(last_high <= normal && last_normal <= low, "{batches:?}");
    assert_eq!(skipped, None);

    // A fetch with an export gets the skipped file too.
    let copy = cluster.path().join("copy");
    let copy_path = copy.to_str().expect("the paths of tests are UTF-8");
    peer.answer(&["fetch", &seeder.id, "--to", copy_path]);
    assert_same(&tree, &copy);
}

#[test]
fn a_super_seeder_sends_about_one_copy() {
    let cluster = Cluster::start();
    let size = 16 * MB;
    let file = cluster.file("source/data.bin", size, 2);
    let mut seeder = cluster.seed(&file, &["--super-seeding", "--up", "16MB/s"]);
    let getters: Vec<_> =
        (0..4).map(|n| cluster.get(&seeder.id, &format!("peer-{n}"), &["--seed=10m"])).collect();
    for getter in &getters {
        getter.completed();
        assert_same(&file, &getter.directory.join("data.bin"));
    }
    seeder.process.terminate();
    seeder.process.wait(PATIENCE);
    let last = seeder.process.last_event("progress").expect("it reports progress");
    let sent = last["uploaded_bytes"].as_f64().expect("it reports the bytes sent");
    assert!(sent < 1.5 * size as f64, "{sent} bytes were sent of a file of {size}");
}

#[test]
fn an_upload_cap_is_reached_within_3_percent() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 40 * MB, 3);
    let seeder = cluster.seed(&file, &["--up", "10MB/s"]);
    let getter = cluster.get(&seeder.id, "peer", &[]);
    getter.completed();
    let received = Received::of(&getter.process);
    assert_within_3_percent(received.steady_rate(40e6), 10e6);
}

#[test]
fn a_download_cap_is_reached_within_3_percent() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 40 * MB, 4);
    let seeder = cluster.seed(&file, &[]);
    let getter = cluster.get(&seeder.id, "peer", &["--down", "10MB/s"]);
    getter.completed();
    let received = Received::of(&getter.process);
    assert_within_3_percent(received.steady_rate(40e6), 10e6);
}

#[test]
fn two_contents_share_the_cap_of_one_peer() {
    let cluster = Cluster::start();
    let peer = cluster.peer("seeder", &["--limits-upload", "8MB/s"]);
    let size = 16 * MB;
    let files = ["one", "other"]
        .map(|name| cluster.file(&format!("source/{name}.bin"), size, name.len() as u64));
    let ids = files.clone().map(|file| peer.publish(&file));
    let getters = [0, 1].map(|n| cluster.get(&ids[n], &format!("peer-{n}"), &[]));
    for getter in &getters {
        getter.completed();
    }
    let received = getters.each_ref().map(|getter| Received::of(&getter.process));
    let total = size as f64;
    let began = received[0].time_of(0.1 * total).max(received[1].time_of(0.1 * total));
    let ended = received[0].time_of(0.9 * total).min(received[1].time_of(0.9 * total));
    let rates = received
        .each_ref()
        .map(|received| (received.bytes_at(ended) - received.bytes_at(began)) / (ended - began));
    assert_within_3_percent(rates[0] + rates[1], 8e6);
    assert!(rates.iter().all(|rate| *rate > 2e6), "one of them starves: {rates:?}");
    for (file, getter) in files.iter().zip(&getters) {
        assert_same(file, &getter.directory.join(file.file_name().expect("it has a name")));
    }
}

#[test]
fn the_least_recently_used_unpinned_content_is_evicted() {
    let cluster = Cluster::start();
    let peer = cluster.peer("peer", &["--limits-quota", "5MB"]);
    let files: Vec<_> =
        (0..5).map(|n| cluster.file(&format!("source/{n}.bin"), 2 * MB, n)).collect();
    let here = |ids: &[&String]| {
        let mut expected: Vec<_> = ids.iter().map(ToString::to_string).collect();
        expected.sort();
        wait_for("the eviction", Duration::from_secs(5), || {
            let mut held: Vec<_> = peer.list().into_iter().map(|s| s.content_id).collect();
            held.sort();
            (held == expected).then_some(())
        });
    };
    let first = peer.publish(&files[0]);
    let second = peer.publish(&files[1]);
    // A content that is stored already needs no room; publishing it counts as a use.
    assert_eq!(peer.publish(&files[0]), first);
    here(&[&first, &second]);
    peer.answer(&["fetch", &first]);
    let third = peer.publish(&files[2]);
    here(&[&first, &third]);
    peer.answer(&["pin", &first]);
    peer.answer(&["fetch", &third]);
    let fourth = peer.publish(&files[3]);
    here(&[&first, &fourth]);

    peer.answer(&["pin", &fourth]);
    let refused = peer.shoal(&["publish", files[4].to_str().expect("UTF-8")]);
    assert_eq!(refused.status.code(), Some(5));
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains("quota"), "{message}");
    peer.answer(&["pin", "--off", &fourth]);
    let fifth = peer.publish(&files[4]);
    here(&[&first, &fifth]);
    assert_same(&files[4], &peer.data_of(&fifth));
}

#[test]
fn a_peer_that_cannot_be_dialled_exchanges_over_the_links_it_opens() {
    let cluster = Cluster::start_with(&["--interval", "1s"]);
    let file = cluster.file("source/data.bin", 8 * MB, 6);
    let mut seeder = cluster.seed(&file, &["--up", "4MB/s"]);
    let hidden = cluster.get(&seeder.id, "hidden", &["--advertise", "127.0.0.1:1", "--seed=10m"]);
    hidden.completed();
    assert_same(&file, &hidden.directory.join("data.bin"));

    // The hidden peer learns of this one by its next announce, and is then its only source.
    let getter = cluster.get(&seeder.id, "peer", &["--down", "1MB/s"]);
    wait_for("links to both", PATIENCE, || {
        let progress = getter.process.last_event("progress")?;
        (progress["neighbours"].as_u64()? == 2).then_some(())
    });
    seeder.process.kill();
    let held =
        getter.process.last_event("progress").expect("it reports progress")["held_bytes"].clone();
    assert!(held.as_u64() < Some(6 * MB as u64), "{held} bytes were held already");
    getter.completed();
    assert_same(&file, &getter.directory.join("data.bin"));
}

#[test]
fn a_peer_stops_within_5_seconds_and_leaves_the_swarm() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", MB, 7);
    let mut peer = cluster.peer("peer", &[]);
    let id = peer.publish(&file);
    let tracker = cluster.tracker();
    let swarm = || {
        let mut command = Command::new(shoal_testkit::process::binary("shoal"));
        command.args(["swarm", &id, "--tracker", &tracker]).output().expect("it runs").status
    };
    wait_for("the announce", PATIENCE, || swarm().success().then_some(()));
    peer.process.terminate();
    let asked = Instant::now();
    let status = peer.process.wait(PATIENCE);
    assert!(status.success() && asked.elapsed() < Duration::from_secs(5), "{status}");
    assert_eq!(swarm().code(), Some(3), "the swarm still has a peer");
}
