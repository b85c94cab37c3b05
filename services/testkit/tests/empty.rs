//! Empty files, and trees without any bytes, are distributed like other contents.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use shoal_testkit::{
    cluster::{Cluster, PATIENCE, assert_same},
    daemon::Peer,
    process::{run, wait_for},
};

fn text(path: &Path) -> &str {
    path.to_str().expect("the paths of tests are UTF-8")
}

/// An empty file, a tree of empty files, and a tree of directories alone.
fn sources(cluster: &Cluster) -> [PathBuf; 3] {
    let file = cluster.file("source/nothing", 0, 1);
    cluster.file("source/tree/a", 0, 1);
    cluster.file("source/tree/below/b", 0, 1);
    let bare = cluster.path().join("source/bare");
    for empty in ["source/tree/empty", "source/bare/empty"] {
        fs::create_dir_all(cluster.path().join(empty)).expect("it is created");
    }
    [file, cluster.path().join("source/tree"), bare]
}

/// Waits until the tracker knows `count` seeders.
fn wait_for_seeders(cluster: &Cluster, id: &str, count: u64) {
    wait_for("seeders at the tracker", PATIENCE, || {
        let output = run("shoal", &["swarm", id, "--tracker", &cluster.tracker(), "--json"], b"");
        let swarm: Value = serde_json::from_slice(&output.stdout).ok()?;
        (swarm["complete_count"] == count).then_some(())
    });
}

fn assert_complete(peer: &Peer, id: &str) {
    let status = peer.wait_until_complete(id);
    // The piece of its manifest.
    assert_eq!((status.piece_count, status.total_bytes), (1, 0));
}

#[test]
fn empty_contents_are_seeded_and_downloaded() {
    let cluster = Cluster::start();
    for source in sources(&cluster) {
        let hash = run("shoal", &["hash", text(&source)], b"");
        let hash = String::from_utf8(hash.stdout).expect("it is text");
        let seeder = cluster.seed(&source, &[]);
        assert_eq!(hash.lines().next(), Some(&*seeder.id));
        let name = source.file_name().and_then(|name| name.to_str()).expect("it has a name");
        let mut getter = cluster.get(&seeder.id, &format!("got-{name}"), &["--seed=10m"]);
        let completed = getter.completed();
        assert_eq!(completed["bytes"], 0);
        assert_same(&source, &getter.directory.join(name));
        wait_for_seeders(&cluster, &seeder.id, 2);
        getter.process.terminate();
        assert!(getter.process.wait(PATIENCE).success(), "{}", getter.process.stderr());
        // A second download finds it complete.
        let again = cluster.get(&seeder.id, &format!("got-{name}"), &[]);
        again.completed();
    }
}

#[test]
fn empty_contents_are_published_fetched_exported_and_kept() {
    let cluster = Cluster::start();
    let publisher = cluster.peer("publisher", &["--limits-quota", "1MB"]);
    let mut peer = cluster.peer("peer", &["--limits-quota", "1MB"]);
    for (number, source) in sources(&cluster).iter().enumerate() {
        let id = if number == 1 {
            publisher.answer(&["publish", "--in-place", text(source)])
        } else {
            publisher.publish(source)
        };
        assert_complete(&publisher, &id);
        let copy = cluster.path().join(format!("copy-{number}"));
        peer.answer(&["fetch", &id, "--to", text(&copy)]);
        assert_same(source, &copy);
        assert_complete(&peer, &id);
        wait_for_seeders(&cluster, &id, 2);
        peer.kill_and_restart();
        assert_complete(&peer, &id);
        peer.answer(&["explain", &id]);
        peer.answer(&["rm", &id]);
        assert!(!peer.directory_of(&id).exists());
        // A fetch in the background exports too.
        let copy = cluster.path().join(format!("another-{number}"));
        peer.answer(&["fetch", &id, "--to", text(&copy), "--detach"]);
        wait_for("the copy", PATIENCE, || copy.exists().then_some(()));
        assert_same(source, &copy);
    }
    assert_eq!(peer.list().len(), 3);
    let listed = peer.answer(&["ls"]);
    assert_eq!(listed.matches("seeding").count(), 3, "{listed}");
}

#[test]
fn empty_contents_are_replicated() {
    let cluster = Cluster::start();
    let seeders = sources(&cluster).map(|source| (cluster.seed(&source, &[]), source));
    let replica = cluster.peer("replica", &["--replicate", "all"]);
    for (number, (seeder, source)) in seeders.iter().enumerate() {
        assert_complete(&replica, &seeder.id);
        let copy = cluster.path().join(format!("replicated-{number}"));
        replica.answer(&["fetch", &seeder.id, "--to", text(&copy)]);
        assert_same(source, &copy);
    }
    wait_for("a replica that is ready", PATIENCE, || replica.is_ready().then_some(()));
}
