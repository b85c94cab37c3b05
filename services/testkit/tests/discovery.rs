//! DNS names that resolve to several addresses, which change while peers run. Needs root: each
//! process gets a hosts file of the test.

use std::{fs, net::TcpStream, path::Path, time::Duration};

use serde_json::Value;
use shoal_testkit::{
    cluster::{Cluster, PATIENCE},
    fleet::ProcessNetwork,
    process::{Process, binary, free_port, run, wait_for},
    ring::RingCluster,
};
use tempfile::NamedTempFile;
use tokio::runtime::Runtime;

/// A hosts file that maps one name to some addresses.
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

    /// From now on, the name resolves to these hosts of 127.0.0.0.
    fn set(&self, hosts: &[u8]) {
        let lines: Vec<_> =
            hosts.iter().map(|host| format!("127.0.0.{host} {}", self.name)).collect();
        fs::write(self.file.path(), lines.join("\n")).expect("it is written");
    }

    /// Runs `shoal` with the hosts file.
    fn shoal(&self, arguments: &[&str]) -> Process {
        let mut command =
            ProcessNetwork::Hosts(self.file.path().to_owned()).command(binary("shoal"));
        command.args(arguments);
        Process::spawn("shoal", command)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the paths of tests are UTF-8")
}

/// A tracker whose peers do not expire during a test.
fn tracker(host: u8, port: u16) -> Process {
    let listen = format!("127.0.0.{host}:{port}");
    let arguments = ["--listen", &listen, "--admin", "off", "--interval", "10m"];
    let tracker = Process::start("shoal-tracker", arguments);
    wait_for("a tracker", PATIENCE, || TcpStream::connect(&listen).ok());
    tracker
}

/// The number of complete peers that a tracker knows for a content.
fn known(id: &str, host: u8, port: u16) -> u64 {
    let tracker = format!("127.0.0.{host}:{port}");
    let output = run("shoal", &["swarm", id, "--tracker", &tracker, "--json"], b"");
    let swarm: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    swarm["complete_count"].as_u64().unwrap_or(0)
}

#[test]
fn each_address_of_a_name_is_a_tracker_while_the_name_resolves_to_it() {
    let port = free_port();
    let hosts = Hosts::new("trackers.test", &[1, 2]);
    let _trackers = [1, 2, 3].map(|host| tracker(host, port));
    let cluster = Cluster::by_ring(&[]);
    let file = cluster.file("source/data.bin", 1_000_000, 1);
    let name = format!("trackers.test:{port}");
    let seeder = hosts.shoal(&["seed", text(&file), "--tracker", &name, "--progress", "json"]);
    let id = seeder.event("published", PATIENCE)["id"].as_str().expect("an id").to_owned();
    let all_know = |hosts: &'static [u8]| {
        wait_for("trackers that know the seeder", PATIENCE, || {
            hosts.iter().all(|host| known(&id, *host, port) == 1).then_some(())
        });
    };
    all_know(&[1, 2]);
    assert_eq!(known(&id, 3, port), 0);

    hosts.set(&[2, 3]);
    all_know(&[1, 2, 3]);
    // A tracker that the name no longer resolves to gets a stop, after an interval.
    wait_for("a stop", PATIENCE, || (known(&id, 1, port) == 0).then_some(()));
    all_know(&[2, 3]);
}

#[test]
fn two_of_many_trackers_behind_a_name_know_a_content_and_are_found() {
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
    assert!(swarm.success(), "the trackers that know the content are not asked");
    let output = cluster.path().join("copy");
    fs::create_dir(&output).expect("it is created");
    let getter = hosts.shoal(&["get", &id, "-o", text(&output), "--tracker", &name]).wait(PATIENCE);
    assert!(getter.success());
}

#[test]
fn a_ring_is_reached_by_a_name_although_some_of_its_addresses_are_dead() {
    let port = free_port();
    let node = (ProcessNetwork::Here, format!("127.0.0.1:{port}"));
    let runtime = Runtime::new().expect("a runtime");
    let ring = RingCluster::joining(vec![node], &[]);
    runtime.block_on(ring.settled(Duration::from_secs(20)));
    let hosts = Hosts::new("ring.test", &[7, 8, 1, 9]);
    let name = format!("ring.test:{port}");
    let put = hosts.shoal(&["dht", "put", "key", "value", "--dht", &name]).wait(PATIENCE);
    assert!(put.success());

    // A peer that reaches no node resolves the name again.
    hosts.set(&[8, 9]);
    let cluster = Cluster::by_ring(&[]);
    let file = cluster.file("source/data.bin", 1_000_000, 1);
    let seeder = hosts.shoal(&["seed", text(&file), "--dht", &name, "--progress", "json"]);
    let id = seeder.event("published", PATIENCE)["id"].as_str().expect("an id").to_owned();
    let by_number = ring.address(0);
    let found = || run("shoal", &["swarm", &id, "--dht", &by_number], b"").status.success();
    assert!(!found());
    hosts.set(&[8, 1]);
    wait_for("the seeder's announce in the ring", PATIENCE, || found().then_some(()));
}
