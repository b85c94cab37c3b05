//! Names that stand for several addresses, which change while peers run. As root: each process has a
//! hosts file of the test's own.

use std::{fs, net::TcpStream, path::Path, time::Duration};

use serde_json::Value;
use shoal_testkit::{
    cluster::{Cluster, PATIENCE},
    fleet::Place,
    process::{Process, binary, free_port, run, wait_for},
    ring::Ring,
};
use tempfile::NamedTempFile;
use tokio::runtime::Runtime;

/// Who stands behind the name of a test.
struct Hosts {
    file: NamedTempFile,
    name: &'static str,
}

impl Hosts {
    fn new(name: &'static str, hosts: &[u8]) -> Self {
        let new = Self { file: NamedTempFile::new().expect("a file"), name };
        new.set(hosts);
        new
    }

    /// From now on, the name stands for these hosts of 127.0.0.0.
    fn set(&self, hosts: &[u8]) {
        let lines: Vec<_> =
            hosts.iter().map(|host| format!("127.0.0.{host} {}", self.name)).collect();
        fs::write(self.file.path(), lines.join("\n")).expect("it is written");
    }

    /// Runs `shoal` where the name is known.
    fn shoal(&self, arguments: &[&str]) -> Process {
        let mut command = Place::Hosts(self.file.path().to_owned()).command(binary("shoal"));
        command.args(arguments);
        Process::spawn("shoal", command)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the paths of tests are UTF-8")
}

/// A tracker that forgets nobody by itself during a test.
fn tracker(host: u8, port: u16) -> Process {
    let listen = format!("127.0.0.{host}:{port}");
    let arguments = ["--listen", &listen, "--admin", "off", "--interval", "10m"];
    let tracker = Process::start("shoal-tracker", arguments);
    wait_for("a tracker", PATIENCE, || TcpStream::connect(&listen).ok());
    tracker
}

/// Peers of a swarm that a tracker knows.
fn known(id: &str, host: u8, port: u16) -> u64 {
    let tracker = format!("127.0.0.{host}:{port}");
    let output = run("shoal", &["swarm", id, "--tracker", &tracker, "--json"], b"");
    let swarm: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    swarm["complete_count"].as_u64().unwrap_or(0)
}

#[test]
fn each_address_behind_a_name_is_a_tracker_as_long_as_it_is_behind_it() {
    let port = free_port();
    let hosts = Hosts::new("trackers.test", &[1, 2]);
    let _trackers = [1, 2, 3].map(|host| tracker(host, port));
    let cluster = Cluster::by_ring(&[]);
    let file = cluster.file("source/data.bin", 1_000_000, 1);
    let name = format!("trackers.test:{port}");
    let seeder = hosts.shoal(&["seed", text(&file), "--tracker", &name, "--progress", "json"]);
    let id = seeder.event("published", PATIENCE)["id"].as_str().expect("an id").to_owned();
    let all_know = |hosts: &'static [u8]| {
        wait_for("word of the seeder at trackers", PATIENCE, || {
            hosts.iter().all(|host| known(&id, *host, port) == 1).then_some(())
        });
    };
    all_know(&[1, 2]);
    assert_eq!(known(&id, 3, port), 0);

    hosts.set(&[2, 3]);
    all_know(&[1, 2, 3]);
    // One that is not behind the name any more is told of it, after an interval.
    wait_for("a farewell", PATIENCE, || (known(&id, 1, port) == 0).then_some(()));
    all_know(&[2, 3]);
}

#[test]
fn of_many_trackers_behind_a_name_two_know_a_content_and_are_found() {
    let port = free_port();
    let hosts = Hosts::new("trackers.test", &[1, 2, 3, 4, 5]);
    let _trackers = [1, 2, 3, 4, 5].map(|host| tracker(host, port));
    let cluster = Cluster::by_ring(&[]);
    let file = cluster.file("source/data.bin", 1_000_000, 1);
    let name = format!("trackers.test:{port}");
    let seeder = hosts.shoal(&["seed", text(&file), "--tracker", &name, "--progress", "json"]);
    let id = seeder.event("published", PATIENCE)["id"].as_str().expect("an id").to_owned();
    wait_for("two trackers", PATIENCE, || {
        let knowing = (1..=5).filter(|host| known(&id, *host, port) == 1).count();
        assert!(knowing <= 2, "{knowing}");
        (knowing == 2).then_some(())
    });
    let swarm = hosts.shoal(&["swarm", &id, "--tracker", &name]).wait(PATIENCE);
    assert!(swarm.success(), "it is looked for where it is known");
    let output = cluster.path().join("copy");
    fs::create_dir(&output).expect("it is made");
    let getter = hosts.shoal(&["get", &id, "-o", text(&output), "--tracker", &name]).wait(PATIENCE);
    assert!(getter.success());
}

#[test]
fn a_ring_is_reached_behind_a_name_although_some_addresses_are_dead() {
    let port = free_port();
    let node = (Place::Here, format!("127.0.0.1:{port}"));
    let runtime = Runtime::new().expect("a runtime");
    let ring = Ring::joining(vec![node], &[]);
    runtime.block_on(ring.settled(Duration::from_secs(20)));
    let hosts = Hosts::new("ring.test", &[7, 8, 1, 9]);
    let name = format!("ring.test:{port}");
    let put = hosts.shoal(&["dht", "put", "key", "value", "--dht", &name]).wait(PATIENCE);
    assert!(put.success());

    // A peer that finds nobody behind the name looks again.
    hosts.set(&[8, 9]);
    let cluster = Cluster::by_ring(&[]);
    let file = cluster.file("source/data.bin", 1_000_000, 1);
    let seeder = hosts.shoal(&["seed", text(&file), "--dht", &name, "--progress", "json"]);
    let id = seeder.event("published", PATIENCE)["id"].as_str().expect("an id").to_owned();
    let by_number = ring.address(0);
    let found = || run("shoal", &["swarm", &id, "--dht", &by_number], b"").status.success();
    assert!(!found());
    hosts.set(&[8, 1]);
    wait_for("word of the seeder in the ring", PATIENCE, || found().then_some(()));
}
