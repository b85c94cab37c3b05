//! Nodes that are started together become one ring, however they are told of each other.

use std::{fs, time::Duration};

use shoal_testkit::{
    fleet::Place,
    process::{free_port, wait_for},
    ring::Ring,
};
use tempfile::NamedTempFile;

/// Nodes that are not named to themselves leave the first word to those that are.
const SOON: Duration = Duration::from_secs(20);

/// So many addresses of one host, and for each those of the others.
fn each_with_the_others(host: &str, count: usize) -> Vec<(Place, String, Vec<String>)> {
    let ports: Vec<_> = (0..count).map(|_| free_port()).collect();
    let others = |own: u16| ports.iter().filter(move |port| **port != own);
    let node = |port: &u16| {
        let join = others(*port).map(|port| format!("{host}:{port}")).collect();
        (Place::Here, format!("127.0.0.1:{port}"), join)
    };
    ports.iter().map(node).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_nodes_told_of_the_four_others_become_one_ring() {
    let ring = Ring::joining_each(each_with_the_others("127.0.0.1", 5));
    ring.one(SOON).await;
}

/// `localhost` stands for `[::1]` too, where none of them listens.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_told_of_the_others_by_the_name_localhost_become_one_ring() {
    let ring = Ring::joining_each(each_with_the_others("localhost", 3));
    ring.one(SOON).await;
}

/// Each node is reached at two addresses, and at none of them under the one that it advertises.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_whose_names_stand_for_several_of_their_addresses_become_one_ring() {
    let hosts = NamedTempFile::new().expect("a file");
    let lines = (1..=3).map(|n| format!("127.0.1.{n} node-{n}.test\n127.0.2.{n} node-{n}.test\n"));
    fs::write(hosts.path(), lines.collect::<String>()).expect("it is written");
    let place = Place::Hosts(hosts.path().to_owned());
    let ports = [free_port(), free_port(), free_port()];
    let join: Vec<_> =
        (1..=3).zip(ports).map(|(n, port)| format!("node-{n}.test:{port}")).collect();
    let nodes = ports.map(|port| (place.clone(), format!("0.0.0.0:{port}")));
    let ring = Ring::joining(nodes.to_vec(), &join);
    ring.one(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_meets_nobody_says_every_ten_seconds_what_it_waits_for() {
    let dead = format!("127.0.0.1:{}", free_port());
    let ring = Ring::joining_each(vec![(
        Place::Here,
        format!("127.0.0.1:{}", free_port()),
        vec![dead.clone(), "nobody.invalid:7071".to_owned()],
    )]);
    // Twice in 20 s; a minute forgives a loaded machine.
    let log = wait_for("two reports", Duration::from_secs(60), || {
        let log = ring.log(0);
        (log.matches("no ring yet").count() >= 2).then_some(log)
    });
    for told in [&dead, "nobody.invalid:7071", "another node to answer at an address to join"] {
        assert!(log.contains(told), "{told} is not told: {log}");
    }
}
