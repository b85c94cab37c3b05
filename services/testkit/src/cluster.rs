//! A swarm of real processes on loopback: a tracker or a ring, seeders, and one-shot downloads.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tempfile::TempDir;

use crate::process::{Process, binary, free_port, wait_for};

/// The longest wait for any single event, ample on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A tracker or the addresses of ring nodes, and a temporary directory for all files.
pub struct Cluster {
    directory: TempDir,
    tracker: Option<Tracker>,
    /// HOST:PORT of each ring node.
    ring_nodes: Vec<String>,
}

struct Tracker {
    process: Process,
    arguments: Vec<String>,
    port: u16,
}

/// A process that seeds a content.
pub struct Seeder {
    /// `shoal seed`.
    pub process: Process,
    /// The content's id.
    pub id: String,
    /// HOST:PORT that it listens on.
    pub address: String,
}

/// A process that fetches a content.
pub struct Getter {
    /// `shoal get`.
    pub process: Process,
    /// The directory that it downloads into.
    pub directory: PathBuf,
}

impl Cluster {
    /// Starts a tracker.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a tracker with more arguments.
    pub fn start_with(more: &[&str]) -> Self {
        let port = free_port();
        let listen = format!("127.0.0.1:{port}");
        let arguments: Vec<_> = ["--listen", &listen, "--admin", "off"]
            .iter()
            .chain(more)
            .map(ToString::to_string)
            .collect();
        let process = start_tracker(&arguments, port);
        Self { tracker: Some(Tracker { process, arguments, port }), ..Self::by_ring(&[]) }
    }

    /// A cluster without a tracker: peers know only these ring nodes.
    pub fn by_ring(nodes: &[String]) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        Self { directory, tracker: None, ring_nodes: nodes.to_vec() }
    }

    /// The temporary directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// HOST:PORT of the tracker.
    pub fn tracker(&self) -> String {
        let tracker = self.tracker.as_ref().expect("the cluster has a tracker");
        format!("127.0.0.1:{}", tracker.port)
    }

    /// The tracker's process.
    pub fn tracker_process(&self) -> &Process {
        &self.tracker.as_ref().expect("the cluster has a tracker").process
    }

    /// Kills the tracker.
    pub fn kill_tracker(&mut self) {
        self.tracker.as_mut().expect("the cluster has a tracker").process.kill();
    }

    /// Restarts the tracker at the same port. It has lost all state.
    pub fn restart_tracker(&mut self) {
        self.kill_tracker();
        let tracker = self.tracker.as_mut().expect("the cluster has a tracker");
        tracker.process = start_tracker(&tracker.arguments, tracker.port);
    }

    /// The arguments that tell a peer its tracker and ring nodes.
    pub(crate) fn discovery_arguments(&self) -> Vec<String> {
        let tracker = self.tracker.as_ref().map(|_| ["--tracker".to_owned(), self.tracker()]);
        let ring_nodes = self.ring_nodes.iter().map(|node| ["--dht".to_owned(), node.clone()]);
        tracker.into_iter().chain(ring_nodes).flatten().collect()
    }

    /// Writes a file of `bytes` incompressible bytes, which depend only on `seed`.
    pub fn file(&self, name: &str, bytes: usize, seed: u64) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("below the directory"))
            .expect("the directory is made");
        fs::write(&path, random_bytes(bytes, seed)).expect("the file is written");
        path
    }

    /// Seeds the file or tree at `path`.
    pub fn seed(&self, path: &Path, more: &[&str]) -> Seeder {
        let path = path.to_str().expect("the paths of tests are UTF-8");
        let address = format!("127.0.0.1:{}", free_port());
        let discovery = self.discovery_arguments();
        let mut arguments = vec!["seed", path, "--listen", &address, "--progress", "json"];
        arguments.extend(discovery.iter().map(String::as_str));
        arguments.extend(more);
        let process = Process::start("shoal", arguments);
        let published = process.event("published", PATIENCE);
        let id = published["id"].as_str().expect("the event has an id").to_owned();
        Seeder { process, id, address }
    }

    /// Fetches a content into the directory `name`.
    pub fn get(&self, id: &str, name: &str, more: &[&str]) -> Getter {
        self.start_get(id, name, more, "warn")
    }

    /// The same, with `log` as `RUST_LOG`.
    pub fn get_with_log(&self, id: &str, name: &str, log: &str) -> Getter {
        self.start_get(id, name, &[], log)
    }

    fn start_get(&self, id: &str, name: &str, more: &[&str], log: &str) -> Getter {
        let directory = self.path().join(name);
        fs::create_dir_all(&directory).expect("the directory is made");
        let output = directory.to_str().expect("the paths of tests are UTF-8").to_owned();
        let discovery = self.discovery_arguments();
        let mut arguments = vec!["get", id, "-o", &output];
        arguments.extend(["--listen", "127.0.0.1:0", "--progress", "json"]);
        arguments.extend(discovery.iter().map(String::as_str));
        arguments.extend(more);
        let mut command = Command::new(binary("shoal"));
        command.args(arguments).env("RUST_LOG", log);
        Getter { process: Process::spawn("shoal get", command), directory }
    }
}

impl Getter {
    /// Waits for the `completed` event.
    pub fn completed(&self) -> serde_json::Value {
        self.process.event("completed", PATIENCE)
    }

    /// Waits until the progress events report at least `bytes` held.
    pub fn wait_for_bytes(&self, bytes: u64) {
        wait_for("progress of a download", PATIENCE, || {
            let held = self.process.last_event("progress")?["held_bytes"].as_u64()?;
            (held >= bytes).then_some(())
        });
    }
}

fn start_tracker(arguments: &[String], port: u16) -> Process {
    let tracker = Process::start("shoal-tracker", arguments);
    wait_for("the tracker", PATIENCE, || TcpStream::connect(("127.0.0.1", port)).ok());
    tracker
}

/// Incompressible bytes, which depend only on the seed.
pub fn random_bytes(count: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; count];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Panics unless two files, or two directory trees, have the same names and bytes.
pub fn assert_same(left: &Path, right: &Path) {
    if left.is_dir() {
        let names = |path: &Path| {
            let entries = fs::read_dir(path).expect("the directory can be read");
            let mut names: Vec<_> =
                entries.map(|entry| entry.expect("an entry").file_name()).collect();
            names.sort();
            names
        };
        let expected = names(left);
        assert_eq!(expected, names(right), "{} and {}", left.display(), right.display());
        for name in expected {
            assert_same(&left.join(&name), &right.join(&name));
        }
        return;
    }
    let read =
        |path: &Path| fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(read(left) == read(right), "{} and {} differ", left.display(), right.display());
}
