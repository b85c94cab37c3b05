//! A process of which a part has failed says that it is not ready, and ends with an error.

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

/// Nothing here takes longer, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);
/// Open calls are given 2 s, and all that ends 3 s.
const GRACE: Duration = Duration::from_secs(8);

/// A service with a task that is about to panic.
struct Victim {
    process: Process,
    task: &'static str,
    faults: PathBuf,
    /// What it says of its health from now on.
    health: Streaming<HealthCheckResponse>,
    runtime: Runtime,
    _directory: TempDir,
}

impl Victim {
    fn start(service: &str, task: &'static str, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (faults, data) = (directory.path().join("faults"), directory.path().join("data"));
        fs::create_dir(&faults).expect("it is made");
        let (address, admin) = (free_address(), free_address());
        let mut command = Command::new(binary(service));
        command.args(["--listen", &address, "--admin", &admin]);
        for argument in arguments {
            command.arg(argument.replace("DATA", data.to_str().expect("it is UTF-8")));
        }
        command.env("SHOAL_FAULTS", &faults).env_remove("RUST_BACKTRACE");
        let process = Process::spawn(service, command);
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        // Who accepts connections has them close with it.
        let asked = if task == "admin server" { address } else { admin };
        let endpoint = Endpoint::from_shared(format!("http://{asked}")).expect("an address");
        let channel = wait_for(service, PATIENCE, || runtime.block_on(endpoint.connect()).ok());
        let watching =
            async { HealthClient::new(channel).watch(HealthCheckRequest::default()).await };
        let health = runtime.block_on(watching).expect("it tells its health").into_inner();
        Self { process, task, faults, health, runtime, _directory: directory }
    }

    /// The next time that its health changes. None if the process is gone.
    fn next(&mut self) -> Option<ServingStatus> {
        let said = async { timeout(PATIENCE, self.health.message()).await };
        // A binary of `cargo test -p` lacks the feature of the testkit, and feels no fault.
        let said = self.runtime.block_on(said).unwrap_or_else(|_| {
            panic!("{}: its health did not change; run `cargo build --workspace`", self.task)
        });
        Some(said.ok().flatten()?.status())
    }

    /// Waits until it is ready, has the task panic, and sees what comes of it.
    fn suffer(mut self) {
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
        wait_for(&format!("a word of {task}"), PATIENCE, || {
            let said = self.process.stderr();
            let named = format!("{task} panicked: a test wanted it");
            (said.contains(&named) && said.contains("ERROR")).then_some(())
        });
    }
}

fn free_address() -> String {
    format!("127.0.0.1:{}", free_port())
}

/// All at the same time: each has to wait for its calls to end.
fn each_is_fatal(service: &str, arguments: &[&str], tasks: &[&'static str]) {
    let victims: Vec<_> =
        tasks.iter().map(|task| Victim::start(service, task, arguments)).collect();
    victims.into_iter().for_each(Victim::suffer);
}

#[test]
fn a_tracker_ends_with_each_of_its_tasks() {
    each_is_fatal("shoal-tracker", &[], &["admin server", "sweep of the shards"]);
}

#[test]
fn a_ring_node_ends_with_each_of_its_tasks() {
    let tasks = [
        "admin server",
        "store writer",
        "ring",
        "names to join by",
        "write lane",
        "reconciler",
        "range cleanup",
        "lease renewal",
        "repair",
        "known nodes",
    ];
    each_is_fatal("shoal-dht-node", &["--data-dir", "DATA"], &tasks);
}

#[test]
fn a_peer_ends_with_each_of_its_tasks() {
    let tasks =
        ["admin server", "engine", "lanes", "acceptor", "checkpoints", "notes of use", "memory"];
    let control = "unix:DATA.sock";
    each_is_fatal("shoal-peer", &["--data-dir", "DATA", "--control", control], &tasks);
}

#[test]
fn a_command_that_takes_part_itself_ends_with_its_peer() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 1_000_000, 1);
    let faults = cluster.path().join("faults");
    fs::create_dir(&faults).expect("it is made");
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
