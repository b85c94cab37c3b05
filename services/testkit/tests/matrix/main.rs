//! Every way of a content from one machine to another, on the file systems of Linux, with a tree of
//! everything that they hold.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod disk;
mod tree;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use shoal_testkit::{
    cluster::{Cluster, PATIENCE},
    daemon::Peer,
    process::binary,
};

use disk::Disk;
use tree::assert_faithful;

/// A tree on a disk, and its id.
struct World {
    // Dropped before the disk is unmounted.
    cluster: Cluster,
    source: PathBuf,
    id: String,
    disk: Disk,
}

impl World {
    fn on(kind: &str) -> Option<Self> {
        let disk = Disk::make(kind)?;
        let source = disk.path().join("source/tree");
        fs::create_dir(disk.path().join("source")).unwrap();
        tree::make(&source);
        let hash = Command::new(binary("shoal")).arg("hash").arg(&source).output().unwrap();
        assert!(hash.status.success(), "{}", String::from_utf8_lossy(&hash.stderr));
        let id = String::from_utf8_lossy(&hash.stdout).lines().next().unwrap().to_owned();
        Some(Self { cluster: Cluster::start(), source, id, disk })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.disk.path().join(name)
    }

    /// A peer whose data directory is on the disk.
    fn peer(&self, name: &str) -> Peer {
        let tracker = self.cluster.tracker();
        Peer::start(&self.path(name), &["--tracker", &tracker], &[])
    }

    /// From files in place to files, without a peer that has a store.
    fn seed_and_get(&self) {
        let seeder = self.cluster.seed(&self.source, &[]);
        assert_eq!(seeder.id, self.id);
        let into = self.path("got");
        fs::create_dir(&into).unwrap();
        let output = Command::new(binary("shoal"))
            .args(["get", &self.id, "--tracker", &self.cluster.tracker()])
            .args(["--listen", "127.0.0.1:0", "--timeout"])
            .arg(format!("{}s", PATIENCE.as_secs()))
            .arg("-o")
            .arg(&into)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let left: Vec<_> = fs::read_dir(&into).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["tree"], "nothing else is left");
        assert_faithful(&self.source, &into.join("tree"));
    }

    /// From one store to another, and from there to a copy.
    fn publish_and_fetch(&self) {
        let publisher = self.peer("publisher");
        assert_eq!(publisher.publish(&self.source), self.id);
        self.fetch("fetcher");
    }

    /// The same, without a copy at the publisher.
    fn publish_in_place_and_fetch(&self) {
        let publisher = self.peer("in-place");
        assert_eq!(publisher.answer(&["publish", "--in-place", text(&self.source)]), self.id);
        self.fetch("other-fetcher");
    }

    fn fetch(&self, name: &str) {
        let fetcher = self.peer(name);
        let copy = self.path(&format!("copy-of-{name}"));
        fetcher.answer(&["fetch", &self.id, "--to", text(&copy)]);
        assert_faithful(&self.source, &copy);
        // The same copy is not made again: what is there is the content.
        fetcher.answer(&["fetch", &self.id, "--to", text(&copy)]);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the paths of tests are UTF-8")
}

fn every_way_is_faithful_on(kind: &str) {
    let Some(world) = World::on(kind) else { return };
    world.seed_and_get();
    world.publish_and_fetch();
    world.publish_in_place_and_fetch();
}

#[test]
fn every_way_is_faithful_on_ext4() {
    every_way_is_faithful_on("ext4");
}

#[test]
fn every_way_is_faithful_on_tmpfs() {
    every_way_is_faithful_on("tmpfs");
}

#[test]
fn every_way_is_faithful_on_xfs() {
    every_way_is_faithful_on("xfs");
}

#[test]
fn every_way_is_faithful_on_btrfs() {
    every_way_is_faithful_on("btrfs");
}

#[test]
fn one_tree_has_one_id_on_all_file_systems() {
    let worlds = ["ext4", "tmpfs", "xfs", "btrfs"].map(World::on);
    let ids: Vec<_> = worlds.iter().flatten().map(|world| &world.id).collect();
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
}
