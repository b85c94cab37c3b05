//! Programs whose hard limit of open files is 256, and whose soft limit is 64.
//!
//! One test, because the limits are those of this process, which its children inherit.

use std::fs;

use rustix::process::{Resource, Rlimit, setrlimit};
use shoal_testkit::cluster::{Cluster, assert_same, random_bytes};

const FILES: usize = 400;

/// A piece or more, so that each file is a file of the store.
const FILE_BYTES: usize = 70_000;

#[test]
fn more_files_are_published_and_fetched_than_may_be_open() {
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: Some(256) })
        .expect("limits can be lowered");
    let cluster = Cluster::start();
    let tree = cluster.path().join("source/tree");
    fs::create_dir_all(&tree).expect("it is created");
    for number in 0..FILES {
        let bytes = random_bytes(FILE_BYTES, number as u64);
        fs::write(tree.join(number.to_string()), bytes).expect("it is written");
    }
    let seeder = cluster.seed(&tree, &["--piece-length", "64KiB"]);
    let getter = cluster.get(&seeder.id, "copy", &[]);
    getter.completed();
    assert_same(&tree, &getter.directory.join("tree"));

    let publisher = cluster.peer("publisher", &[]);
    let other = cluster.path().join("source/other");
    fs::rename(&tree, &other).expect("it is renamed");
    let text = other.to_str().expect("it is UTF-8");
    let id = publisher.answer(&["publish", text, "--piece-length", "64KiB"]);
    let fetcher = cluster.peer("fetcher", &[]);
    let exported = cluster.path().join("exported");
    let text = exported.to_str().expect("it is UTF-8");
    fetcher.answer(&["fetch", &id, "--to", text]);
    assert_same(&other, &exported);
}
