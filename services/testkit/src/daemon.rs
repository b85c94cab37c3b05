//! Peers as daemons, with their control API.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use shoal_proto::control::v1::{
    ContentState, ContentStatus, ExplainRequest, ExplainResponse, FetchRequest, ListRequest,
    WatchRequest, WatchResponse, control_service_client::ControlServiceClient,
    observe_service_client::ObserveServiceClient,
};
use tokio::runtime::{Builder, Runtime};
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

use crate::{
    cluster::{Cluster, PATIENCE},
    process::{Process, binary, free_port, run, wait_for},
};

/// A running `shoal-peer`.
pub struct Peer {
    /// The daemon.
    pub process: Process,
    /// HOST:PORT where other peers find it.
    pub address: String,
    /// Its control API, as `--control` takes it.
    pub control: String,
    /// Where it keeps what it holds.
    pub data_dir: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    runtime: Runtime,
}

/// What a peer tells of one content.
pub struct Watch<'a> {
    changes: Streaming<WatchResponse>,
    runtime: &'a Runtime,
}

impl Cluster {
    /// Starts a peer that knows where others are found, with a data directory of that name.
    pub fn peer(&self, name: &str, more: &[&str]) -> Peer {
        let places = self.places();
        let arguments: Vec<_> =
            places.iter().map(String::as_str).chain(more.iter().copied()).collect();
        Peer::start(&self.path().join(name), &arguments, &[])
    }
}

impl Peer {
    /// Starts a peer, and waits until its control API answers.
    pub fn start(data_dir: &Path, more: &[&str], environment: &[(&str, &str)]) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let control = format!("unix:{}", data_dir.join("control.sock").display());
        let mut arguments = arguments(data_dir, &address, &control);
        arguments.extend(more.iter().map(ToString::to_string));
        let environment: Vec<_> = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Self {
            process: spawn(&arguments, &environment, &control),
            address,
            control,
            data_dir: data_dir.to_owned(),
            arguments,
            environment,
            runtime: Builder::new_current_thread().enable_all().build().expect("a runtime"),
        }
    }

    /// Kills it as `kill -9` does, and starts it again with the same data directory and ports.
    pub fn kill_and_restart(&mut self) {
        self.process.kill();
        self.process = spawn(&self.arguments, &self.environment, &self.control);
    }

    /// Runs the command `shoal` with it as its peer.
    pub fn shoal(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary("shoal"));
        command.args(arguments).args(["--control", &self.control]);
        command.output().expect("the command runs")
    }

    /// What its own health check says.
    pub fn is_ready(&self) -> bool {
        run("shoal-peer", &["health", "--listen", &self.address], b"").status.success()
    }

    /// What the command `shoal` prints when it succeeds.
    pub fn answer(&self, arguments: &[&str]) -> String {
        let output = self.shoal(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).expect("output is text").trim_end().to_owned()
    }

    /// Hands it a copy of what lies at `path`, and returns the id.
    pub fn publish(&self, path: &Path) -> String {
        self.answer(&["publish", path.to_str().expect("the paths of tests are UTF-8")])
    }

    /// Has it fetch a content; returns at once.
    pub fn fetch(&self, id: &str) -> Result<(), Status> {
        let request = FetchRequest { content_id: id.to_owned(), ..FetchRequest::default() };
        self.fetch_as(request)
    }

    /// Has it fetch as the request says; returns at once.
    pub fn fetch_as(&self, request: FetchRequest) -> Result<(), Status> {
        self.runtime.block_on(async {
            let mut client = ControlServiceClient::new(self.channel().await);
            client.fetch(request).await.map(drop)
        })
    }

    /// Everything it holds, or is to hold.
    pub fn list(&self) -> Vec<ContentStatus> {
        self.runtime.block_on(async {
            let mut client = ObserveServiceClient::new(self.channel().await);
            client.list(ListRequest {}).await.expect("it lists").into_inner().contents
        })
    }

    /// How one content is; none if it is not there.
    pub fn status(&self, id: &str) -> Option<ContentStatus> {
        self.list().into_iter().find(|status| status.content_id == id)
    }

    /// Waits until a content is as `is_so` wants it.
    pub fn wait_until(
        &self,
        id: &str,
        what: &str,
        is_so: impl Fn(&ContentStatus) -> bool,
    ) -> ContentStatus {
        wait_for(what, PATIENCE, || self.status(id).filter(|status| is_so(status)))
    }

    /// Waits until all that is wanted of a content is there.
    pub fn wait_until_complete(&self, id: &str) -> ContentStatus {
        self.wait_until(id, "a complete content", |s| s.state() == ContentState::Seeding)
    }

    /// Why a content is as slow as it is.
    pub fn explain(&self, id: &str) -> ExplainResponse {
        self.runtime.block_on(async {
            let mut client = ObserveServiceClient::new(self.channel().await);
            let request = ExplainRequest { content_id: id.to_owned() };
            client.explain(request).await.expect("it explains").into_inner()
        })
    }

    /// Follows a content, as closely as is allowed.
    pub fn watch(&self, id: &str) -> Watch<'_> {
        let changes = self.runtime.block_on(async {
            let mut client = ObserveServiceClient::new(self.channel().await);
            let interval = Duration::from_millis(1).try_into().ok();
            let request = WatchRequest { content_id: id.to_owned(), interval };
            client.watch(request).await.expect("it knows the content").into_inner()
        });
        Watch { changes, runtime: &self.runtime }
    }

    /// The file or directory in which a content is kept.
    pub fn data_of(&self, id: &str) -> PathBuf {
        self.data_dir.join("contents").join(id).join("data")
    }

    async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(self.control.clone()).expect("a URI");
        endpoint.connect().await.expect("the control API listens")
    }
}

impl Iterator for Watch<'_> {
    type Item = WatchResponse;

    fn next(&mut self) -> Option<WatchResponse> {
        self.runtime.block_on(self.changes.message()).expect("the peer is there")
    }
}

/// The arguments of a peer on these ports.
pub fn arguments(data_dir: &Path, address: &str, control: &str) -> Vec<String> {
    let data_dir = data_dir.to_str().expect("the paths of tests are UTF-8");
    let arguments =
        ["--listen", address, "--control", control, "--data-dir", data_dir, "--admin", "off"];
    arguments.map(ToOwned::to_owned).to_vec()
}

fn spawn(arguments: &[String], environment: &[(String, String)], control: &str) -> Process {
    let mut command = Command::new(binary("shoal-peer"));
    command.args(arguments).env("RUST_LOG", "info").envs(environment.iter().cloned());
    let mut process = Process::spawn("shoal-peer", command);
    wait_for("the peer's control API", PATIENCE, || {
        assert!(process.is_running(), "the peer ended: {}", process.stderr());
        UnixStream::connect(control.strip_prefix("unix:").expect("it is a socket")).ok()
    });
    process
}

/// A small file system in memory, for a disk that fills up; gone when dropped. Only root has one.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one at `path`; none if that is not allowed.
    pub fn mount(path: &Path, bytes: u64) -> Option<Self> {
        fs::create_dir_all(path).expect("the directory is made");
        let size = format!("size={bytes}");
        let mut mount = Command::new("mount");
        let status = mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).output().ok()?;
        status.status.success().then(|| Self(path.to_owned()))
    }

    /// Gives it another size.
    pub fn resize(&self, bytes: u64) {
        self.remount(&format!("remount,size={bytes}"));
    }

    /// Takes no more writes.
    pub fn make_read_only(&self) {
        self.remount("remount,ro");
    }

    fn remount(&self, options: &str) {
        let status = Command::new("mount").args(["-o", options]).arg(&self.0).status();
        assert!(status.is_ok_and(|status| status.success()), "it is remounted");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is just ending may still have files open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
