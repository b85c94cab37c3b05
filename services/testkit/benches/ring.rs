//! The calls per second that a ring answers, compared with a bare tonic echo on the same cores in
//! the same run. `cargo bench -p shoal-testkit --bench ring [-- SECONDS]`
//!
//! Five nodes, each a process with its data in the temporary directory, and five echo processes.
//! One client keeps 16 calls open, of one kind at a time.

use std::{
    convert::Infallible,
    env,
    future::{Ready, ready},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use futures_util::future::{BoxFuture, try_join_all};
use shoal_common::{
    channel::{Channel, Options},
    ring_client::ADDRESSEE,
};
use shoal_core::ring::{Contact, LiveNodes, NodeId, Position};
use shoal_proto::dht::v1::{
    GetRequest, GetResponse, ListNodesRequest, LookupRequest, PutRequest, Target, target::Kind,
};
use shoal_testkit::{
    process::{Process, free_port},
    ring::{Client, RingCluster, client},
};
use tonic::{
    Request, Response, Status,
    body::Body,
    client::Grpc,
    codegen::{Service, http, http::uri::PathAndQuery},
    server::{NamedService, UnaryService},
    transport::Server,
};
use tonic_prost::ProstCodec;

const NODES: usize = 5;
/// Concurrent calls.
const CALLS: usize = 16;
const KEYS: usize = 10_000;
/// The size of a value in bytes.
const VALUE: usize = 100;
/// Rounds over all kinds of calls, each through another node, since a node that owns more keys
/// answers more calls itself. Medians are compared.
const ROUNDS: usize = NODES;
/// By then, after the last join, every range has its three replicas.
const SETTLED: Duration = Duration::from_secs(5);
const ECHO: &str = "/shoal.bench.Echo/Echo";

fn main() -> Result<()> {
    let words: Vec<String> = env::args().skip(1).filter(|word| word != "--bench").collect();
    let runtime = tokio::runtime::Runtime::new()?;
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["echo", address] => runtime.block_on(serve_echo(address)),
        [seconds] => runtime.block_on(compare(Duration::from_secs_f64(seconds.parse()?))),
        _ => runtime.block_on(compare(Duration::from_secs(3))),
    }
}

/// The kind of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Put,
    Echo,
    GetFromOwner,
    GetThroughOne,
    LookUpAtOwner,
    LookUpThroughOne,
}

impl What {
    const READS: [Self; 5] = [
        Self::Echo,
        Self::GetFromOwner,
        Self::GetThroughOne,
        Self::LookUpAtOwner,
        Self::LookUpThroughOne,
    ];
}

/// Calls per second, and the 99th percentile of their latency.
#[derive(Clone, Copy, Debug)]
struct Rate {
    calls_per_s: f64,
    p99: Duration,
}

async fn compare(round: Duration) -> Result<()> {
    let ring = RingCluster::of(NODES).await;
    tokio::time::sleep(SETTLED).await;
    let echoes: Vec<_> = (0..NODES).map(|_| start_echo()).collect::<Result<_>>()?;
    let bench = Arc::new(Bench::new(&ring, &echoes).await?);
    println!("{:18} {:>9} {:>19} {:>9} {:>8}", "", "median /s", "min to max", "p99 ms", "of echo");

    let commits = commits(&ring).await;
    let puts = [bench.run(What::Put, 0, KEYS, None).await?];
    let fsyncs = self::commits(&ring).await - commits;
    print(What::Put, &puts, None);
    println!("{:18} {:.2} on three disks together", "fsyncs per put", fsyncs / KEYS as f64);

    let mut rates: [Vec<Rate>; What::READS.len()] = Default::default();
    for through in 0..ROUNDS {
        for (what, rates) in What::READS.into_iter().zip(&mut rates) {
            let deadline = Some(Instant::now() + round);
            rates.push(bench.run(what, through, usize::MAX, deadline).await?);
        }
    }
    let echo = median(&rates[0]);
    for (what, rates) in What::READS.into_iter().zip(&rates) {
        print(what, rates, Some(echo));
    }
    Ok(())
}

fn print(what: What, rates: &[Rate], echo: Option<f64>) {
    let all = || rates.iter().map(|rate| rate.calls_per_s);
    let range =
        format!("{:.0} to {:.0}", all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max));
    let worst = rates.iter().map(|rate| rate.p99).max().unwrap_or_default();
    let ratio = echo.map(|echo| format!("{:.2}", median(rates) / echo)).unwrap_or_default();
    println!(
        "{:18} {:9.0} {range:>19} {:9.2} {ratio:>8}",
        format!("{what:?}"),
        median(rates),
        worst.as_secs_f64() * 1e3
    );
}

fn median(rates: &[Rate]) -> f64 {
    let mut sorted: Vec<_> = rates.iter().map(|rate| rate.calls_per_s).collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Commits of all nodes: each is one fsync.
async fn commits(ring: &RingCluster) -> f64 {
    let mut sum = 0.0;
    for number in ring.running() {
        sum += ring.figure(number, "shoal_dht_commits_total").await;
    }
    sum
}

/// The clients, echoes and keys of the calls.
struct Bench {
    live_nodes: LiveNodes,
    /// One per node.
    clients: Vec<(Position, Client)>,
    echoes: Vec<Grpc<Channel>>,
    keys: Vec<String>,
}

impl Bench {
    async fn new(ring: &RingCluster, echoes: &[(String, Process)]) -> Result<Self> {
        let listed = ring.client(0).list_nodes(ListNodesRequest::default()).await?.into_inner();
        let mut nodes = Vec::new();
        for node in listed.nodes {
            let id = node.node_id.parse().context("a node's id")?;
            let position = Position::of_node(id, node.index);
            nodes.push(Contact { position, id, address: node.address.parse()? });
        }
        let mut channels = Vec::new();
        for (address, _) in echoes {
            channels.push(Grpc::new(Channel::lazy(&address.parse()?, &Options::default())));
        }
        Ok(Self {
            clients: nodes
                .iter()
                .map(|node| (node.position, client(&node.address.to_string())))
                .collect(),
            live_nodes: LiveNodes::new(nodes),
            echoes: channels,
            keys: (0..KEYS).map(|key| format!("key-{key}")).collect(),
        })
    }

    /// Makes up to `calls` calls until the deadline. Calls through a fixed node use `through`.
    async fn run(
        self: &Arc<Self>,
        what: What,
        through: usize,
        calls: usize,
        deadline: Option<Instant>,
    ) -> Result<Rate> {
        let next = Arc::new(AtomicUsize::new(0));
        let started = Instant::now();
        let workers = (0..CALLS).map(|_| {
            let (bench, next) = (Arc::clone(self), Arc::clone(&next));
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                loop {
                    let (number, asked) = (next.fetch_add(1, Ordering::Relaxed), Instant::now());
                    if number >= calls || deadline.is_some_and(|deadline| asked >= deadline) {
                        return anyhow::Ok(latencies);
                    }
                    bench.call(what, through, number).await?;
                    latencies.push(asked.elapsed());
                }
            })
        });
        let latencies = try_join_all(workers).await?.into_iter().collect::<Result<Vec<_>>>()?;
        let took = started.elapsed();
        let mut latencies = latencies.concat();
        latencies.sort_unstable();
        let p99 = latencies[latencies.len() * 99 / 100];
        Ok(Rate { calls_per_s: latencies.len() as f64 / took.as_secs_f64(), p99 })
    }

    async fn call(&self, what: What, through: usize, number: usize) -> Result<()> {
        // All keys, in a scattered order.
        let key = &self.keys[(number * 7_919) % KEYS];
        let get = |direct| GetRequest { key: key.clone().into(), direct };
        let target = Target { kind: Some(Kind::Key(key.clone().into())) };
        let look_up = LookupRequest { target: Some(target) };
        let mut any = self.clients[through].1.clone();
        match what {
            What::Echo => {
                let mut echo = self.echoes[number % NODES].clone();
                echo.ready().await?;
                let codec = ProstCodec::<GetRequest, GetResponse>::default();
                echo.unary(Request::new(get(true)), PathAndQuery::from_static(ECHO), codec).await?;
            }
            What::Put => {
                let (name, value) = (key.clone().into(), vec![7; VALUE].into());
                let put = PutRequest { key: name, value, ..PutRequest::default() };
                self.owner(key.as_bytes()).1.put(put).await?;
            }
            What::GetFromOwner => {
                let (id, mut owner) = self.owner(key.as_bytes());
                let mut request = Request::new(get(true));
                request.metadata_mut().insert(ADDRESSEE, id.to_string().parse()?);
                owner.get(request).await?;
            }
            What::GetThroughOne => drop(any.get(get(false)).await?),
            What::LookUpAtOwner => drop(self.owner(key.as_bytes()).1.lookup(look_up).await?),
            What::LookUpThroughOne => drop(any.lookup(look_up).await?),
        }
        Ok(())
    }

    fn owner(&self, key: &[u8]) -> (NodeId, Client) {
        let owner = self.live_nodes.owner_of(Position::of_key(key));
        let owner = owner.expect("the membership has an owner of each key");
        let known = self.clients.iter().find(|(position, _)| *position == owner.position);
        (owner.id, known.expect("each member has a client").1.clone())
    }
}

/// An echo, which measures tonic without a service behind it.
#[derive(Clone, Copy)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "shoal.bench.Echo";
}

impl UnaryService<GetRequest> for Echo {
    type Response = GetResponse;
    type Future = Ready<Result<Response<GetResponse>, Status>>;

    fn call(&mut self, _request: Request<GetRequest>) -> Self::Future {
        let value = vec![7; VALUE].into();
        ready(Ok(Response::new(GetResponse { value, ..GetResponse::default() })))
    }
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let codec = ProstCodec::<GetResponse, GetRequest>::default();
        Box::pin(async move { Ok(tonic::server::Grpc::new(codec).unary(Self, request).await) })
    }
}

fn start_echo() -> Result<(String, Process)> {
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new(env::current_exe()?);
    command.args(["echo", &address]);
    Ok((address, Process::spawn("echo", command)))
}

async fn serve_echo(address: &str) -> Result<()> {
    Ok(Server::builder().add_service(Echo).serve(address.parse()?).await?)
}
