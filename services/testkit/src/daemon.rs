//! Peer daemons, driven over their control API.

use std::{
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
    /// HOST:PORT that other peers connect to.
    pub address: String,
    /// The address of its control API, in the form of `--control`.
    pub control: String,
    /// Its data directory.
    pub data_dir: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    runtime: Runtime,
}

/// The status changes that a peer streams for one content.
pub struct Watch<'a> {
    changes: Streaming<WatchResponse>,
    runtime: &'a Runtime,
}

impl Cluster {
    /// Starts a peer that knows the cluster's tracker and ring nodes. `name` names its data
    /// directory.
    pub fn peer(&self, name: &str, more: &[&str]) -> Peer {
        let discovery = self.discovery_arguments();
        let arguments: Vec<_> =
            discovery.iter().map(String::as_str).chain(more.iter().copied()).collect();
        Peer::start(&self.path().join(name), &arguments, &[])
    }
}

impl Peer {
    /// Starts a peer and waits until its control API answers.
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

    /// Kills the daemon with SIGKILL and restarts it with the same data directory and ports.
    pub fn kill_and_restart(&mut self) {
        self.process.kill();
        self.process = spawn(&self.arguments, &self.environment, &self.control);
    }

    /// Runs the command `shoal` against this peer.
    pub fn shoal(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary("shoal"));
        command.args(arguments).args(["--control", &self.control]);
        command.output().expect("the command runs")
    }

    /// Whether its health check succeeds.
    pub fn is_ready(&self) -> bool {
        run("shoal-peer", &["health", "--listen", &self.address], b"").status.success()
    }

    /// The stdout of a `shoal` command, which must succeed.
    pub fn answer(&self, arguments: &[&str]) -> String {
        let output = self.shoal(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).expect("output is text").trim_end().to_owned()
    }

    /// Publishes a copy of the file or tree at `path`. Returns the content id.
    pub fn publish(&self, path: &Path) -> String {
        self.answer(&["publish", path.to_str().expect("the paths of tests are UTF-8")])
    }

    /// Starts to fetch a content. Returns at once.
    pub fn fetch(&self, id: &str) -> Result<(), Status> {
        let request = FetchRequest { content_id: id.to_owned(), ..FetchRequest::default() };
        self.fetch_as(request)
    }

    /// Starts a fetch with this request. Returns at once.
    pub fn fetch_as(&self, request: FetchRequest) -> Result<(), Status> {
        self.runtime.block_on(async {
            let mut client = ControlServiceClient::new(self.channel().await);
            client.fetch(request).await.map(drop)
        })
    }

    /// The status of every content of the peer, complete or not.
    pub fn list(&self) -> Vec<ContentStatus> {
        self.runtime.block_on(async {
            let mut client = ObserveServiceClient::new(self.channel().await);
            client
                .list(ListRequest {})
                .await
                .expect("the peer lists its contents")
                .into_inner()
                .contents
        })
    }

    /// The status of one content, or `None` if the peer does not have it.
    pub fn status(&self, id: &str) -> Option<ContentStatus> {
        self.list().into_iter().find(|status| status.content_id == id)
    }

    /// Waits until the status of a content satisfies `is_so`.
    pub fn wait_until(
        &self,
        id: &str,
        what: &str,
        is_so: impl Fn(&ContentStatus) -> bool,
    ) -> ContentStatus {
        wait_for(what, PATIENCE, || self.status(id).filter(|status| is_so(status)))
    }

    /// Waits until every wanted file of a content is complete.
    pub fn wait_until_complete(&self, id: &str) -> ContentStatus {
        self.wait_until(id, "a complete content", |s| s.state() == ContentState::Seeding)
    }

    /// Why a content downloads no faster.
    pub fn explain(&self, id: &str) -> ExplainResponse {
        self.runtime.block_on(async {
            let mut client = ObserveServiceClient::new(self.channel().await);
            let request = ExplainRequest { content_id: id.to_owned() };
            client.explain(request).await.expect("the peer explains").into_inner()
        })
    }

    /// Watches a content at the shortest interval that a peer allows.
    pub fn watch(&self, id: &str) -> Watch<'_> {
        let changes = self.runtime.block_on(async {
            let mut client = ObserveServiceClient::new(self.channel().await);
            let interval = Duration::from_millis(1).try_into().ok();
            let request = WatchRequest { content_id: id.to_owned(), interval };
            client.watch(request).await.expect("the peer knows the content").into_inner()
        });
        Watch { changes, runtime: &self.runtime }
    }

    /// The directory of a content.
    pub fn directory_of(&self, id: &str) -> PathBuf {
        self.data_dir.join("contents").join(id)
    }

    /// The first blob of a content: the bytes of a content that is one file.
    pub fn data_of(&self, id: &str) -> PathBuf {
        self.directory_of(id).join("blobs/1")
    }

    async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(self.control.clone()).expect("a URI");
        endpoint.connect().await.expect("the control API listens")
    }
}

impl Iterator for Watch<'_> {
    type Item = WatchResponse;

    fn next(&mut self) -> Option<WatchResponse> {
        self.runtime.block_on(self.changes.message()).expect("the peer still runs")
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
        UnixStream::connect(control.strip_prefix("unix:").expect("a unix: URI")).ok()
    });
    process
}
