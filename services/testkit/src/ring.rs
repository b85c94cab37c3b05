//! A ring of real processes on loopback.

pub mod history;
pub mod load;
pub mod rogue;

use std::{iter, path::PathBuf, time::Duration};

use shoal_common::{
    channel::{Channel, Options},
    ring_client::ADDRESSEE,
};
use shoal_core::ring::{KeyRange, Position};
use shoal_proto::dht::v1::{
    self as pb, GetStateRequest, GetStateResponse, NodeState, RangeReplicaSet, Standing,
    dht_service_client::DhtServiceClient, replica_service_client::ReplicaServiceClient,
};
use tempfile::TempDir;
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};

use tonic::Request;

use crate::{
    fleet::ProcessNetwork,
    metrics,
    process::{Process, binary, free_port},
};

/// A client of a ring node.
pub type Client = DhtServiceClient<Channel>;

/// How often a condition is checked.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Longest wait for a node's state.
const STATE_PATIENCE: Duration = Duration::from_secs(1);

/// The nodes of one ring, running or not.
pub struct RingCluster {
    directory: TempDir,
    nodes: Vec<Node>,
    log: String,
    env: Vec<(String, String)>,
}

/// A ring node; it keeps its data directory and address when it is restarted.
struct Node {
    network: ProcessNetwork,
    /// ADDR:PORT.
    address: String,
    /// ADDR:PORT of its admin port.
    admin: String,
    data_dir: PathBuf,
    join: Vec<String>,
    process: Option<Process>,
    is_silent: bool,
}

impl Default for RingCluster {
    fn default() -> Self {
        Self::new()
    }
}

impl RingCluster {
    /// A ring without nodes.
    pub fn new() -> Self {
        let log = std::env::var("RING_LOG").unwrap_or_else(|_| "info".to_owned());
        let directory = TempDir::new().expect("a temporary directory");
        Self { directory, nodes: Vec::new(), log, env: Vec::new() }
    }

    /// Sets environment variables for the nodes started from now on.
    #[must_use]
    pub fn with_env(mut self, env: &[(&str, &str)]) -> Self {
        self.env = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        self
    }

    /// A ring of `count` nodes: the first founds it, and each other joins through the first two.
    pub async fn of(count: usize) -> Self {
        let mut ring = Self::new();
        for _ in 0..count {
            ring.add();
        }
        ring.settled(Duration::from_secs(20)).await;
        ring
    }

    /// Starts one more node, which joins through the first two. Returns its number.
    pub fn add(&mut self) -> usize {
        let join = self.nodes.iter().take(2).map(|node| node.address.clone()).collect();
        self.add_with(join)
    }

    /// Starts one more node, which joins through these addresses. Returns its number.
    pub fn add_with(&mut self, join: Vec<String>) -> usize {
        let number = self.prepare(ProcessNetwork::Here, free_address(), join);
        self.start(number);
        number
    }

    /// Nodes that start at the same time, and join through all of their addresses.
    pub fn at_once(count: usize) -> Self {
        Self::starting((0..count).map(|_| (ProcessNetwork::Here, free_address())).collect())
    }

    /// The same, with the network and the ADDR:PORT of each node.
    pub fn starting(nodes: Vec<(ProcessNetwork, String)>) -> Self {
        let join: Vec<_> = nodes.iter().map(|(_, address)| address.clone()).collect();
        Self::joining(nodes, &join)
    }

    /// Nodes, each with its network and ADDR:PORT, that start at the same time and join through the
    /// addresses `join`.
    pub fn joining(nodes: Vec<(ProcessNetwork, String)>, join: &[String]) -> Self {
        let joins = |(network, address)| (network, address, join.to_vec());
        Self::joining_each(nodes.into_iter().map(joins).collect())
    }

    /// The same, with the addresses to join through for each node.
    pub fn joining_each(nodes: Vec<(ProcessNetwork, String, Vec<String>)>) -> Self {
        let mut ring = Self::new();
        for (network, address, join) in nodes {
            ring.prepare(network, address, join);
        }
        for number in 0..ring.len() {
            ring.start(number);
        }
        ring
    }

    fn prepare(&mut self, network: ProcessNetwork, address: String, join: Vec<String>) -> usize {
        let number = self.nodes.len();
        let data_dir = self.directory.path().join(format!("node-{number}"));
        let (host, _) = address.rsplit_once(':').expect("an ADDR:PORT");
        let admin = format!("{host}:{}", free_port());
        let (process, is_silent) = (None, false);
        self.nodes.push(Node { network, address, admin, data_dir, join, process, is_silent });
        number
    }

    /// Starts or restarts a node.
    pub fn start(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        let mut command = node.network.command(binary("shoal-dht-node"));
        command.args(["--listen", &node.address, "--admin", &node.admin, "--data-dir"]);
        command.arg(&node.data_dir);
        for address in &node.join {
            command.args(["--join", address]);
        }
        command.env("RUST_LOG", &self.log).envs(self.env.iter().cloned());
        node.process = Some(Process::spawn(&format!("shoal-dht-node {number}"), command));
    }

    /// Gives each node the address of the previous one. No node may run.
    pub fn rotate_addresses(&mut self) {
        assert!(self.running().is_empty(), "a running node keeps its address");
        let mut addresses: Vec<_> = self.nodes.iter().map(|node| node.address.clone()).collect();
        addresses.rotate_right(1);
        for (node, address) in self.nodes.iter_mut().zip(addresses) {
            node.address = address;
        }
    }

    /// Kills a node with SIGKILL.
    pub fn kill(&mut self, number: usize) {
        if let Some(mut process) = self.nodes[number].process.take() {
            self.show(number, &process);
            process.kill();
        }
    }

    /// Stops a node as the loss of its host does: its connections stay open. It does not count as
    /// running until it is resumed.
    pub fn pause(&mut self, number: usize) {
        self.process(number).pause();
        self.nodes[number].is_silent = true;
    }

    /// Resumes a paused node.
    pub fn resume(&mut self, number: usize) {
        self.process(number).resume();
        self.nodes[number].is_silent = false;
    }

    /// HOST:PORT of a node's admin port.
    pub fn admin(&self, number: usize) -> String {
        self.nodes[number].admin.clone()
    }

    /// The process of a running node.
    pub fn process(&self, number: usize) -> &Process {
        self.nodes[number].process.as_ref().expect("the node runs")
    }

    /// Sends a node SIGTERM and waits until it has left.
    pub async fn leave(&mut self, number: usize, patience: Duration) {
        let Some(mut process) = self.nodes[number].process.take() else { return };
        process.terminate();
        let deadline = Instant::now() + patience;
        let status = loop {
            match process.ended() {
                Some(status) => break status,
                None if Instant::now() < deadline => sleep(LOOK_EVERY).await,
                None => {
                    panic!("node {number} did not leave within {patience:?}: {}", process.stderr())
                }
            }
        };
        self.show(number, &process);
        assert!(status.success(), "node {number} ended with {status}: {}", process.stderr());
    }

    /// Sends all nodes SIGTERM at the same time and waits for their ends.
    pub async fn stop(&mut self, patience: Duration) {
        let running = self.running();
        for number in &running {
            if let Some(process) = &self.nodes[*number].process {
                process.terminate();
            }
        }
        for number in running {
            self.await_end(number, patience).await;
        }
    }

    async fn await_end(&mut self, number: usize, patience: Duration) {
        let Some(mut process) = self.nodes[number].process.take() else { return };
        let deadline = Instant::now() + patience;
        while process.is_running() {
            let stderr = || process.stderr();
            assert!(Instant::now() < deadline, "node {number} still runs: {}", stderr());
            sleep(LOOK_EVERY).await;
        }
    }

    /// The numbers of the running nodes.
    pub fn running(&self) -> Vec<usize> {
        let runs = |node: &Node| node.process.is_some() && !node.is_silent;
        let nodes = self.nodes.iter().enumerate();
        nodes.filter(|(_, node)| runs(node)).map(|(number, _)| number).collect()
    }

    /// The number of nodes ever added.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether no node was ever added.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// HOST:PORT of a node.
    pub fn address(&self, number: usize) -> String {
        self.nodes[number].address.clone()
    }

    /// A client of a node, which connects on first use.
    pub fn client(&self, number: usize) -> Client {
        client(&self.address(number))
    }

    /// The id of a running node.
    pub async fn id(&self, number: usize) -> String {
        let response = state(&mut self.client(number)).await.expect("a state");
        response.state.and_then(|state| state.node).expect("a node").node_id
    }

    /// A request addressed to this node's id.
    pub async fn addressed<T>(&self, number: usize, message: T) -> Request<T> {
        addressed(&self.id(number).await, message)
    }

    /// A client of a node's replica service, which its fellow replicas call.
    pub fn replica(&self, number: usize) -> ReplicaServiceClient<Channel> {
        let address = self.address(number).parse().expect("an ADDR:PORT");
        ReplicaServiceClient::new(Channel::lazy(&address, &Options::default()))
    }

    /// A metric of a node, summed over all labels.
    pub async fn figure(&self, number: usize, name: &str) -> f64 {
        let (admin, name) = (self.nodes[number].admin.clone(), name.to_owned());
        let figure = spawn_blocking(move || metrics::figure(&admin, &name)).await;
        figure.expect("the task does not panic").expect("the node has metrics")
    }

    /// The log of a running node.
    pub fn log(&self, number: usize) -> String {
        self.nodes[number].process.as_ref().map(Process::stderr).unwrap_or_default()
    }

    /// Waits until the running nodes form one ring. Returns the time that took.
    pub async fn one(&self, patience: Duration) -> Duration {
        self.flawless(patience, |_| None).await
    }

    /// Waits until the running nodes form one ring and each range's replica set is its owner and
    /// the two successors, plus crashed members that are not replaced yet. From then on no key
    /// moves.
    pub async fn settled(&self, patience: Duration) {
        self.flawless(patience, unsettled).await;
    }

    /// Waits until the running nodes form one ring and `find_flaw` finds nothing wrong.
    async fn flawless(
        &self,
        patience: Duration,
        find_flaw: impl Fn(&[GetStateResponse]) -> Option<String>,
    ) -> Duration {
        let started = Instant::now();
        loop {
            let wrong = match self.states().await {
                Ok(states) => flaw(&mut standings(&states)).or_else(|| find_flaw(&states)),
                Err(silent) => Some(silent),
            };
            let Some(wrong) = wrong else { return started.elapsed() };
            assert!(
                started.elapsed() <= patience,
                "the nodes are not one settled ring after {patience:?}: {wrong}"
            );
            sleep(LOOK_EVERY).await;
        }
    }

    /// The states of the running nodes. Fails with the first node that does not answer.
    async fn states(&self) -> Result<Vec<GetStateResponse>, String> {
        let mut states = Vec::new();
        for number in self.running() {
            let response = state(&mut self.client(number)).await;
            states.push(response.ok_or_else(|| format!("node {number} does not answer"))?);
        }
        Ok(states)
    }

    fn show(&self, number: usize, process: &Process) {
        if self.log != "info" {
            eprintln!("--- node {number} so far\n{}", process.stderr());
        }
    }
}

impl Drop for RingCluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for number in 0..self.len() {
                eprintln!("--- node {number}\n{}", self.log(number));
            }
        }
    }
}

fn free_address() -> String {
    format!("127.0.0.1:{}", free_port())
}

/// A client of the node at HOST:PORT, which connects on first use.
pub fn client(address: &str) -> Client {
    let address = address.parse().expect("a HOST:PORT");
    DhtServiceClient::new(Channel::lazy(&address, &Options::default()))
}

/// A request addressed to a node's id: another node at the same address refuses it.
pub fn addressed<T>(node_id: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let id = node_id.parse().expect("an id is ASCII");
    request.metadata_mut().insert(ADDRESSEE, id);
    request
}

/// The state of a node, with all details.
pub async fn state(client: &mut Client) -> Option<GetStateResponse> {
    let asked = client.get_state(GetStateRequest { details: true });
    Some(tokio::time::timeout(STATE_PATIENCE, asked).await.ok()?.ok()?.into_inner())
}

/// The range around a key with its replica set, as a node knows it.
pub async fn replica_set_of(key: &[u8], node: &mut Client) -> RangeReplicaSet {
    let position = Position::of_key(key);
    let response = state(node).await.expect("a state");
    let is_of_key =
        |set: &RangeReplicaSet| key_range(set.range.as_ref().expect("a range")).contains(position);
    response.replica_sets.into_iter().find(is_of_key).expect("a replica set of the key")
}

/// Why the nodes with these states do not form one ring, if they do not.
pub fn flaw(states: &mut [NodeState]) -> Option<String> {
    let position = |state: &NodeState| state.node.clone().unwrap_or_default().position;
    states.sort_by_key(position);
    let count = states.len();
    for (index, state) in states.iter().enumerate() {
        let me = position(state);
        if state.standing() != Standing::Member {
            return Some(format!("{me} is {:?}", state.standing()));
        }
        let others: Vec<_> =
            (1..count).map(|step| position(&states[(index + step) % count])).collect();
        let listed: Vec<_> = state.successors.iter().map(|node| node.position.clone()).collect();
        let expected = &others[..listed.len().clamp(others.len().min(2), others.len())];
        if listed != expected {
            return Some(format!("{me} has successors {listed:?}, not {expected:?}"));
        }
        let before = state.predecessor.as_ref().map(|node| &node.position);
        if before != others.last() {
            return Some(format!("{me} has predecessor {before:?}, not {:?}", others.last()));
        }
    }
    None
}

fn standings(states: &[GetStateResponse]) -> Vec<NodeState> {
    states.iter().map(|response| response.state.clone().unwrap_or_default()).collect()
}

/// A node of the ring whose range does not have the wanted replica set, if any.
fn unsettled(states: &[GetStateResponse]) -> Option<String> {
    const REPLICAS: usize = 3;
    states.iter().find_map(|response| {
        let state = response.state.clone().unwrap_or_default();
        let node = state.node.unwrap_or_default();
        let me = position(&node.position);
        let after = state.predecessor.map_or(me, |before| position(&before.position));
        let owned = KeyRange { after, last: me };
        let mut wanted: Vec<_> = iter::once(node).chain(state.successors).collect();
        wanted.truncate(REPLICAS);
        let mut kept = response.replica_sets.iter().filter_map(|kept| {
            let range = key_range(kept.range.as_ref()?);
            (owned.contains(range.last) || range.contains(me)).then_some(kept)
        });
        let is_as_wanted = |kept: &RangeReplicaSet| {
            let members = kept.replica_set.iter().flat_map(|set| &set.members);
            let members: Vec<_> = members.collect();
            members.first() == wanted.first().as_ref()
                && wanted.iter().all(|member| members.contains(&member))
        };
        let is_settled = |kept| is_as_wanted(kept) && all_know(states, kept);
        let first = kept.next().is_some_and(is_settled);
        (!first || !kept.all(is_settled))
            .then(|| format!("{owned} is not kept by {wanted:?}: {:?}", response.replica_sets))
    })
}

/// Whether all running members of a range's replica set know it.
fn all_know(states: &[GetStateResponse], kept: &RangeReplicaSet) -> bool {
    let set = &kept.replica_set;
    let is_member = |response: &&GetStateResponse| {
        let node = response.state.as_ref().and_then(|state| state.node.as_ref());
        set.iter().flat_map(|set| &set.members).any(|member| Some(member) == node)
    };
    states.iter().filter(is_member).all(|response| {
        response.replica_sets.iter().any(|known| {
            let range = |of: &RangeReplicaSet| of.range.as_ref().map(key_range);
            let ranges = range(known).zip(range(kept));
            known.replica_set == *set && ranges.is_some_and(|(one, other)| one.overlaps(other))
        })
    })
}

/// A range in a message.
pub fn key_range(range: &pb::KeyRange) -> KeyRange {
    KeyRange { after: position(&range.after), last: position(&range.last) }
}

/// A position in a message.
pub fn position(digits: &str) -> Position {
    Position::from_u128(u128::from_str_radix(digits, 16).expect("32 hex digits"))
}
