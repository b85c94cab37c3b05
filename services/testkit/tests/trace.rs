//! One trace spans the command, the peer, the tracker and the peer that serves.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    net::TcpStream,
    process::Command,
};

use shoal_testkit::{
    cluster::{PATIENCE, random_bytes},
    collector::{Collector, Span},
    daemon::Peer,
    process::{Process, binary, free_port, wait_for},
};

/// The processes of each service that sent spans.
fn processes(spans: &[Span]) -> BTreeMap<&str, HashSet<u16>> {
    let mut processes: BTreeMap<&str, HashSet<u16>> = BTreeMap::new();
    for span in spans {
        processes.entry(&span.service).or_default().insert(span.process.port());
    }
    processes
}

#[test]
fn a_fetch_is_one_trace_through_command_peers_and_tracker() {
    let collector = Collector::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    // Sent every 100 ms, not every 5 s.
    let traced = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
    ];
    let tracker_address = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new(binary("shoal-tracker"));
    command.args(["--listen", &tracker_address, "--admin", "off"]).envs(traced);
    let mut tracker = Process::spawn("shoal-tracker", command);
    wait_for("the tracker", PATIENCE, || TcpStream::connect(&tracker_address).ok());

    let file = directory.path().join("data.bin");
    fs::write(&file, random_bytes(1_000_000, 1)).expect("it is written");
    let start = |name: &str, more: &[&str]| {
        let arguments = [&["--tracker", &tracker_address], more].concat();
        Peer::start(&directory.path().join(name), &arguments, &traced)
    };
    let mut seeder = start("seeder", &[]);
    let id = seeder.publish(&file);
    let mut peer = start("peer", &[]);
    let mut fetch = Command::new(binary("shoal"));
    fetch.args(["fetch", &id, "--control", &peer.control]).envs(traced);
    let fetched = fetch.output().expect("it runs");
    assert!(fetched.status.success(), "{fetched:?}");
    for process in [&mut peer.process, &mut seeder.process, &mut tracker] {
        process.terminate();
        assert!(process.wait(PATIENCE).success());
    }

    let spans = collector.spans();
    let root = spans.iter().find(|span| span.service == "shoal").expect("the command is traced");
    let of_fetch: Vec<_> = spans.iter().filter(|span| span.trace == root.trace).cloned().collect();
    let processes = processes(&of_fetch);
    let counts: Vec<_> =
        processes.iter().map(|(service, processes)| (*service, processes.len())).collect();
    let expected = [("shoal", 1), ("shoal-peer", 2), ("shoal-tracker", 1)];
    assert_eq!(counts, expected, "{of_fetch:#?}");
    for call in [
        "shoal.control.v1.ControlService/Fetch",
        "shoal.tracker.v1.TrackerService/Announce",
        "shoal.peer.v1.PeerService/GetManifest",
        "shoal.peer.v1.PeerService/RequestPiece",
    ] {
        assert!(of_fetch.iter().any(|span| span.name == call), "{call} is not in {of_fetch:#?}");
    }
}
