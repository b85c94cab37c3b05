//! The memory, connections and time that strangers can take from a process are bounded.

use std::{fs, path::Path, time::Duration};

use shoal_common::health;
use shoal_core::Address;
use shoal_testkit::{
    cluster::{Cluster, PATIENCE},
    hostile::{
        Meter, Taken,
        empties::{self, RING_METHODS},
        half_sent::HalfSent,
        idle::{Opening, open, still_open},
        unread::LazyReaders,
    },
    process::{Process, free_port, wait_for},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::Code;

const MIB: u64 = 1 << 20;
/// No attack takes more memory.
const MOST: u64 = 64 * MIB;
/// The time limit for a request to arrive, besides the time for its bytes.
const REQUEST_PATIENCE: Duration = Duration::from_secs(30);
/// Kubernetes waits for 1 s.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);
/// After an attack, a process keeps less memory than this.
const GIVEN_BACK: u64 = 24 * MIB;

fn text(path: &Path) -> &str {
    path.to_str().expect("the paths of tests are UTF-8")
}

fn print(attack: &str, taken: Taken) {
    println!("{attack}: {taken}");
}

fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// A single ring node, its address and its admin address.
fn ring_node(directory: &TempDir) -> (Process, String, String) {
    let (address, admin) = (local(free_port()), local(free_port()));
    let data = directory.path().join("ring");
    let arguments = ["--listen", &address, "--admin", &admin, "--data-dir", text(&data)];
    let node = Process::start("shoal-dht-node", arguments);
    wait_for("a ring node", PATIENCE, || is_healthy(&admin).then_some(()));
    (node, address, admin)
}

/// The result of a Kubernetes probe of the admin port.
fn is_healthy(admin: &str) -> bool {
    let address: Address = admin.parse().expect("an address");
    let asked = async { tokio::time::timeout(PROBE_PATIENCE, health::check(&address)).await };
    Runtime::new().expect("a runtime").block_on(asked).is_ok_and(|health| health.is_ok())
}

/// Waits until the process has given memory back.
fn wait_until_given_back(meter: &Meter) -> Taken {
    wait_for("memory to be given back", PATIENCE, || {
        let taken = meter.read();
        (taken.kept() < GIVEN_BACK).then_some(taken)
    })
}

#[test]
fn lists_of_empty_elements_are_refused_before_decoding() {
    let directory = TempDir::new().expect("a directory");
    let (node, address, admin) = ring_node(&directory);
    let runtime = Runtime::new().expect("a runtime");
    for (method, wrapped) in RING_METHODS {
        // The longest message of any method, the longest of most methods, and a short one.
        for bytes in [(4 << 20) - 16, 255 << 10, 16 << 10] {
            let message = empties::message(wrapped, bytes);
            let meter = Meter::start(&node);
            let codes = runtime.block_on(empties::send(&address, method, &message, 8));
            let taken = meter.read();
            print(&format!("8 x {bytes} bytes of empty elements to {method}"), taken);
            let refused = [
                Code::InvalidArgument,
                Code::OutOfRange,
                Code::ResourceExhausted,
                Code::Unavailable,
            ];
            assert!(codes.iter().all(|code| refused.contains(code)), "{method}: {codes:?}");
            assert!(taken.grown() < MOST, "{method}: {taken}");
        }
    }
    assert!(is_healthy(&admin));
}

#[test]
fn half_sent_calls_end_and_take_little_memory() {
    let directory = TempDir::new().expect("a directory");
    let (node, ring, admin) = ring_node(&directory);
    let cluster = Cluster::start();
    let peer = cluster.peer("peer", &[]);
    let runtime = Runtime::new().expect("a runtime");
    for (process, address, method, bytes) in [
        (&node, &ring, "/shoal.dht.v1.ReplicaService/HandIn", 4 << 20),
        (&node, &ring, "/shoal.dht.v1.DhtService/Put", 255 << 10),
        (&node, &admin, "/grpc.health.v1.Health/Check", 8 << 10),
        (&peer.process, &peer.address, "/shoal.peer.v1.PeerService/Exchange", 511 << 10),
        (&peer.process, &peer.control, "/shoal.control.v1.ControlService/Upload", 511 << 10),
    ] {
        let meter = Meter::start(process);
        let codes = runtime.block_on(async {
            let calls = HalfSent::start(address, method, bytes, 60).await;
            calls.ended(REQUEST_PATIENCE + Duration::from_secs((bytes >> 16) as u64)).await
        });
        print(&format!("60 calls of {method} without the last of {bytes} bytes"), meter.read());
        let codes = codes.unwrap_or_else(|| panic!("{method}: some are still open"));
        assert!(!codes.contains(&Code::Ok), "{method}: {codes:?}");
        let taken = wait_until_given_back(&meter);
        assert!(taken.grown() < MOST, "{method}: {taken}");
    }
}

#[test]
fn callers_that_do_not_read_a_manifest_share_it_and_are_disconnected() {
    let cluster = Cluster::start();
    let tree = cluster.path().join("tree");
    fs::create_dir_all(&tree).expect("it is created");
    for number in 0..8_000 {
        let name = format!("{number:06}{}", "x".repeat(200));
        fs::write(tree.join(name), [number as u8]).expect("it is written");
    }
    let peer = cluster.peer("peer", &[]);
    let id = peer.publish(&tree);
    let runtime = Runtime::new().expect("a runtime");
    let meter = Meter::start(&peer.process);
    let (readers, hung_up) = runtime.block_on(async {
        let readers = LazyReaders::start(&peer.address, &id, 4, 64).await;
        let count = readers.len();
        // Twice the time limit for a caller that takes nothing, and 5 s more.
        (count, readers.hung_up(Duration::from_secs(65)).await)
    });
    print(&format!("{readers} lazy readers of a manifest of 2 MB"), meter.read());
    assert!(readers >= 64, "{readers}");
    assert_eq!(hung_up, readers);
    let taken = wait_until_given_back(&meter);
    assert!(taken.grown() < MOST, "{taken}");
}

#[test]
fn a_probe_of_the_admin_port_is_always_answered() {
    let directory = TempDir::new().expect("a directory");
    let (_node, _, admin) = ring_node(&directory);
    for opening in [Opening::Silent, Opening::Http2, Opening::Http1] {
        let mut idle = open(&admin, opening, 90);
        for _ in 0..5 {
            assert!(is_healthy(&admin), "{opening:?}");
        }
        let open = still_open(&mut idle);
        println!("{opening:?}: {open} of 90 idle connections are left");
        assert!(open < 64, "{opening:?}: {open}");
    }
}

#[test]
fn idle_connections_of_one_source_leave_slots_for_others() {
    let cluster = Cluster::start_with(&["--limits-connections", "20"]);
    let mut idle = open(&cluster.tracker(), Opening::Http2, 100);
    // Before any of them counts as dead.
    let soon = Duration::from_secs(10);
    wait_for("connections to be closed", soon, || (still_open(&mut idle) <= 10).then_some(()));
    // Idle connections are closed when a caller needs a slot.
    let file = cluster.file("source/data.bin", 100_000, 1);
    let seeder = cluster.seed(&file, &[]);
    cluster.get(&seeder.id, "getter", &[]).completed();
}
