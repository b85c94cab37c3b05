//! `shoal dht` with a ring of real nodes, or with other services at a node's address.

use std::{
    io::Write as _,
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use shoal_testkit::{
    cluster::{Cluster, PATIENCE, random_bytes},
    process::{free_port, run, wait_for},
    ring::RingCluster,
};
use tokio::runtime::Runtime;

fn ring(nodes: usize) -> RingCluster {
    Runtime::new().expect("a runtime").block_on(RingCluster::of(nodes))
}

/// The exit status and the output of `shoal dht`.
struct CommandOutput {
    status: i32,
    stdout: Vec<u8>,
    stderr: String,
}

impl CommandOutput {
    fn text(&self) -> &str {
        assert_eq!(self.status, 0, "{}", self.stderr);
        std::str::from_utf8(&self.stdout).expect("it is text")
    }

    fn json(&self) -> Value {
        serde_json::from_str(self.text()).expect("it is JSON")
    }
}

fn dht(node: &str, arguments: &[&str]) -> CommandOutput {
    dht_reading(node, arguments, b"")
}

fn dht_reading(node: &str, arguments: &[&str], stdin: &[u8]) -> CommandOutput {
    let output = run("shoal", &[&["dht"], arguments, &["--dht", node]].concat(), stdin);
    CommandOutput {
        status: output.status.code().expect("no signal ended it"),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn values_are_put_read_and_removed() {
    let ring = ring(3);
    let node = |number| ring.address(number);
    let absent = dht(&node(0), &["get", "greeting"]);
    assert_eq!((absent.status, &*absent.stdout), (1, &b""[..]));
    assert!(absent.stderr.contains("no value"), "{}", absent.stderr);

    let put = dht(&node(0), &["put", "greeting", "hello"]);
    let copies =
        put.text().strip_prefix("durable copies: ").expect("it prints the number of copies");
    assert!(copies.starts_with('2') || copies.starts_with('3'), "{copies}");
    assert_eq!(dht(&node(1), &["get", "greeting"]).text(), "hello");

    let bytes = random_bytes(65_536, 1);
    let put = dht_reading(&node(1), &["put", "big", "-", "--json"], &bytes);
    assert!(put.json()["durable_copies"].as_u64() >= Some(2), "{}", put.text());
    assert!(dht(&node(2), &["get", "big"]).stdout == bytes);
    let long = dht_reading(&node(1), &["put", "big", "-"], &random_bytes(65_537, 1));
    assert_eq!(long.status, 2, "{}", long.stderr);
    assert!(long.stderr.contains("at most 65536 bytes"), "{}", long.stderr);

    assert_eq!(dht(&node(2), &["rm", "greeting"]).text(), "");
    assert_eq!(dht(&node(2), &["rm", "greeting"]).status, 0);
    assert_eq!(dht(&node(0), &["get", "greeting"]).status, 1);
    let unnamed = dht(&node(0), &["put", "", "value"]);
    assert_eq!(unnamed.status, 2, "{}", unnamed.stderr);
    assert!(unnamed.stderr.contains("from 1 to 256 bytes"), "{}", unnamed.stderr);
}

#[test]
fn a_value_is_put_conditionally_and_expires() {
    let ring = ring(1);
    let node = ring.address(0);
    assert_eq!(dht(&node, &["put", "leader", "me", "--if-absent"]).status, 0);
    let late = dht(&node, &["put", "leader", "you", "--if-absent"]);
    assert_eq!(late.status, 1, "{}", late.stderr);
    assert!(late.stderr.contains("has version"), "{}", late.stderr);
    let read = dht(&node, &["get", "leader", "--version"]);
    let version = read.stderr.trim();
    assert_eq!(read.text(), "me");
    assert_eq!(dht(&node, &["get", "leader", "--json"]).json()["version"], version);
    assert_eq!(dht(&node, &["put", "leader", "you", "--if-version", version]).status, 0);
    assert_eq!(dht(&node, &["put", "leader", "me", "--if-version", version]).status, 1);
    assert_eq!(dht(&node, &["rm", "leader", "--if-version", version]).status, 1);
    assert_eq!(dht(&node, &["get", "leader"]).text(), "you");

    let asked = Instant::now();
    assert_eq!(dht(&node, &["put", "leader", "me", "--ttl", "1500ms"]).status, 0);
    assert!(dht(&node, &["get", "leader", "--json"]).json()["expires_unix_s"].is_number());
    wait_for("the value to expire", Duration::from_secs(10), || {
        (dht(&node, &["get", "leader"]).status == 1).then_some(())
    });
    assert!(asked.elapsed() > Duration::from_millis(1500), "the value expired too soon");
}

#[test]
fn a_lookup_finds_the_same_owner_from_every_node() {
    let ring = ring(5);
    let lookups = (0..5).map(|number| dht(&ring.address(number), &["lookup", "key", "--json"]));
    let owners: Vec<_> = lookups.map(|said| said.json()["owner"]["address"].clone()).collect();
    assert!(owners.iter().all(|owner| *owner == owners[0]), "{owners:?}");
    let said = dht(&ring.address(0), &["lookup", "key"]);
    let owner = said.text().lines().find(|line| line.starts_with("owner"));
    let address = owners[0].as_str().expect("an address");
    assert!(owner.is_some_and(|line| line.contains(address)), "{}", said.text());
    assert!(said.text().contains(" hop"), "{}", said.text());
}

#[test]
fn the_ring_is_drawn_with_all_live_nodes_and_no_dead_ones() {
    let mut ring = ring(5);
    dht(&ring.address(0), &["put", "key", "value"]);
    // Gossip about the node that joined last may not have arrived.
    let said = wait_for("all five in the list", PATIENCE, || {
        let said = dht(&ring.address(0), &["ring"]);
        said.text().contains("5 nodes, as").then_some(said)
    });
    for number in 0..5 {
        let line = said.text().lines().find(|line| line.contains(&*ring.address(number)));
        assert!(line.is_some_and(|line| line.ends_with("member")), "{}", said.text());
    }
    // The third copy may come after the acknowledgement.
    wait_for("three copies", PATIENCE, || {
        let seen = dht(&ring.address(3), &["ring", "--json"]).json();
        let counts = seen["nodes"].as_array()?.iter().filter_map(|node| node["key_count"].as_u64());
        (seen["in_order"] == true && counts.sum::<u64>() == 3).then_some(())
    });
    let chosen = dht(&ring.address(0), &["ring", "--fingers-of", &ring.address(2)]);
    assert!(chosen.text().contains("to its fingers"), "{}", chosen.text());
    let nobody = dht(&ring.address(0), &["ring", "--fingers-of", "9"]);
    assert_eq!(nobody.status, 3, "{}", nobody.stderr);

    ring.kill(4);
    wait_for("a ring of four", Duration::from_secs(10), || {
        let seen = dht(&ring.address(0), &["ring", "--json"]).json();
        (seen["in_order"] == true && seen["nodes"].as_array()?.len() == 4).then_some(())
    });
}

#[test]
fn an_address_without_a_ring_node_is_reported_quickly_and_skipped() {
    let ring = ring(1);
    let good = ring.address(0);
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let babbling = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = |listener: &TcpListener| listener.local_addr().expect("it is bound").to_string();
    let (silent_address, babbling_address) = (address(&silent), address(&babbling));
    thread::spawn(move || {
        for mut connection in babbling.incoming().flatten() {
            // The client may hang up first.
            let _ = connection.write_all(b"220 mail.example ESMTP\r\n");
        }
    });
    let closed_address = format!("127.0.0.1:{}", free_port());
    let tracker = Cluster::start();
    for (address, words) in [
        (silent_address, "no answer in time"),
        (babbling_address, "no ring node"),
        (closed_address, "refused"),
        (tracker.tracker(), "no ring node"),
    ] {
        for arguments in [&["get", "key"][..], &["put", "key", "value"], &["ring"]] {
            let asked = Instant::now();
            let said = dht(&address, arguments);
            assert_eq!(said.status, 4, "{}", said.stderr);
            let named = said.stderr.contains(&address) && said.stderr.contains(words);
            assert!(named, "{words}: {}", said.stderr);
            assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
        }
        let both = dht(&address, &["put", "key", "value", "--dht", &good]);
        assert!(both.text().contains("durable copies: 1"), "{}", both.stderr);
    }
    drop(silent);
}
