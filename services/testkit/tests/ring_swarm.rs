//! Swarms whose peers find each other through the ring.

use std::time::Duration;

use serde_json::Value;
use shoal_proto::control::v1::FetchRequest;
use shoal_testkit::{
    cluster::{Cluster, PATIENCE, assert_same},
    process::{run, wait_for},
    ring::RingCluster,
};
use tokio::runtime::Runtime;

const MB: usize = 1_000_000;

/// A ring, and HOST:PORT of each node.
fn ring(nodes: usize) -> (RingCluster, Vec<String>) {
    let ring = Runtime::new().expect("a runtime").block_on(RingCluster::of(nodes));
    let addresses = (0..nodes).map(|number| ring.address(number)).collect();
    (ring, addresses)
}

/// The addresses of the peers that the ring knows.
fn known(id: &str, node: &str) -> Vec<String> {
    let output = run("shoal", &["swarm", id, "--dht", node, "--json"], b"");
    if output.status.code() == Some(3) {
        return Vec::new();
    }
    let swarm: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let peers = swarm["peers"].as_array().expect("it names peers").iter();
    peers.map(|peer| peer["address"].as_str().expect("an address").to_owned()).collect()
}

#[test]
fn a_swarm_needs_no_tracker() {
    let (_ring, nodes) = ring(3);
    let clusters = nodes.iter().map(|node| Cluster::by_ring(std::slice::from_ref(node)));
    let clusters: Vec<_> = clusters.collect();
    let file = clusters[0].file("source/data.bin", 8 * MB, 1);
    let mut seeder = clusters[0].seed(&file, &[]);
    let getter = clusters[1].get(&seeder.id, "getter", &["--seed=10m"]);
    let peer = clusters[2].peer("peer", &[]);
    peer.fetch(&seeder.id).expect("the fetch starts");
    getter.completed();
    peer.wait_until_complete(&seeder.id);
    assert_same(&file, &getter.directory.join("data.bin"));
    assert_same(&file, &peer.data_of(&seeder.id));
    assert_eq!(peer.explain(&seeder.id).ring_nodes[0].address, nodes[2]);
    // A peer that stops withdraws its announce.
    assert!(known(&seeder.id, &nodes[1]).contains(&seeder.address));
    seeder.process.terminate();
    seeder.process.wait(PATIENCE);
    let left = known(&seeder.id, &nodes[1]);
    assert!(left.contains(&peer.address) && !left.contains(&seeder.address), "{left:?}");
}

#[test]
fn a_peer_that_knows_only_a_ring_node_joins_a_swarm_without_its_tracker() {
    let (_ring, nodes) = ring(3);
    let mut cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 12 * MB, 2);
    let by_ring = ["--dht", &nodes[0]];
    let seeder = cluster.seed(&file, &[&by_ring[..], &["--up", "6MB/s"]].concat());
    let early = cluster.get(&seeder.id, "early", &[&by_ring[..], &["--seed=10m"]].concat());
    early.wait_for_bytes(2 * MB as u64);
    cluster.kill_tracker();
    let by_ring = Cluster::by_ring(&nodes[1..2]);
    let late = by_ring.get(&seeder.id, "late", &[]);
    for getter in [&early, &late] {
        getter.completed();
        assert_same(&file, &getter.directory.join("data.bin"));
    }
}

#[test]
fn a_peer_that_was_given_one_node_uses_the_others_when_it_dies() {
    let (mut ring, nodes) = ring(4);
    let (by_first, by_others) = (Cluster::by_ring(&nodes[..1]), Cluster::by_ring(&nodes[1..]));
    let file = by_first.file("source/data.bin", MB, 3);
    let id = String::from_utf8(run("shoal", &["hash", file.to_str().expect("UTF-8")], b"").stdout);
    let id = id.expect("text").lines().next().expect("an id").to_owned();
    let peer = by_first.peer("peer", &[]);
    peer.fetch(&id).expect("the fetch starts");
    wait_for("an answer of the ring", PATIENCE, || {
        peer.explain(&id).ring_nodes.first()?.since_success.is_some().then_some(())
    });
    ring.kill(0);
    wait_for("an answer of another node", PATIENCE, || {
        let asked = peer.explain(&id).ring_nodes;
        let failed =
            asked.iter().find(|node| node.address == nodes[0]).expect("the peer was given it");
        let other = asked.iter().find(|node| node.address != nodes[0])?;
        assert!(failed.error.contains("refused"), "{failed:?}");
        assert!(nodes[1..].contains(&other.address), "{other:?}");
        other.error.is_empty().then_some(())
    });
    let _seeder = by_others.seed(&file, &[]);
    peer.wait_until_complete(&id);
}

#[test]
fn a_killed_peer_remembers_the_ring_of_a_fetch() {
    let (_ring, nodes) = ring(1);
    let by_ring = Cluster::by_ring(&nodes);
    let file = by_ring.file("source/data.bin", 8 * MB, 4);
    let seeder = by_ring.seed(&file, &["--up", "4MB/s"]);
    let without_nodes = Cluster::by_ring(&[]);
    let mut peer = without_nodes.peer("peer", &[]);
    let request = FetchRequest {
        content_id: seeder.id.clone(),
        dht: nodes.clone(),
        ..FetchRequest::default()
    };
    peer.fetch_as(request).expect("the fetch starts");
    peer.wait_until(&seeder.id, "some bytes", |status| status.held_bytes > 0);
    peer.kill_and_restart();
    // Progress of the download proves nothing: the seeder knows the peer and dials it.
    wait_for("an answer of the ring", PATIENCE, || {
        let explained = peer.shoal(&["explain", &seeder.id, "--json"]);
        let explained: Value = serde_json::from_slice(&explained.stdout).ok()?;
        let asked = &explained["ring_nodes"][0];
        (asked["address"] == *nodes[0] && asked["since_success_seconds"].is_number()).then_some(())
    });
    peer.wait_until_complete(&seeder.id);
    assert_same(&file, &peer.data_of(&seeder.id));
}

#[test]
fn a_content_is_fetched_by_name() {
    let (_ring, nodes) = ring(3);
    let shoal = |arguments: &[&str], node: &str| {
        let output = run("shoal", &[arguments, &["--dht", node]].concat(), b"");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), said)
    };
    let cluster = Cluster::by_ring(&nodes[..1]);
    let file = cluster.file("source/data.bin", MB, 5);
    let seeder = cluster.seed(&file, &[]);
    let other = "ab".repeat(32);
    assert_eq!(shoal(&["name", "set", "org/llama-3", &other], &nodes[0]).0, Some(0));
    assert_eq!(shoal(&["name", "set", "org/llama-3", &seeder.id], &nodes[1]).0, Some(0));
    let (status, id, _) = shoal(&["name", "get", "org/llama-3"], &nodes[2]);
    assert_eq!((status, id), (Some(0), format!("{}\n", seeder.id)));
    let getter = cluster.get("org/llama-3", "getter", &[]);
    getter.completed();
    assert_same(&file, &getter.directory.join("data.bin"));
    let peer = cluster.peer("peer", &[]);
    peer.answer(&["fetch", "org/llama-3", "--dht", &nodes[1]]);
    assert_same(&file, &peer.data_of(&seeder.id));

    assert_eq!(shoal(&["name", "rm", "org/llama-3"], &nodes[2]).0, Some(0));
    for gone in [&["name", "get", "org/llama-3"][..], &["get", "org/llama-3"]] {
        let (status, stdout, said) = shoal(gone, &nodes[0]);
        assert_eq!((status, &*stdout), (Some(3), ""), "{said}");
        assert!(said.contains("the ring knows nothing called org/llama-3"), "{said}");
    }
    // A value that is not an id is refused.
    assert_eq!(shoal(&["dht", "put", "name/odd", "what"], &nodes[0]).0, Some(0));
    let (status, _, said) = shoal(&["name", "get", "odd"], &nodes[1]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("not a content id"), "{said}");
}

#[test]
fn a_link_names_a_ring_node() {
    let (_ring, nodes) = ring(1);
    let cluster = Cluster::by_ring(&nodes);
    let file = cluster.file("source/data.bin", MB, 6);
    let seeder = cluster.seed(&file, &[]);
    let published = seeder.process.event("published", Duration::ZERO);
    let link = published["link"].as_str().expect("a link");
    assert_eq!(link, format!("shoal:{}?dht={}", seeder.id, nodes[0]));
    let without_nodes = Cluster::by_ring(&[]);
    let getter = without_nodes.get(link, "getter", &[]);
    getter.completed();
    assert_same(&file, &getter.directory.join("data.bin"));
}
