//! The metrics that Prometheus scrapes.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use shoal_common::channel::{Channel, Options};
use shoal_proto::tracker::v1::tracker_service_client::TrackerServiceClient;
use tokio::time::sleep;

use crate::{
    process::{DEADLINE, Process, command},
    rpc::announce,
};

fn scrape(address: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it is open");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("it answers");
    response
}

#[tokio::test(flavor = "multi_thread")]
async fn swarms_peers_and_announces_are_counted() {
    let tracker = Process::start(&mut command(&[
        "--limits-peers-per-swarm",
        "2",
        "--advertised-addresses",
        "any",
    ]));
    let address = tracker.address.parse().expect("it logs an address");
    let channel = Channel::connect(&address, &Options::default()).await.expect("it listens");
    let mut client = TrackerServiceClient::new(channel);
    for n in [1, 2] {
        client.announce(announce(n)).await.expect("there is room for two");
    }
    client.announce(announce(3)).await.expect_err("there is no room for a third");
    let lines = [
        "shoal_tracker_swarms 1",
        "shoal_tracker_peers 2",
        "shoal_tracker_announces_total{event=\"periodic\"} 3",
        "shoal_tracker_refused_total{limit=\"peers_per_swarm\"} 1",
    ];
    let deadline = Instant::now() + DEADLINE;
    loop {
        let metrics = scrape(&tracker.admin);
        if lines.iter().all(|line| metrics.lines().any(|metric| metric == *line)) {
            return;
        }
        assert!(Instant::now() < deadline, "{lines:?} are not in {metrics}");
        sleep(Duration::from_millis(50)).await;
    }
}
