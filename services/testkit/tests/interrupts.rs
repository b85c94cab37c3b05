//! A process that gets a signal ends soon, whatever it is doing.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use shoal_testkit::{
    cluster::Cluster,
    process::{Process, binary, wait_for},
};

/// As long as a peer's farewell may take; Kubernetes allows 30 s.
const GRACE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(20);

/// A sparse file, which takes minutes to hash: a hole is not read, but its hash is computed.
fn huge(directory: &Path) -> PathBuf {
    let path = directory.join("huge.bin");
    let file = File::create(&path).expect("it is created");
    file.set_len(2 << 40).expect("the file system has sparse files");
    path
}

/// Waits until a process has used so much processor time that it must be hashing.
fn wait_until_busy(process: &Process) {
    let before = process.cpu_time().expect("it runs");
    wait_for("the process to hash", PATIENCE, || {
        let used = process.cpu_time()?.checked_sub(before)?;
        (used > Duration::from_millis(300)).then_some(())
    });
}

fn seeding(cluster: &Cluster) -> Process {
    let file = huge(cluster.path());
    let mut command = Command::new(binary("shoal"));
    command.arg("seed").arg(file).args(["--listen", "127.0.0.1:0", "--tracker"]);
    let process = Process::spawn("shoal seed", {
        command.arg(cluster.tracker());
        command
    });
    wait_until_busy(&process);
    process
}

#[test]
fn a_command_that_hashes_ends_on_a_signal() {
    let cluster = Cluster::start();
    let mut seed = seeding(&cluster);
    seed.terminate();
    assert_eq!(seed.wait(GRACE).code(), Some(130));
    assert!(seed.stderr().contains("interrupted; nothing was shared"), "{}", seed.stderr());
}

#[test]
fn a_peer_that_hashes_a_file_published_in_place_ends_on_a_signal() {
    let cluster = Cluster::start();
    let mut peer = cluster.peer("peer", &[]);
    let file = huge(cluster.path());
    let mut command = Command::new(binary("shoal"));
    command.args(["publish", "--in-place", "--control", &peer.control]).arg(file);
    let mut publish = Process::spawn("shoal publish", command);
    wait_until_busy(&peer.process);
    peer.process.terminate();
    assert_eq!(peer.process.wait(GRACE).code(), Some(0));
    assert!(!publish.wait(GRACE).success());
}

#[test]
fn a_peer_stops_hashing_when_the_caller_is_gone() {
    let cluster = Cluster::start();
    let peer = cluster.peer("peer", &[]);
    let file = huge(cluster.path());
    let mut command = Command::new(binary("shoal"));
    command.args(["publish", "--in-place", "--control", &peer.control]).arg(file);
    let mut publish = Process::spawn("shoal publish", command);
    wait_until_busy(&peer.process);
    publish.kill();
    wait_for("the peer to be idle", PATIENCE, || {
        let before = peer.process.cpu_time()?;
        thread::sleep(Duration::from_millis(500));
        let used = peer.process.cpu_time()?.checked_sub(before)?;
        (used < Duration::from_millis(100)).then_some(())
    });
}

#[test]
fn a_peer_that_receives_an_upload_ends_on_a_signal() {
    let cluster = Cluster::start();
    let mut peer = cluster.peer("peer", &[]);
    // The command hashes it first, and then sends it.
    let file = cluster.file("large.bin", 600_000_000, 1);
    let mut command = Command::new(binary("shoal"));
    command.args(["publish", "--control", &peer.control]).arg(file);
    let mut publish = Process::spawn("shoal publish", command);
    wait_until_busy(&peer.process);
    peer.process.terminate();
    assert_eq!(peer.process.wait(GRACE).code(), Some(0));
    assert!(!publish.wait(GRACE).success());
}

#[test]
fn a_second_signal_ends_a_peer_immediately() {
    let cluster = Cluster::start();
    let mut peer = cluster.peer("peer", &[]);
    let file = huge(cluster.path());
    let mut command = Command::new(binary("shoal"));
    command.args(["publish", "--in-place", "--control", &peer.control]).arg(file);
    let _publish = Process::spawn("shoal publish", command);
    wait_until_busy(&peer.process);
    peer.process.terminate();
    wait_for("the first signal to be handled", PATIENCE, || {
        peer.process.stderr().contains("shutting down").then_some(())
    });
    peer.process.terminate();
    assert_eq!(peer.process.wait(Duration::from_secs(2)).code(), Some(130));
}
