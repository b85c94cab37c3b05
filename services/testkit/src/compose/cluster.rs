//! The Compose cluster under test: started, scaled and taken down by the script that users run.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use shoal_common::channel::{Channel, Options};
use shoal_core::Address;
use shoal_proto::peer::v1::{
    GetBitfieldRequest, GetBitfieldResponse, peer_service_client::PeerServiceClient,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{
    container::Container,
    docker::{docker, stdout_of},
    exits::Exits,
};
use crate::{
    files::{self, Fill},
    interrupt::Interrupt,
};

/// The Compose project, separate from a cluster that a developer runs on this machine.
const PROJECT: &str = "shoal-test";
/// The label of the containers of `shoal` commands.
const LABEL: &str = "shoal.cluster-test";
/// The ports that the services listen on.
pub(super) const PEER_PORT: u16 = 7072;
pub(super) const RING_PORT: u16 = 7071;
pub(super) const TRACKER_PORT: u16 = 7070;
/// How often a condition is checked.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Lines of each container's log that are shown after a failure.
const LOG_LINES: u32 = 60;

/// A running Compose project. Dropping it takes it down and removes its volumes.
pub struct Cluster {
    /// Holds the test files, and the copies taken from peers.
    pub folder: TempDir,
    /// Runs the calls to the services.
    pub runtime: Runtime,
    /// The exits of the project's containers.
    pub exits: Exits,
    interrupt: Interrupt,
}

/// A published file.
#[derive(Clone, Debug)]
pub struct Content {
    /// The content's id.
    pub id: String,
    /// The BLAKE3 hash of its bytes.
    pub hash: blake3::Hash,
}

/// A command `shoal` that runs in a container. The container is removed when this is dropped.
pub struct Shoal {
    process: Child,
    name: String,
}

impl Cluster {
    /// Removes what is left of an earlier run. Starts nothing yet.
    pub fn new(interrupt: Interrupt) -> anyhow::Result<Self> {
        let cluster = Self {
            folder: tempfile::Builder::new().prefix("shoal-cluster-").tempdir()?,
            runtime: Runtime::new()?,
            exits: Exits::listen(PROJECT)?,
            interrupt,
        };
        remove()?;
        Ok(cluster)
    }

    /// Runs the cluster script, as `make cluster-...` does.
    pub fn script(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.interrupt.check()?;
        stdout_of(script().args(arguments))
    }

    /// Starts the project with `peers` peers and waits until all containers are healthy.
    pub fn up(&self, peers: u32) -> anyhow::Result<()> {
        self.interrupt.check()?;
        stdout_of(script().arg("up").env("PEERS", peers.to_string())).map(drop)
    }

    /// Scales to `peers` peers and waits until they are healthy.
    pub fn scale(&self, peers: u32) -> anyhow::Result<()> {
        self.script(&["scale", &peers.to_string()]).map(drop)
    }

    /// Takes the project down, but keeps the ring nodes' volumes.
    pub fn down(&self) -> anyhow::Result<()> {
        self.script(&["down"]).map(drop)
    }

    /// The containers, also those that do not run, of the services whose names begin with
    /// `service`.
    pub fn containers(&self, service: &str) -> anyhow::Result<Vec<Container>> {
        let label = format!("label=com.docker.compose.project={PROJECT}");
        let lines = docker([
            "ps",
            "--all",
            "--no-trunc",
            "--filter",
            &label,
            "--format",
            Container::FORMAT,
        ])?;
        let all = lines.lines().filter_map(Container::parse);
        let mut found: Vec<_> = all.filter(|one| one.service.starts_with(service)).collect();
        found.sort_by_key(|container| (container.service.clone(), container.number));
        Ok(found)
    }

    /// The peers, in the order of their numbers. Fails unless there are `count`.
    pub fn peers(&self, count: usize) -> anyhow::Result<Vec<Container>> {
        let peers = self.containers("peer")?;
        ensure!(peers.len() == count, "there are {} peers, not {count}", peers.len());
        Ok(peers)
    }

    /// The first container of a service.
    pub fn container(&self, service: &str) -> anyhow::Result<Container> {
        let found = self.containers(service)?.into_iter().next();
        found.with_context(|| format!("there is no container of {service}"))
    }

    /// HOST:PORT of each running ring node.
    pub fn ring_nodes(&self) -> anyhow::Result<Vec<String>> {
        let nodes = self.containers("dht-node")?;
        let sockets = nodes.iter().filter_map(|node| node.socket(RING_PORT).ok());
        Ok(sockets.map(|socket| socket.to_string()).collect())
    }

    /// The name of the network of the services.
    pub fn network(&self) -> String {
        format!("{PROJECT}_default")
    }

    /// Writes a file of random bytes.
    pub fn file(&self, name: &str, bytes: u64) -> anyhow::Result<PathBuf> {
        let path = self.folder.path().join(name);
        files::write(&path, bytes, Fill::Random, &self.interrupt)?;
        Ok(path)
    }

    /// Writes a file and publishes it at a peer.
    pub fn publish(&self, peer: &Container, name: &str, bytes: u64) -> anyhow::Result<Content> {
        let path = self.file(name, bytes)?;
        let mount = format!("{}:/from/{name}:ro", path.display());
        let arguments = ["publish", "--quiet", &format!("/from/{name}")].map(ToOwned::to_owned);
        let id = self.at(peer, &["--user", "0:0", "--volume", &mount], &arguments)?.output()?;
        Ok(Content { id, hash: files::hash(&path)? })
    }

    /// Writes a file and seeds it from a container of its own, with an upload limit, until that is
    /// dropped.
    pub fn seed(&self, name: &str, bytes: u64, up: &str) -> anyhow::Result<(Shoal, Content)> {
        let path = self.file(name, bytes)?;
        let mount = format!("{}:/from/{name}:ro", path.display());
        let docker = ["--network", &self.network(), "--user", "0:0", "--volume", &mount];
        let path_inside = format!("/from/{name}");
        let shoal = ["seed", &path_inside, "--up", up, "--dht", "ring:7071"];
        let trackers = ["--tracker", "tracker-1:7070", "--tracker", "tracker-2:7070"];
        let arguments: Vec<_> = shoal.iter().chain(&trackers).map(ToString::to_string).collect();
        let seeder = Shoal::start(&docker, &arguments)?;
        let id = seeder.first_line(&self.interrupt)?;
        Ok((seeder, Content { id, hash: files::hash(&path)? }))
    }

    /// Starts `shoal fetch` of a content at a peer.
    pub fn fetch(&self, peer: &Container, content: &Content) -> anyhow::Result<Shoal> {
        self.at(peer, &[], &["fetch", &content.id].map(ToOwned::to_owned))
    }

    /// Starts a command `shoal` in the network of a peer, whose control API it reaches.
    pub fn at(
        &self,
        peer: &Container,
        docker: &[&str],
        arguments: &[String],
    ) -> anyhow::Result<Shoal> {
        self.interrupt.check()?;
        Shoal::beside(peer, docker, arguments)
    }

    /// How many pieces of a content a peer holds, by its own answer, and how many there are.
    pub fn held(&self, peer: &Container, content: &Content) -> anyhow::Result<(u32, u32)> {
        let address = Address::from(peer.socket(PEER_PORT)?);
        let request = GetBitfieldRequest { content_id: content.id.clone() };
        let GetBitfieldResponse { held_count, piece_count, .. } = self.runtime.block_on(async {
            let channel = Channel::connect(&address, &Options::default()).await?;
            let answer = PeerServiceClient::new(channel).get_bitfield(request).await;
            anyhow::Ok(answer.with_context(|| peer.name.clone())?.into_inner())
        })?;
        Ok((held_count, piece_count))
    }

    /// Fails unless a peer says that it holds all of a content, and its data equals the published
    /// file.
    pub fn check_copy(&self, peer: &Container, content: &Content) -> anyhow::Result<()> {
        let (held, pieces) = self.held(peer, content)?;
        ensure!(held == pieces, "{} holds {held} of {pieces} pieces", peer.name);
        let copy = self.folder.path().join(&peer.name);
        peer.copy_out(&format!("/var/lib/shoal/contents/{}/blobs/1", content.id), &copy)?;
        files::check_copy(&copy, content.hash).with_context(|| peer.name.clone())?;
        std::fs::remove_file(&copy)?;
        Ok(())
    }

    /// Waits until a download is between a tenth and complete. Fails if it completes unseen.
    pub fn wait_until_under_way(&self, peer: &Container, of: &Content) -> anyhow::Result<()> {
        self.wait_for("a download in progress", Duration::from_secs(30), || {
            // The peer does not know the content before it has the manifest.
            let (held, pieces) = self.held(peer, of).unwrap_or((0, 1));
            ensure!(held < pieces, "{} was complete too soon", peer.name);
            Ok((held > pieces / 10).then_some(()))
        })
    }

    /// Waits until `condition` returns a value. Fails after `patience`, or when the condition
    /// fails.
    pub fn wait_for<T>(
        &self,
        what: &str,
        patience: Duration,
        condition: impl FnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        self.interrupt.wait_for(what, LOOK_EVERY, patience, condition)
    }

    /// The last log lines of the containers of these services.
    pub fn logs(&self, services: &[&str]) -> String {
        let mut text = String::new();
        for service in services {
            for container in self.containers(service).unwrap_or_default() {
                let title = format!("--- {}\n", container.name);
                text.extend([title, container.log(LOG_LINES)]);
            }
        }
        text
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = remove() {
            eprintln!("cannot take the cluster down: {error:#}");
        }
    }
}

impl Shoal {
    /// Starts a command in the network of a peer, whose control API it reaches.
    pub fn beside(peer: &Container, docker: &[&str], arguments: &[String]) -> anyhow::Result<Self> {
        let network = format!("container:{}", peer.id);
        let docker: Vec<_> = ["--network", &network, "--env", "SHOAL_CONTROL=127.0.0.1:7073"]
            .into_iter()
            .chain(docker.iter().copied())
            .collect();
        Self::start(&docker, arguments)
    }

    fn start(docker: &[&str], arguments: &[String]) -> anyhow::Result<Self> {
        let name = format!("{PROJECT}-{}", uuid::Uuid::new_v4());
        let mut command = Command::new("docker");
        command.args(["run", "--rm", "--read-only", "--name", &name, "--label", LABEL]);
        command.args(docker).arg("shoal/cli:dev").args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let process = command.spawn().context("cannot run docker")?;
        Ok(Self { process, name })
    }

    /// Waits for its end. Returns its stdout, or an error with its stderr.
    pub fn output(mut self) -> anyhow::Result<String> {
        let stdout = self.process.stdout.take().context("stdout was taken")?;
        let stdout = std::io::read_to_string(stdout)?;
        let stderr = self.process.stderr.take().context("stderr was taken")?;
        let stderr = std::io::read_to_string(stderr)?;
        let status = self.process.wait()?;
        ensure!(status.success(), "shoal: {status}: {}", stderr.trim_end());
        Ok(stdout.trim_end().to_owned())
    }

    /// Waits for the first line of output of a command that keeps running.
    fn first_line(&self, interrupt: &Interrupt) -> anyhow::Result<String> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            interrupt.check()?;
            // `docker logs` fails until the container exists.
            let printed = docker(["logs", &self.name]).unwrap_or_default();
            if let Some(line) = printed.lines().next() {
                return Ok(line.to_owned());
            }
            ensure!(Instant::now() < deadline, "{} has printed nothing within 30 s", self.name);
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Shoal {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(Some(_))) {
            return;
        }
        // The removal fails if the container has just ended.
        let _ = docker(["rm", "--force", &self.name]);
        let _ = self.process.wait();
    }
}

/// Takes the project down and removes its volumes and the containers of commands.
fn remove() -> anyhow::Result<()> {
    let label = format!("label={LABEL}");
    let commands = docker(["ps", "--all", "--quiet", "--filter", &label])?;
    for command in commands.lines() {
        docker(["rm", "--force", command])?;
    }
    stdout_of(script().arg("down").env("VOLUMES", "1")).map(drop)
}

fn script() -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/cluster");
    let mut command = Command::new(path);
    // With ports empty, Docker chooses free ones: another cluster may run on this machine.
    command.env("PROJECT", PROJECT).env("SHOAL_TRACKER_PORT", "").env("SHOAL_RING_PORT", "");
    command
}
