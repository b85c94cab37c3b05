//! The load generator against real services.

use std::{fs, net::TcpStream};

use serde_json::Value;
use shoal_testkit::{
    cluster::{Cluster, PATIENCE},
    process::{Process, free_port, run, wait_for},
    ring::RingCluster,
};
use tokio::runtime::Runtime;

/// Runs the load generator. Returns its report.
fn load(arguments: &[&str]) -> Value {
    let output = run("shoal-loadgen", &[arguments, &["--json", "-"]].concat(), b"");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn a_mixed_load_calls_all_services_and_compares_them_with_a_bare_echo() {
    let ring = Runtime::new().expect("a runtime").block_on(RingCluster::of(1));
    let cluster = Cluster::start();
    let seeder = cluster.seed(&cluster.file("source/data.bin", 80 << 18, 1), &[]);
    let echo = format!("127.0.0.1:{}", free_port());
    let _echo = Process::start("shoal-loadgen", ["echo", "--listen", &echo]);
    wait_for("the echo", PATIENCE, || TcpStream::connect(&echo).ok());
    let plot = cluster.path().join("plot.svg");
    let (tracker, node) = (cluster.tracker(), ring.address(0));
    let report = load(
        &[
            &["mixed", "--tracker", &tracker, "--dht", &node, "--keys", "10", "--reads", "0.5"][..],
            &["--peer", &seeder.address, "--content", &seeder.id, "--concurrency", "2"],
            &["--calls", "200", "--duration", "1m", "--connections", "2", "--baseline", &echo],
            &["--plot", plot.to_str().expect("the paths of tests are UTF-8")],
        ]
        .concat(),
    );
    assert_eq!(report["connections"], 6);
    let operations = &report["measured"]["operations"];
    for name in ["announce", "lookup"] {
        assert_eq!(operations[name]["answered"], 50, "{report:#}");
    }
    let count = |name: &str| operations[name]["answered"].as_u64().unwrap_or(0);
    assert_eq!(count("get") + count("put"), 50, "{report:#}");
    assert!(count("get") > 0 && count("put") > 0, "{report:#}");
    // Calls of 64 pieces of 64 KiB each, if the peer has a slot for a stranger.
    assert!(count("pieces") > 0, "{report:#}");
    let bytes = operations["pieces"]["bytes"].as_u64().expect("bytes");
    assert_eq!(bytes / count("pieces"), 4 << 20, "{report:#}");
    assert_eq!(report["baseline"]["total"]["answered"], 200, "{report:#}");
    let svg = fs::read_to_string(plot).expect("the plot is written");
    for curve in ["median", "99 %", "echo, median", "echo, 99 %"] {
        assert!(svg.lines().any(|line| line.trim() == curve), "{curve}");
    }
    // Its announces add no peer to the seeder's swarm.
    let swarm = run("shoal", &["swarm", &seeder.id, "--tracker", &tracker, "--json"], b"");
    let swarm: Value = serde_json::from_slice(&swarm.stdout).expect("JSON");
    assert_eq!(swarm["complete_count"], 1);
}

#[test]
fn an_open_loop_calls_at_the_requested_rate() {
    let cluster = Cluster::start();
    let tracker = cluster.tracker();
    let report = load(&["announce", "--tracker", &tracker, "--rate", "100", "--duration", "2s"]);
    assert_eq!(report["loop"], serde_json::json!({ "kind": "open", "calls_per_s": 100 }));
    assert_eq!(report["measured"]["total"]["answered"], 200, "{report:#}");
    assert_eq!(report["measured"]["timeline"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_swarm_load_fetches_from_all_peers_that_the_tracker_names() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 1_000_000, 1);
    let first = cluster.seed(&file, &[]);
    let second = cluster.seed(&file, &[]);
    let tracker = cluster.tracker();
    for seeder in [&first, &second] {
        wait_for("a seeder at the tracker", PATIENCE, || {
            let known = run("shoal", &["swarm", &first.id, "--tracker", &tracker], b"");
            String::from_utf8_lossy(&known.stdout).contains(&seeder.address).then_some(())
        });
    }
    let swarm = ["swarm", "--tracker", &tracker, "--content", &first.id];
    let report = load(&[&swarm[..], &["--calls", "10", "--concurrency", "1"]].concat());
    assert_eq!(report["targets"].as_array().map(Vec::len), Some(2), "{report:#}");
    assert_eq!(report["measured"]["total"]["answered"], 10, "{report:#}");
}

#[test]
fn it_fails_with_a_clear_error_when_no_service_can_be_called() {
    let closed = format!("127.0.0.1:{}", free_port());
    let output = run("shoal-loadgen", &["lookup", "--dht", &closed], b"");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("refused") && said.contains("no ring node can be called"), "{said}");
    // A service of another kind.
    let cluster = Cluster::start();
    let tracker = cluster.tracker();
    let output = run("shoal-loadgen", &["lookup", "--dht", &tracker, "--calls", "3"], b"");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("UNIMPLEMENTED: 3"), "{said}");
    assert_eq!(run("shoal-loadgen", &["lookup"], b"").status.code(), Some(2));
}
