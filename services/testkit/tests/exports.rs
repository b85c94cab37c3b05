//! Exports requested with a fetch are made in spite of crashes and full disks.

use std::{fs, path::Path};

use shoal_proto::control::v1::ContentState;
use shoal_testkit::{
    cluster::{Cluster, PATIENCE, assert_same},
    process::wait_for,
    small_disk::SmallDisk,
};

const MB: usize = 1_000_000;

fn text(path: &Path) -> &str {
    path.to_str().expect("the paths of tests are UTF-8")
}

fn wait_for_copy(of: &Path, at: &Path) {
    wait_for("the copy", PATIENCE, || at.exists().then_some(()));
    assert_same(of, at);
}

#[test]
fn a_copy_is_made_although_the_peer_was_killed_before() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 8 * MB, 1);
    let seeder = cluster.seed(&file, &["--up", "4MB/s"]);
    let mut peer = cluster.peer("peer", &[]);
    let copies = ["one", "other"].map(|name| cluster.path().join(name));
    for copy in &copies {
        peer.answer(&["fetch", &seeder.id, "--to", text(copy), "--detach"]);
    }
    peer.wait_until(&seeder.id, "some of it", |status| status.held_bytes > 0);
    peer.kill_and_restart();
    for copy in &copies {
        assert!(!copy.exists(), "the peer was killed too late");
    }
    for copy in &copies {
        wait_for_copy(&file, copy);
    }
    // An export is made only once.
    for copy in &copies {
        fs::remove_file(copy).expect("it exists");
    }
    peer.kill_and_restart();
    peer.wait_until_complete(&seeder.id);
    let later = cluster.path().join("later");
    peer.answer(&["fetch", &seeder.id, "--to", text(&later)]);
    assert!(copies.iter().all(|copy| !copy.exists()));
}

#[test]
fn a_copy_is_made_although_the_download_failed_before_and_the_peer_was_killed() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 8 * MB, 2);
    let seeder = cluster.seed(&file, &[]);
    let mut peer = cluster.peer("peer", &[]);
    let directory = peer.directory_of(&seeder.id);
    let Some(disk) = SmallDisk::mount(&directory, 4 << 20) else { return };
    let is_failed =
        |status: &shoal_proto::control::v1::ContentStatus| status.state() == ContentState::Failed;
    let (first, second) = (cluster.path().join("first"), cluster.path().join("second"));
    peer.answer(&["fetch", &seeder.id, "--to", text(&first), "--detach"]);
    let status = peer.wait_until(&seeder.id, "a full disk", is_failed);
    assert!(status.error.contains("no space is left"), "{}", status.error);
    peer.kill_and_restart();
    peer.wait_until(&seeder.id, "a full disk", is_failed);
    // The second fetch fails as well. The third, without an export, succeeds.
    peer.answer(&["fetch", &seeder.id, "--to", text(&second), "--detach"]);
    peer.wait_until(&seeder.id, "a full disk", is_failed);
    disk.resize(20 << 20);
    peer.answer(&["fetch", &seeder.id]);
    wait_for_copy(&file, &first);
    wait_for_copy(&file, &second);
}

#[test]
fn a_copy_that_does_not_fit_the_disk_is_made_once_there_is_room() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 8 * MB, 3);
    let seeder = cluster.seed(&file, &[]);
    let peer = cluster.peer("peer", &[]);
    let elsewhere = cluster.path().join("elsewhere");
    let Some(disk) = SmallDisk::mount(&elsewhere, 4 << 20) else { return };
    let copy = elsewhere.join("copy");
    peer.answer(&["fetch", &seeder.id, "--to", text(&copy), "--detach"]);
    wait_for("a failed export", PATIENCE, || {
        peer.process.stderr().contains("not exported").then_some(())
    });
    assert!(!copy.exists());
    disk.resize(20 << 20);
    wait_for_copy(&file, &copy);
}

#[test]
fn an_export_to_an_impossible_path_is_refused_before_the_fetch() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", MB, 4);
    let seeder = cluster.seed(&file, &[]);
    let peer = cluster.peer("peer", &[]);
    for (nowhere, why) in [
        (cluster.path().join("missing/copy"), "missing: No such file or directory"),
        (file.join("copy"), "data.bin: Not a directory"),
    ] {
        let refused = peer.shoal(&["fetch", &seeder.id, "--to", text(&nowhere), "--detach"]);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains(why), "{refused:?}");
    }
    assert_eq!(peer.list(), []);
}
