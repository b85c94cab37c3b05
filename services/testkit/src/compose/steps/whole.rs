//! Steps for the cluster as a whole.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use shoal_common::health;
use shoal_core::Address;

use super::ring::{Clients, WRITES, wait_for_one_ring};
use crate::compose::{
    cluster::{Cluster, PEER_PORT, RING_PORT, TRACKER_PORT},
    container::Container,
    docker::docker,
    traffic::{Traffic, Tries},
};

const MB: u64 = 1_000_000;
/// Longest time until all containers are healthy.
const UP: Duration = Duration::from_secs(60);
/// Largest size of an image.
const IMAGE_BYTES: u64 = 25 * MB;

/// Starts the cluster with four peers.
pub(super) fn comes_up(cluster: &mut Cluster) -> anyhow::Result<String> {
    let begun = Instant::now();
    cluster.up(4)?;
    ensure!(begun.elapsed() <= UP, "it took {:.0} s", begun.elapsed().as_secs_f64());
    wait_for_one_ring(cluster, 5)?;
    let count = |service| anyhow::Ok(cluster.containers(service)?.len());
    let counts = (count("tracker")?, count("dht-node")?, count("peer")?);
    ensure!(counts == (2, 5, 4), "{counts:?} trackers, ring nodes and peers");
    Ok("2 trackers, 5 ring nodes, 4 peers".to_owned())
}

/// Checks the size, user, layers and labels of the images.
pub(super) fn images_are_bare(_: &mut Cluster) -> anyhow::Result<String> {
    let mut sizes = Vec::new();
    for image in ["tracker", "peer", "dht-node", "cli", "loadgen"] {
        let name = format!("shoal/{image}:dev");
        let format = "{{.Size}} {{.Config.User}} {{len .RootFS.Layers}} \
                      {{index .Config.Labels \"org.opencontainers.image.title\"}}";
        let found = docker(["image", "inspect", "--format", format, &name])?;
        let mut words = found.splitn(4, ' ');
        let mut next = || words.next().with_context(|| format!("{name} lacks a property: {found}"));
        let size: u64 = next()?.parse()?;
        ensure!(size < IMAGE_BYTES, "{name} has {size} bytes");
        let user = next()?;
        ensure!(user == "65532:65532", "{name} runs as {user:?}");
        // One layer for the binary, and one for an empty directory.
        let layers: u32 = next()?.parse()?;
        ensure!(layers <= 2, "{name} has {layers} layers");
        ensure!(next()?.starts_with("shoal"), "{name} has no title");
        sizes.push(format!("{image} {:.1} MB", size as f64 / MB as f64));
    }
    Ok(sizes.join(", "))
}

/// Restarts every container in turn, while clients call all services.
pub(super) fn restarts_one_by_one(cluster: &mut Cluster) -> anyhow::Result<String> {
    cluster.scale(4)?;
    let peers = cluster.peers(4)?;
    let content = cluster.publish(&peers[0], "rolling.bin", 16 * MB)?;
    let announces = Traffic::announces(cluster, &content)?;
    let downloads = Traffic::downloads(&peers[2..], &content, Tries::Patiently);
    let clients = Clients::start(cluster, "rolling")?;
    clients.write_on(cluster, WRITES)?;
    for service in ["tracker", "dht-node", "peer"] {
        for container in cluster.containers(service)? {
            container.restart()?;
            wait_until_ready(cluster, &container)?;
            if service == "dht-node" {
                clients.look_around(cluster)?;
            }
            clients.write_on(cluster, WRITES)?;
        }
    }
    wait_for_one_ring(cluster, 5)?;
    let verdict = clients.stop(cluster)?;
    let (announces, downloads) = (announces.stop()?, downloads.stop()?);
    Ok(format!(
        "{announces} announces, {downloads} downloads, {} writes and {} reads",
        verdict.acknowledged, verdict.read
    ))
}

/// Waits until a service's health check succeeds.
fn wait_until_ready(cluster: &Cluster, container: &Container) -> anyhow::Result<()> {
    let port = match container.service.as_str() {
        "peer" => PEER_PORT,
        service if service.starts_with("dht-node") => RING_PORT,
        _ => TRACKER_PORT,
    };
    cluster.wait_for(&format!("{} to be ready", container.name), UP, || {
        let address = Address::from(container.socket(port)?);
        Ok(cluster.runtime.block_on(health::check(&address)).ok())
    })
}

/// Takes the cluster down and checks the exits of all its containers so far.
pub(super) fn ends_in_order(cluster: &mut Cluster) -> anyhow::Result<String> {
    let running = cluster.containers("")?.len();
    let before = cluster.exits.count();
    cluster.down()?;
    cluster.wait_for("docker to report all exits", UP, || {
        Ok((cluster.exits.count() >= before + running).then_some(()))
    })?;
    let bad: Vec<_> = cluster.exits.bad().iter().map(ToString::to_string).collect();
    ensure!(bad.is_empty(), "{}", bad.join(", "));
    let left = cluster.containers("")?;
    ensure!(left.is_empty(), "containers are left after cluster-down: {left:?}");
    Ok(format!("{} exits", cluster.exits.count()))
}
