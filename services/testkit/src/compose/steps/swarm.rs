//! What happens to peers, and to the trackers that they know.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::ensure;

use crate::{
    compose::{
        cluster::{Cluster, Content},
        container::Container,
        traffic::{Traffic, Tries},
    },
    files,
};

const MB: u64 = 1_000_000;
/// An idle peer may have so much memory resident.
const IDLE_MEMORY: u64 = 32 << 20;
/// It is idle so soon after its last transfer.
const IDLE_AFTER: Duration = Duration::from_secs(30);

/// Published by the script, fetched by all, and once from outside.
pub(super) fn reaches_all(cluster: &mut Cluster) -> anyhow::Result<String> {
    cluster.scale(13)?;
    let file = cluster.file("model.bin", 64 * MB)?;
    let hash = files::hash(&file)?;
    let id = cluster.script(&["publish", &file.display().to_string()])?;
    let content = Content { id, hash };
    let begun = Instant::now();
    let peers = cluster.peers(13)?;
    all_fetch(cluster, &peers, &content)?;
    let took = begun.elapsed();
    for peer in &peers {
        cluster.check_copy(peer, &content)?;
    }
    let copies = cluster.folder.path().join("copies");
    cluster.script(&["get", &content.id, &copies.display().to_string()])?;
    files::check_copy(&copies.join("model.bin"), content.hash)?;
    fs::remove_dir_all(&copies)?;
    let status = cluster.script(&["status"])?;
    for expected in [content.id.as_str(), "5 nodes, as "] {
        ensure!(status.contains(expected), "cluster-status does not show {expected}: {status}");
    }
    Ok(format!("in {:.1} s", took.as_secs_f64()))
}

/// Has all these peers fetch a content, the publisher too, which has nothing to do.
fn all_fetch(cluster: &Cluster, peers: &[Container], content: &Content) -> anyhow::Result<()> {
    let fetching: Vec<_> =
        peers.iter().map(|peer| cluster.fetch(peer, content)).collect::<Result<_, _>>()?;
    fetching.into_iter().try_for_each(|fetch| fetch.output().map(drop))
}

/// One tracker is killed in the middle of a download, then the other.
pub(super) fn outlives_the_trackers(cluster: &mut Cluster) -> anyhow::Result<String> {
    cluster.scale(4)?;
    let peer = &cluster.peers(4)?[3];
    let (_seeder, content) = cluster.seed("by-the-ring.bin", 24 * MB, "32mbit")?;
    let download = cluster.fetch(peer, &content)?;
    cluster.wait_until_under_way(peer, &content)?;
    let trackers = cluster.containers("tracker")?;
    for tracker in &trackers {
        cluster.exits.killed(&tracker.id);
        tracker.kill()?;
        let (held, pieces) = cluster.held(peer, &content)?;
        ensure!(held < pieces, "the download was over before {} was killed", tracker.name);
    }
    cluster.scale(5)?;
    let newcomer = &cluster.peers(5)?[4];
    cluster.fetch(newcomer, &content)?.output()?;
    cluster.check_copy(newcomer, &content)?;
    download.output()?;
    cluster.check_copy(peer, &content)?;
    for tracker in &trackers {
        tracker.start()?;
    }
    cluster.up(5)?;
    Ok("both killed mid-transfer".to_owned())
}

/// Peers come and go while those that stay download.
pub(super) fn scales_under_traffic(cluster: &mut Cluster) -> anyhow::Result<String> {
    cluster.scale(4)?;
    let peers = cluster.peers(4)?;
    let content = cluster.publish(&peers[0], "traffic.bin", 16 * MB)?;
    let traffic = Traffic::downloads(&peers[1..], &content, Tries::Once);
    cluster.scale(20)?;
    // The new ones take part too, so that some of those that go are neighbours.
    all_fetch(cluster, &cluster.peers(20)?[4..12], &content)?;
    cluster.scale(4)?;
    ensure!(cluster.peers(4)? == peers, "other peers stay than those that were there first");
    let done = traffic.stop()?;
    Ok(format!("{done} downloads"))
}

/// A peer loses its network in the middle of a download, and has it back.
pub(super) fn survives_a_cut(cluster: &mut Cluster) -> anyhow::Result<String> {
    /// Longer than calls under way are waited for.
    const CUT: Duration = Duration::from_secs(8);
    cluster.scale(4)?;
    let peers = cluster.peers(4)?;
    let (seeder, content) = cluster.seed("cut.bin", 24 * MB, "32mbit")?;
    let download = cluster.fetch(&peers[2], &content)?;
    cluster.wait_until_under_way(&peers[2], &content)?;
    peers[2].disconnect(&cluster.network())?;
    let cut = Instant::now();
    // Nothing is waited for: it is to be away for so long.
    cluster.wait_for("the cut", CUT * 2, || Ok((cut.elapsed() >= CUT).then_some(())))?;
    peers[2].connect(&cluster.network())?;
    let (held, pieces) = cluster.held(&peers[2], &content)?;
    ensure!(held < pieces, "the download was over before the peer was cut off");
    download.output()?;
    let took = cut.elapsed().saturating_sub(CUT);
    cluster.check_copy(&peers[2], &content)?;
    // It is found where it is now: nobody else has the content any longer.
    drop(seeder);
    cluster.fetch(&peers[3], &content)?.output()?;
    cluster.check_copy(&peers[3], &content)?;
    Ok(format!("complete {:.1} s after it was back", took.as_secs_f64()))
}

/// Fifty peers, each in a container.
pub(super) fn fifty_peers(cluster: &mut Cluster) -> anyhow::Result<String> {
    const PEERS: usize = 50;
    cluster.scale(PEERS as u32)?;
    let peers = cluster.peers(PEERS)?;
    let idle = most_memory(&peers)?;
    let content = cluster.publish(&peers[0], "hundred.bin", 100 * MB)?;
    let begun = Instant::now();
    all_fetch(cluster, &peers, &content)?;
    let took = begun.elapsed();
    for peer in &peers {
        let (held, pieces) = cluster.held(peer, &content)?;
        ensure!(held == pieces, "{} holds {held} of {pieces} pieces", peer.name);
    }
    cluster.check_copy(&peers[PEERS - 1], &content)?;
    ensure!(idle < IDLE_MEMORY, "an idle peer has {idle} bytes resident");
    let after = cluster.wait_for("peers that gave memory back", IDLE_AFTER, || {
        let after = most_memory(&peers)?;
        Ok((after < IDLE_MEMORY).then_some(after))
    })?;
    cluster.scale(4)?;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    Ok(format!(
        "in {:.1} s; at most {:.1} MiB resident before, {:.1} MiB afterwards",
        took.as_secs_f64(),
        mib(idle),
        mib(after)
    ))
}

/// What the peer that has most has resident.
fn most_memory(peers: &[Container]) -> anyhow::Result<u64> {
    let all = peers.iter().map(Container::resident_memory).collect::<Result<Vec<_>, _>>()?;
    Ok(all.into_iter().max().unwrap_or_default())
}
