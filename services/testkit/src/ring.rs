//! A ring of real processes on loopback.

pub mod history;
pub mod load;
pub mod rogue;

use std::{iter, path::PathBuf, time::Duration};

use shoal_common::{
    channel::{Channel, Options},
    ring::ADDRESSEE,
};
use shoal_core::ring::{KeyRange, Position};
use shoal_proto::dht::v1::{
    self as pb, Agreement, GetStateRequest, GetStateResponse, NodeState, Standing,
    dht_service_client::DhtServiceClient, replica_service_client::ReplicaServiceClient,
};
use tempfile::TempDir;
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};

use tonic::Request;

use crate::{
    fleet::Place,
    metrics,
    process::{Process, binary, free_port},
};

/// A client of a node.
pub type Client = DhtServiceClient<Channel>;

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Longest wait for a node's answer about itself.
const STATE_PATIENCE: Duration = Duration::from_secs(1);

/// Nodes of one ring, those that run and those that do not.
pub struct Ring {
    directory: TempDir,
    nodes: Vec<Node>,
    log: String,
    env: Vec<(String, String)>,
}

/// A node, by its data directory and address.
struct Node {
    place: Place,
    /// ADDR:PORT.
    address: String,
    /// ADDR:PORT of its figures.
    admin: String,
    data_dir: PathBuf,
    join: Vec<String>,
    process: Option<Process>,
    is_silent: bool,
}

impl Default for Ring {
    fn default() -> Self {
        Self::new()
    }
}

impl Ring {
    /// A ring without nodes.
    pub fn new() -> Self {
        let log = std::env::var("RING_LOG").unwrap_or_else(|_| "info".to_owned());
        let directory = TempDir::new().expect("a temporary directory");
        Self { directory, nodes: Vec::new(), log, env: Vec::new() }
    }

    /// Nodes are started with these in their environment.
    #[must_use]
    pub fn with_env(mut self, env: &[(&str, &str)]) -> Self {
        self.env = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        self
    }

    /// A ring of so many nodes: the first founds it, and the others join through it.
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

    /// Starts one more node, which joins through these.
    pub fn add_with(&mut self, join: Vec<String>) -> usize {
        let number = self.prepare(Place::Here, free_address(), join);
        self.start(number);
        number
    }

    /// Nodes started at the same time that are all told of each other.
    pub fn at_once(count: usize) -> Self {
        Self::starting((0..count).map(|_| (Place::Here, free_address())).collect())
    }

    /// Nodes at these places, each with its ADDR:PORT, started at the same time and told of each other.
    pub fn starting(places: Vec<(Place, String)>) -> Self {
        let join: Vec<_> = places.iter().map(|(_, address)| address.clone()).collect();
        Self::joining(places, &join)
    }

    /// Nodes at these places, each with its ADDR:PORT, started at the same time and told to join these.
    pub fn joining(places: Vec<(Place, String)>, join: &[String]) -> Self {
        let joins = |(place, address)| (place, address, join.to_vec());
        Self::joining_each(places.into_iter().map(joins).collect())
    }

    /// Nodes at these places, each with its ADDR:PORT and those that it is told to join, started at
    /// the same time.
    pub fn joining_each(nodes: Vec<(Place, String, Vec<String>)>) -> Self {
        let mut ring = Self::new();
        for (place, address, join) in nodes {
            ring.prepare(place, address, join);
        }
        for number in 0..ring.len() {
            ring.start(number);
        }
        ring
    }

    fn prepare(&mut self, place: Place, address: String, join: Vec<String>) -> usize {
        let number = self.nodes.len();
        let data_dir = self.directory.path().join(format!("node-{number}"));
        let (host, _) = address.rsplit_once(':').expect("it is ADDR:PORT");
        let admin = format!("{host}:{}", free_port());
        let (process, is_silent) = (None, false);
        self.nodes.push(Node { place, address, admin, data_dir, join, process, is_silent });
        number
    }

    /// Starts a node, or starts it again.
    pub fn start(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        let mut command = node.place.command(binary("shoal-dht-node"));
        command.args(["--listen", &node.address, "--admin", &node.admin, "--data-dir"]);
        command.arg(&node.data_dir);
        for address in &node.join {
            command.args(["--join", address]);
        }
        command.env("RUST_LOG", &self.log).envs(self.env.iter().cloned());
        node.process = Some(Process::spawn(&format!("shoal-dht-node {number}"), command));
    }

    /// Gives each node, none of which runs, the address of the one before it.
    pub fn rotate_addresses(&mut self) {
        assert!(self.running().is_empty(), "nodes that run keep their addresses");
        let mut addresses: Vec<_> = self.nodes.iter().map(|node| node.address.clone()).collect();
        addresses.rotate_right(1);
        for (node, address) in self.nodes.iter_mut().zip(addresses) {
            node.address = address;
        }
    }

    /// Kills a node, as `kill -9` does.
    pub fn kill(&mut self, number: usize) {
        if let Some(mut process) = self.nodes[number].process.take() {
            self.show(number, &process);
            process.kill();
        }
    }

    /// A node falls silent, as one does whose host is lost: its connections stay open. It does not
    /// count as one that runs until it goes on.
    pub fn pause(&mut self, number: usize) {
        self.process(number).pause();
        self.nodes[number].is_silent = true;
    }

    /// A silent node goes on where it stopped.
    pub fn resume(&mut self, number: usize) {
        self.process(number).resume();
        self.nodes[number].is_silent = false;
    }

    /// HOST:PORT of a node's admin port.
    pub fn admin(&self, number: usize) -> String {
        self.nodes[number].admin.clone()
    }

    /// A node's process, which must run.
    pub fn process(&self, number: usize) -> &Process {
        self.nodes[number].process.as_ref().expect("the node runs")
    }

    /// Has a node leave in order, and waits for its end.
    pub async fn leave(&mut self, number: usize, patience: Duration) {
        let Some(mut process) = self.nodes[number].process.take() else { return };
        process.terminate();
        let deadline = Instant::now() + patience;
        let status = loop {
            match process.ended() {
                Some(status) => break status,
                None if Instant::now() < deadline => sleep(LOOK_EVERY).await,
                None => panic!("node {number} did not leave in {patience:?}: {}", process.stderr()),
            }
        };
        self.show(number, &process);
        assert!(status.success(), "node {number} ended with {status}: {}", process.stderr());
    }

    /// Tells all nodes to leave at the same time, and waits for their ends.
    pub async fn stop(&mut self, patience: Duration) {
        let running = self.running();
        for number in &running {
            if let Some(process) = &self.nodes[*number].process {
                process.terminate();
            }
        }
        for number in running {
            self.leave_told(number, patience).await;
        }
    }

    async fn leave_told(&mut self, number: usize, patience: Duration) {
        let Some(mut process) = self.nodes[number].process.take() else { return };
        let deadline = Instant::now() + patience;
        while process.is_running() {
            let stderr = || process.stderr();
            assert!(Instant::now() < deadline, "node {number} goes on: {}", stderr());
            sleep(LOOK_EVERY).await;
        }
    }

    /// The numbers of the nodes that run.
    pub fn running(&self) -> Vec<usize> {
        let runs = |node: &Node| node.process.is_some() && !node.is_silent;
        let nodes = self.nodes.iter().enumerate();
        nodes.filter(|(_, node)| runs(node)).map(|(number, _)| number).collect()
    }

    /// How many nodes there have been.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// There has been no node.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// HOST:PORT of a node.
    pub fn address(&self, number: usize) -> String {
        self.nodes[number].address.clone()
    }

    /// A client of a node, which connects when it is first used.
    pub fn client(&self, number: usize) -> Client {
        client(&self.address(number))
    }

    /// The id of a node that runs.
    pub async fn id(&self, number: usize) -> String {
        let told = state(&mut self.client(number)).await.expect("a state");
        told.state.and_then(|state| state.node).expect("a node").node_id
    }

    /// A message for a node, in the name of another one.
    pub async fn addressed<T>(&self, number: usize, message: T) -> Request<T> {
        addressed(&self.id(number).await, message)
    }

    /// What a node is asked in the name of another one that keeps a range with it.
    pub fn replica(&self, number: usize) -> ReplicaServiceClient<Channel> {
        let address = self.address(number).parse().expect("it is ADDR:PORT");
        ReplicaServiceClient::new(Channel::lazy(&address, &Options::default()))
    }

    /// A figure of a node: the sum over all labels.
    pub async fn figure(&self, number: usize, name: &str) -> f64 {
        let (admin, name) = (self.nodes[number].admin.clone(), name.to_owned());
        let figure = spawn_blocking(move || metrics::figure(&admin, &name)).await;
        figure.expect("it does not panic").expect("the node has metrics")
    }

    /// What a node logged.
    pub fn log(&self, number: usize) -> String {
        self.nodes[number].process.as_ref().map(Process::stderr).unwrap_or_default()
    }

    /// Waits until the running nodes are one ring, and returns how long that took.
    pub async fn one(&self, patience: Duration) -> Duration {
        self.flawless(patience, |_| None).await
    }

    /// Waits until the running nodes are one ring and each keeps its range with the two after it (and
    /// with who crashed, as long as nobody replaces it): from then on no key changes hands.
    pub async fn settled(&self, patience: Duration) {
        self.flawless(patience, unsettled).await;
    }

    /// Waits until the running nodes are one ring in which nothing else is amiss.
    async fn flawless(
        &self,
        patience: Duration,
        amiss: impl Fn(&[GetStateResponse]) -> Option<String>,
    ) -> Duration {
        let started = Instant::now();
        loop {
            let wrong = match self.states().await {
                Ok(states) => flaw(&mut standings(&states)).or_else(|| amiss(&states)),
                Err(silent) => Some(silent),
            };
            let Some(wrong) = wrong else { return started.elapsed() };
            assert!(started.elapsed() <= patience, "not one ring after {patience:?}: {wrong}");
            sleep(LOOK_EVERY).await;
        }
    }

    /// What the running nodes tell of themselves, or which of them does not.
    async fn states(&self) -> Result<Vec<GetStateResponse>, String> {
        let mut states = Vec::new();
        for number in self.running() {
            let told = state(&mut self.client(number)).await;
            states.push(told.ok_or_else(|| format!("node {number} does not answer"))?);
        }
        Ok(states)
    }

    fn show(&self, number: usize, process: &Process) {
        if self.log != "info" {
            eprintln!("--- node {number} until now\n{}", process.stderr());
        }
    }
}

impl Drop for Ring {
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

/// A client of whoever listens at HOST:PORT, which connects when it is first used.
pub fn client(address: &str) -> Client {
    let address = address.parse().expect("it is HOST:PORT");
    DhtServiceClient::new(Channel::lazy(&address, &Options::default()))
}

/// A message in the name of a ring node: it says which node it is meant for.
pub fn addressed<T>(node_id: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let id = node_id.parse().expect("an id is ASCII");
    request.metadata_mut().insert(ADDRESSEE, id);
    request
}

/// What a node tells of itself, with all details.
pub async fn state(client: &mut Client) -> Option<GetStateResponse> {
    let asked = client.get_state(GetStateRequest { details: true });
    Some(tokio::time::timeout(STATE_PATIENCE, asked).await.ok()?.ok()?.into_inner())
}

/// What a node knows of who keeps a key.
pub async fn agreement_on(key: &[u8], node: &mut Client) -> Agreement {
    let position = Position::of_key(key);
    let told = state(node).await.expect("a state");
    let is_of_key = |agreement: &Agreement| {
        key_range(agreement.range.as_ref().expect("a range")).contains(position)
    };
    told.agreements.into_iter().find(is_of_key).expect("an agreement on the key")
}

/// Why these nodes are not one ring in order, if they are not.
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
    states.iter().map(|told| told.state.clone().unwrap_or_default()).collect()
}

/// Which of the nodes of one ring does not keep its range as it should, if any.
fn unsettled(states: &[GetStateResponse]) -> Option<String> {
    const REPLICAS: usize = 3;
    states.iter().find_map(|told| {
        let state = told.state.clone().unwrap_or_default();
        let node = state.node.unwrap_or_default();
        let me = position(&node.position);
        let after = state.predecessor.map_or(me, |before| position(&before.position));
        let owned = KeyRange { after, last: me };
        let mut wanted: Vec<_> = iter::once(node).chain(state.successors).collect();
        wanted.truncate(REPLICAS);
        let mut kept = told.agreements.iter().filter_map(|agreement| {
            let range = key_range(agreement.range.as_ref()?);
            (owned.contains(range.last) || range.contains(me)).then_some(agreement)
        });
        let is_as_wanted = |agreement: &Agreement| {
            let members = agreement.replica_set.iter().flat_map(|set| &set.members);
            let members: Vec<_> = members.collect();
            members.first() == wanted.first().as_ref()
                && wanted.iter().all(|member| members.contains(&member))
        };
        let is_settled = |agreement| is_as_wanted(agreement) && all_know(states, agreement);
        let first = kept.next().is_some_and(is_settled);
        (!first || !kept.all(is_settled))
            .then(|| format!("{owned} is not kept by {wanted:?}: {:?}", told.agreements))
    })
}

/// All members of a set that run have heard of it.
fn all_know(states: &[GetStateResponse], agreement: &Agreement) -> bool {
    let set = &agreement.replica_set;
    let is_member = |told: &&GetStateResponse| {
        let node = told.state.as_ref().and_then(|state| state.node.as_ref());
        set.iter().flat_map(|set| &set.members).any(|member| Some(member) == node)
    };
    states.iter().filter(is_member).all(|told| {
        told.agreements.iter().any(|known| {
            let range = |of: &Agreement| of.range.as_ref().map(key_range);
            let ranges = range(known).zip(range(agreement));
            known.replica_set == *set && ranges.is_some_and(|(one, other)| one.overlaps(other))
        })
    })
}

/// A range of positions, as a node tells it.
pub fn key_range(range: &pb::KeyRange) -> KeyRange {
    KeyRange { after: position(&range.after), last: position(&range.last) }
}

/// A position, as a node tells it.
pub fn position(digits: &str) -> Position {
    Position::from_u128(u128::from_str_radix(digits, 16).expect("it is 32 hex digits"))
}
