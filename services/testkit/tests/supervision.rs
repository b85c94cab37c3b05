//! A process with a failed task reports that it is not ready, and exits with an error.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use shoal_testkit::{
    cluster::Cluster,
    process::{Process, binary, free_port, wait_for},
};
use tempfile::TempDir;
use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};
use tonic::{Streaming, transport::Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};

/// A process that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(20);
/// Open calls get 2 s to end, and all other tasks 3 s.
const GRACE: Duration = Duration::from_secs(8);

/// A service with a task that will panic.
struct FaultyService {
    process: Process,
    task: &'static str,
    faults: PathBuf,
    /// Changes of its health.
    health: Streaming<HealthCheckResponse>,
    runtime: Runtime,
    _directory: TempDir,
}

impl FaultyService {
    fn start(service: &str, task: &'static str, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (faults, data) = (directory.path().join("faults"), directory.path().join("data"));
        fs::create_dir(&faults).expect("it is created");
        let (address, admin) = (free_address(), free_address());
        let mut command = Command::new(binary(service));
        command.args(["--listen", &address, "--admin", &admin]);
        for argument in arguments {
            command.arg(argument.replace("DATA", data.to_str().expect("it is UTF-8")));
        }
        command.env("SHOAL_FAULTS", &faults).env_remove("RUST_BACKTRACE");
        let process = Process::spawn(service, command);
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        // The connections of the admin server close when it panics.
        let asked = if task == "admin server" { address } else { admin };
        let endpoint = Endpoint::from_shared(format!("http://{asked}")).expect("an address");
        let channel = wait_for(service, PATIENCE, || runtime.block_on(endpoint.connect()).ok());
        let watching =
            async { HealthClient::new(channel).watch(HealthCheckRequest::default()).await };
        let health = runtime.block_on(watching).expect("it reports its health").into_inner();
        Self { process, task, faults, health, runtime, _directory: directory }
    }

    /// Waits for the next change of its health. None if the process is gone.
    fn next(&mut self) -> Option<ServingStatus> {
        let change = async { timeout(PATIENCE, self.health.message()).await };
        // A binary built by `cargo test -p` lacks the testkit's feature, and ignores faults.
        let change = self.runtime.block_on(change).unwrap_or_else(|_| {
            panic!("{}: its health did not change; run `cargo build --workspace`", self.task)
        });
        Some(change.ok().flatten()?.status())
    }

    /// Waits until it is ready, makes the task panic, and checks how the process ends.
    fn panic_and_check(mut self) {
        let task = self.task;
        while self.next().unwrap_or_else(|| panic!("{task}: never ready")) != ServingStatus::Serving
        {
        }
        fs::write(self.faults.join(task), "").expect("it is written");
        let mut last = ServingStatus::Serving;
        while let Some(status) = self.next() {
            last = status;
        }
        assert_eq!(last, ServingStatus::NotServing, "{task}");
        assert_eq!(self.process.wait(GRACE).code(), Some(1), "{task}");
        wait_for(&format!("the error of {task}"), PATIENCE, || {
            let said = self.process.stderr();
            let named = format!("{task} panicked: a test wanted it");
            (said.contains(&named) && said.contains("ERROR")).then_some(())
        });
    }
}

fn free_address() -> String {
    format!("127.0.0.1:{}", free_port())
}

/// Runs all tasks' services at the same time: each waits for its calls to end.
fn each_panic_is_fatal(service: &str, arguments: &[&str], tasks: &[&'static str]) {
    let services: Vec<_> =
        tasks.iter().map(|task| FaultyService::start(service, task, arguments)).collect();
    services.into_iter().for_each(FaultyService::panic_and_check);
}

#[test]
fn a_tracker_exits_when_any_of_its_tasks_panics() {
    each_panic_is_fatal("shoal-tracker", &[], &["admin server", "sweep of the shards"]);
}

#[test]
fn a_ring_node_exits_when_any_of_its_tasks_panics() {
    let tasks = [
        "admin server",
        "store writer",
        "ring",
        "names to join by",
        "write queue",
        "reconciler",
        "range cleanup",
        "lease renewal",
        "repair",
        "known nodes",
    ];
    each_panic_is_fatal("shoal-dht-node", &["--data-dir", "DATA"], &tasks);
}

#[test]
fn a_peer_exits_when_any_of_its_tasks_panics() {
    let tasks = [
        "admin server",
        "engine",
        "io threads",
        "acceptor",
        "checkpoints",
        "notes of use",
        "memory",
    ];
    let control = "unix:DATA.sock";
    each_panic_is_fatal("shoal-peer", &["--data-dir", "DATA", "--control", control], &tasks);
}

#[test]
fn a_command_with_its_own_peer_exits_when_the_peer_fails() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 1_000_000, 1);
    let faults = cluster.path().join("faults");
    fs::create_dir(&faults).expect("it is created");
    let mut seeder = seed_with_faults(&cluster, &file, &faults);
    seeder.event("published", PATIENCE);
    fs::write(faults.join("engine"), "").expect("it is written");
    assert_eq!(seeder.wait(GRACE).code(), Some(1));
    let said = seeder.stderr();
    assert!(said.contains("error: engine panicked: a test wanted it"), "{said}");
}

fn seed_with_faults(cluster: &Cluster, file: &Path, faults: &Path) -> Process {
    let mut command = Command::new(binary("shoal"));
    command.arg("seed").arg(file).args(["--listen", "127.0.0.1:0", "--progress", "json"]);
    command.args(["--tracker", &cluster.tracker()]).env("SHOAL_FAULTS", faults);
    Process::spawn("shoal seed", command)
}
