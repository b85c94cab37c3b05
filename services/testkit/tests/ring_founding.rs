//! Nodes that are started together become one ring, whatever addresses they are given to join.

use std::{fs, time::Duration};

use shoal_testkit::{
    fleet::ProcessNetwork,
    process::{free_port, wait_for},
    ring::RingCluster,
};
use tempfile::NamedTempFile;

/// A node whose own address is not in its join list first lets others found the ring.
const SOON: Duration = Duration::from_secs(20);

/// `count` nodes of one host, each told to join the others.
fn each_with_the_others(host: &str, count: usize) -> Vec<(ProcessNetwork, String, Vec<String>)> {
    let ports: Vec<_> = (0..count).map(|_| free_port()).collect();
    let others = |own: u16| ports.iter().filter(move |port| **port != own);
    let node = |port: &u16| {
        let join = others(*port).map(|port| format!("{host}:{port}")).collect();
        (ProcessNetwork::Here, format!("127.0.0.1:{port}"), join)
    };
    ports.iter().map(node).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_nodes_that_join_the_four_others_become_one_ring() {
    let ring = RingCluster::joining_each(each_with_the_others("127.0.0.1", 5));
    ring.one(SOON).await;
}

/// `localhost` resolves to `[::1]` too, where none of them listens.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_join_the_others_by_the_name_localhost_become_one_ring() {
    let ring = RingCluster::joining_each(each_with_the_others("localhost", 3));
    ring.one(SOON).await;
}

/// Each node is reached at two addresses, neither of which is the one that it advertises.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_whose_names_resolve_to_several_of_their_addresses_become_one_ring() {
    let hosts = NamedTempFile::new().expect("a file");
    let lines = (1..=3).map(|n| format!("127.0.1.{n} node-{n}.test\n127.0.2.{n} node-{n}.test\n"));
    fs::write(hosts.path(), lines.collect::<String>()).expect("it is written");
    let network = ProcessNetwork::Hosts(hosts.path().to_owned());
    let ports = [free_port(), free_port(), free_port()];
    let join: Vec<_> =
        (1..=3).zip(ports).map(|(n, port)| format!("node-{n}.test:{port}")).collect();
    let nodes = ports.map(|port| (network.clone(), format!("0.0.0.0:{port}")));
    let ring = RingCluster::joining(nodes.to_vec(), &join);
    ring.one(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_reaches_no_other_logs_the_reason_every_ten_seconds() {
    let dead = format!("127.0.0.1:{}", free_port());
    let ring = RingCluster::joining_each(vec![(
        ProcessNetwork::Here,
        format!("127.0.0.1:{}", free_port()),
        vec![dead.clone(), "nobody.invalid:7071".to_owned()],
    )]);
    // Two take 20 s; a minute allows for a loaded machine.
    let log = wait_for("two reports", Duration::from_secs(60), || {
        let log = ring.log(0);
        (log.matches("no ring yet").count() >= 2).then_some(log)
    });
    for words in [&dead, "nobody.invalid:7071", "another node to answer at an address to join"] {
        assert!(log.contains(words), "{words} is not logged: {log}");
    }
}
