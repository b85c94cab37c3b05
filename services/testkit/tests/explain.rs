//! `explain` names the true cause of a slow download.

use std::time::Duration;

use shoal_proto::control::v1::{Cause, ExplainResponse};
use shoal_testkit::{
    adversary::{Adversary, Vice},
    cluster::{Cluster, PATIENCE},
    daemon::Peer,
    process::{free_port, wait_for},
    small_disk::SmallDisk,
};

const MB: usize = 1_000_000;

/// Waits until a peer names this cause.
fn assert_explains(peer: &Peer, id: &str, cause: Cause) -> ExplainResponse {
    wait_for(cause.as_str_name(), Duration::from_secs(20), || {
        Some(peer.explain(id)).filter(|explanation| explanation.cause() == cause)
    })
}

/// A peer that fetches a content whose only other peer is an adversary.
fn with_an_adversary_alone(vice: Vice) -> (Cluster, Peer, String, Adversary) {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 2 * MB, 1);
    let mut seeder = cluster.seed(&file, &[]);
    let adversary = Adversary::join(vice, &seeder.id, &seeder.address, &cluster.tracker());
    seeder.process.terminate();
    seeder.process.wait(PATIENCE);
    let peer = cluster.peer("peer", &[]);
    peer.fetch(&seeder.id).expect("the fetch starts");
    (cluster, peer, seeder.id, adversary)
}

#[test]
fn no_peer_has_the_content() {
    let cluster = Cluster::start();
    let peer = cluster.peer("peer", &[]);
    let id = "ab".repeat(32);
    peer.fetch(&id).expect("the fetch starts");
    wait_for("the tracker's answer", PATIENCE, || {
        let explanation = assert_explains(&peer, &id, Cause::NoPeers);
        explanation.summary.contains("know no other peer").then_some(())
    });
}

#[test]
fn the_tracker_is_down() {
    let directory = tempfile::tempdir().expect("a directory");
    let tracker = format!("127.0.0.1:{}", free_port());
    let peer = Peer::start(directory.path(), &["--tracker", &tracker], &[]);
    let id = "ab".repeat(32);
    peer.fetch(&id).expect("the fetch starts");
    let explanation = assert_explains(&peer, &id, Cause::TrackerDown);
    assert!(explanation.summary.contains(&tracker), "{}", explanation.summary);
}

#[test]
fn no_ring_node_answers() {
    let directory = tempfile::tempdir().expect("a directory");
    let node = format!("127.0.0.1:{}", free_port());
    let peer = Peer::start(directory.path(), &["--dht", &node], &[]);
    let id = "ab".repeat(32);
    peer.fetch(&id).expect("the fetch starts");
    let explanation = assert_explains(&peer, &id, Cause::TrackerDown);
    assert!(explanation.summary.contains(&node), "{}", explanation.summary);
    assert_eq!(explanation.ring_nodes[0].address, node);
    assert!(explanation.ring_nodes[0].error.contains("refused"), "{explanation:?}");
}

#[test]
fn no_peer_has_the_missing_pieces() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 8 * MB, 2);
    let mut seeder = cluster.seed(&file, &["--up", "4MB/s"]);
    let id = seeder.id.clone();
    let peers = ["one", "other"].map(|name| cluster.peer(name, &[]));
    for peer in &peers {
        peer.fetch(&id).expect("the fetch starts");
    }
    for peer in &peers {
        peer.wait_until(&id, "a quarter", |status| status.held_bytes > 2 * MB as u64);
    }
    seeder.process.kill();
    for peer in &peers {
        let explanation = assert_explains(peer, &id, Cause::PiecesMissing);
        assert!(explanation.unavailable_pieces > 0);
        assert_eq!(explanation.neighbours.len(), 1);
    }
}

#[test]
fn the_settings_cap_downloads_until_the_content_is_complete() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 8 * MB, 3);
    let seeder = cluster.seed(&file, &[]);
    let peer = cluster.peer("peer", &["--limits-download", "3MB/s"]);
    peer.fetch(&seeder.id).expect("the fetch starts");
    assert_explains(&peer, &seeder.id, Cause::DownCap);
    peer.wait_until_complete(&seeder.id);
    assert_explains(&peer, &seeder.id, Cause::None);
}

#[test]
fn the_neighbours_are_slow() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 8 * MB, 4);
    let seeder = cluster.seed(&file, &["--up", "1MB/s"]);
    let peer = cluster.peer("peer", &[]);
    peer.fetch(&seeder.id).expect("the fetch starts");
    peer.wait_until(&seeder.id, "some bytes", |status| status.held_bytes > 0);
    let explanation = assert_explains(&peer, &seeder.id, Cause::NeighboursSlow);
    assert_eq!(explanation.neighbours.len(), 1);
    assert_eq!(explanation.neighbours[0].address, seeder.address);
}

#[test]
fn every_neighbour_chokes() {
    let (_cluster, peer, id, _adversary) = with_an_adversary_alone(Vice::NeverUnchokes);
    let explanation = assert_explains(&peer, &id, Cause::Choked);
    assert!(explanation.neighbours[0].choking_us && explanation.neighbours[0].interesting);
}

#[test]
fn a_neighbour_unchokes_and_sends_nothing() {
    let (_cluster, peer, id, adversary) = with_an_adversary_alone(Vice::Stalls);
    let explanation = assert_explains(&peer, &id, Cause::Snubbed);
    assert!(explanation.neighbours[0].snubbed);
    assert!(adversary.requests() > 0, "it received no request");
}

#[test]
fn the_disk_is_full() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 8 * MB, 5);
    let seeder = cluster.seed(&file, &[]);
    let peer = cluster.peer("peer", &[]);
    let directory = peer.directory_of(&seeder.id);
    let Some(_disk) = SmallDisk::mount(&directory, 4 << 20) else { return };
    peer.fetch(&seeder.id).expect("the fetch starts");
    let explanation = assert_explains(&peer, &seeder.id, Cause::Disk);
    assert!(explanation.summary.contains("no space is left"), "{}", explanation.summary);
}
