//! Faults of ring nodes.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use shoal_common::lock::Mutex;
use shoal_proto::dht::v1::{GetRequest, PutRequest};

use crate::{
    compose::{
        cluster::{Cluster, RING_PORT},
        container::Container,
    },
    ring::{
        self,
        history::Verdict,
        load::{Load, Nodes},
    },
};

/// Longest time until all keys can be read again after a fault.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// The number of writes acknowledged between two faults.
pub(super) const WRITES: usize = 100;
/// Longest unavailability of a key of which a majority of the replicas runs.
const SOON: Duration = Duration::from_secs(5);

/// Clients that write to and read from the ring of a cluster.
pub(super) struct Clients {
    nodes: Nodes,
    load: Load,
}

impl Clients {
    /// Starts clients that call the nodes now running.
    pub(super) fn start(cluster: &Cluster, name: &str) -> anyhow::Result<Self> {
        Ok(Self::of(cluster, cluster.ring_nodes()?, name))
    }

    /// Starts clients that call these nodes.
    fn of(cluster: &Cluster, nodes: Vec<String>, name: &str) -> Self {
        let nodes: Nodes = Arc::new(Mutex::new(nodes));
        let _within = cluster.runtime.enter();
        let load = Load::start(nodes.clone(), name, 4, 8);
        Self { nodes, load }
    }

    /// From now on the clients call the nodes now running.
    pub(super) fn look_around(&self, cluster: &Cluster) -> anyhow::Result<()> {
        *self.nodes.lock() = cluster.ring_nodes()?;
        Ok(())
    }

    /// Waits until `writes` more writes are acknowledged.
    pub(super) fn write_on(&self, cluster: &Cluster, writes: usize) -> anyhow::Result<()> {
        let acknowledged = || self.load.record.history.judge().acknowledged;
        let before = acknowledged();
        cluster.wait_for("writes to be acknowledged", PATIENCE, || {
            Ok((acknowledged() >= before + writes).then_some(()))
        })
    }

    /// Stops the clients, reads every key once more, and fails if an answer was wrong.
    pub(super) fn stop(self, cluster: &Cluster) -> anyhow::Result<Verdict> {
        let record = cluster.runtime.block_on(self.load.stop(PATIENCE));
        let verdict = record.history.judge();
        ensure!(verdict.flaws.is_empty(), "{}", verdict.flaws.join("; "));
        Ok(verdict)
    }
}

/// Kills a node and starts it again. Its address sends no packet meanwhile, not even a refusal.
pub(super) fn goes_on_without_one(cluster: &mut Cluster) -> anyhow::Result<String> {
    let nodes = cluster.containers("dht-node")?;
    let (victim, others) = nodes.split_first().context("the ring has no nodes")?;
    let address = |node: &Container| anyhow::Ok(node.socket(RING_PORT)?.to_string());
    let others = others.iter().map(address).collect::<Result<_, _>>()?;
    let clients = Clients::of(cluster, others, "without");
    clients.write_on(cluster, WRITES)?;
    cluster.exits.killed(&victim.id);
    victim.kill()?;
    wait_for_one_ring(cluster, 4)?;
    clients.write_on(cluster, WRITES)?;
    victim.start()?;
    wait_for_one_ring(cluster, 5)?;
    let Verdict { acknowledged, read, slowest_read: (slowest, key), .. } = clients.stop(cluster)?;
    ensure!(slowest <= SOON, "{key} could not be read for {slowest:?}");
    let slowest = slowest.as_secs_f64();
    Ok(format!("{acknowledged} writes and {read} reads, the slowest of which took {slowest:.1} s"))
}

/// Kills two nodes at the same time and starts them again.
pub(super) fn loses_no_key(cluster: &mut Cluster) -> anyhow::Result<String> {
    let clients = Clients::start(cluster, "killed")?;
    clients.write_on(cluster, WRITES)?;
    let nodes = cluster.containers("dht-node")?;
    let victims = &nodes[1..3];
    for victim in victims {
        cluster.exits.killed(&victim.id);
        victim.kill()?;
    }
    clients.look_around(cluster)?;
    wait_for_one_ring(cluster, 3)?;
    for victim in victims {
        victim.start()?;
    }
    wait_for_one_ring(cluster, 5)?;
    clients.look_around(cluster)?;
    clients.write_on(cluster, WRITES)?;
    let Verdict { acknowledged, read, longest_unavailable: (longest, _), .. } =
        clients.stop(cluster)?;
    Ok(format!(
        "{acknowledged} writes and {read} reads; a key could not be read for up to {:.1} s",
        longest.as_secs_f64()
    ))
}

/// Waits until `count` nodes run and form one ring.
pub(super) fn wait_for_one_ring(cluster: &Cluster, count: usize) -> anyhow::Result<()> {
    cluster.wait_for(&format!("one ring of {count} nodes"), PATIENCE, || {
        let nodes = cluster.ring_nodes()?;
        let mut states = Vec::new();
        for node in &nodes {
            let state =
                cluster.runtime.block_on(async { ring::state(&mut ring::client(node)).await });
            states.extend(state.and_then(|state| state.state));
        }
        Ok((states.len() == count && ring::flaw(&mut states).is_none()).then_some(()))
    })
}

/// Takes the cluster down, but keeps the volumes, and starts it again.
pub(super) fn keeps_what_volumes_hold(cluster: &mut Cluster) -> anyhow::Result<String> {
    const KEYS: u32 = 50;
    for number in 0..KEYS {
        call(cluster, async |mut node| {
            let (key, value) = (key(number).into(), value(number).into());
            let request = PutRequest { key, value, ..PutRequest::default() };
            node.put(request).await.map(drop)
        })?;
    }
    cluster.down()?;
    let left = cluster.containers("")?;
    ensure!(left.is_empty(), "containers are left after cluster-down: {left:?}");
    cluster.up(4)?;
    for number in 0..KEYS {
        let found = call(cluster, async |mut node| {
            let request = GetRequest { key: key(number).into(), direct: false };
            Ok(node.get(request).await?.into_inner().value)
        })?;
        ensure!(found == value(number), "key {number} has another value than before");
    }
    Ok(format!("{KEYS} keys"))
}

fn key(number: u32) -> String {
    format!("kept-{number}")
}

fn value(number: u32) -> String {
    format!("value of {number}")
}

/// Calls the nodes in turn until one answers.
fn call<T>(
    cluster: &Cluster,
    call: impl AsyncFn(ring::Client) -> Result<T, tonic::Status>,
) -> anyhow::Result<T> {
    let nodes = cluster.ring_nodes()?;
    let mut turn = 0;
    let mut refusal = None;
    let answered = cluster.wait_for("an answer from the ring", PATIENCE, || {
        turn += 1;
        let node = &nodes[turn % nodes.len()];
        let answer = cluster.runtime.block_on(async { call(ring::client(node)).await });
        Ok(answer.map_err(|status| refusal = Some(status)).ok())
    });
    answered.with_context(|| format!("the last error: {refusal:?}"))
}
