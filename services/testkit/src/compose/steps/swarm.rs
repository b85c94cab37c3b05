//! Faults and changes of peers and trackers.

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
/// The limit of an idle peer's resident memory.
const IDLE_MEMORY: u64 = 32 << 20;
/// Longest time from a peer's last transfer until it is idle.
const IDLE_AFTER: Duration = Duration::from_secs(30);

/// The script publishes a file. All peers fetch it, and the script's `get` does so from outside.
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

/// Fetches a content at all these peers, also at the publisher, which has nothing to download.
fn all_fetch(cluster: &Cluster, peers: &[Container], content: &Content) -> anyhow::Result<()> {
    let fetching: Vec<_> =
        peers.iter().map(|peer| cluster.fetch(peer, content)).collect::<Result<_, _>>()?;
    fetching.into_iter().try_for_each(|fetch| fetch.output().map(drop))
}

/// Kills one tracker in the middle of a download, then the other.
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
        ensure!(held < pieces, "the download completed before {} was killed", tracker.name);
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

/// Adds and removes peers while the remaining ones download.
pub(super) fn scales_under_traffic(cluster: &mut Cluster) -> anyhow::Result<String> {
    cluster.scale(4)?;
    let peers = cluster.peers(4)?;
    let content = cluster.publish(&peers[0], "traffic.bin", 16 * MB)?;
    let traffic = Traffic::downloads(&peers[1..], &content, Tries::Once);
    cluster.scale(20)?;
    // The new peers download too, so that some neighbours of the remaining ones are removed.
    all_fetch(cluster, &cluster.peers(20)?[4..12], &content)?;
    cluster.scale(4)?;
    ensure!(cluster.peers(4)? == peers, "the peers after scaling are not the first four");
    let done = traffic.stop()?;
    Ok(format!("{done} downloads"))
}

/// Disconnects a peer from the network in the middle of a download, and connects it again.
pub(super) fn survives_a_cut(cluster: &mut Cluster) -> anyhow::Result<String> {
    /// Longer than the timeout of open calls.
    const CUT: Duration = Duration::from_secs(8);
    cluster.scale(4)?;
    let peers = cluster.peers(4)?;
    let (seeder, content) = cluster.seed("cut.bin", 24 * MB, "32mbit")?;
    let download = cluster.fetch(&peers[2], &content)?;
    cluster.wait_until_under_way(&peers[2], &content)?;
    peers[2].disconnect(&cluster.network())?;
    let cut = Instant::now();
    // Sleeps for `CUT`, but notices an interrupt.
    cluster.wait_for("the end of the cut", CUT * 2, || Ok((cut.elapsed() >= CUT).then_some(())))?;
    peers[2].connect(&cluster.network())?;
    let (held, pieces) = cluster.held(&peers[2], &content)?;
    ensure!(held < pieces, "the download completed before the peer was disconnected");
    download.output()?;
    let took = cut.elapsed().saturating_sub(CUT);
    cluster.check_copy(&peers[2], &content)?;
    // Only this peer has the content now, so the next fetch shows that its present address is
    // known.
    drop(seeder);
    cluster.fetch(&peers[3], &content)?.output()?;
    cluster.check_copy(&peers[3], &content)?;
    Ok(format!("complete {:.1} s after it was back", took.as_secs_f64()))
}

/// Fifty peers, each in its own container.
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
    let after = cluster.wait_for("peers to release their memory", IDLE_AFTER, || {
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

/// The largest resident memory of any of these peers.
fn most_memory(peers: &[Container]) -> anyhow::Result<u64> {
    let all = peers.iter().map(Container::resident_memory).collect::<Result<Vec<_>, _>>()?;
    Ok(all.into_iter().max().unwrap_or_default())
}
