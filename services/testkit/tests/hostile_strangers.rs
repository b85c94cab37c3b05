//! Attacks of strangers on a swarm, and their effect on its peers.

use std::time::{Duration, Instant};

use shoal_proto::dht::v1::GetPeersRequest;
use shoal_testkit::{
    cluster::{Cluster, PATIENCE, Seeder, assert_same},
    hostile::{announces, identity, links, reflection, tarpits, turns},
    process::wait_for,
    ring::RingCluster,
};
use tokio::runtime::Runtime;

const MB: usize = 1_000_000;

fn runtime() -> Runtime {
    Runtime::new().expect("a runtime")
}

/// How long a download takes; its bytes are verified.
fn time_to_get(cluster: &Cluster, seeder: &Seeder, file: &std::path::Path, name: &str) -> Duration {
    let started = Instant::now();
    let getter = cluster.get(&seeder.id, name, &[]);
    getter.completed();
    let took = started.elapsed();
    assert_same(file, &getter.directory.join("data.bin"));
    took
}

#[test]
fn a_peer_is_not_banned_for_what_others_do_under_its_id() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 8 * MB, 1);
    let seeder = cluster.seed(&file, &["--up", "2MB/s"]);
    let peer = cluster.peer("peer", &[]);
    peer.fetch(&seeder.id).expect("the fetch starts");
    peer.wait_until(&seeder.id, "some bytes", |status| status.held_bytes > 0);
    let accepted = runtime().block_on(async {
        let peers = identity::peers_of(&cluster.tracker(), &seeder.id).await?;
        let innocent = peers.into_iter().find(|known| known.address == seeder.address);
        let innocent = innocent.expect("the tracker knows the seeder");
        identity::defame("127.0.0.1", &peer.address, &seeder.id, &innocent, 5).await
    });
    println!("{} links under its id were accepted", accepted.expect("the victim answers"));
    peer.wait_until_complete(&seeder.id);
    assert_same(&file, &peer.data_of(&seeder.id));
}

#[test]
fn another_host_cannot_change_or_stop_an_announce() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", MB, 2);
    let seeder = cluster.seed(&file, &[]);
    let runtime = runtime();
    let known = || {
        let peers = runtime.block_on(identity::peers_of(&cluster.tracker(), &seeder.id));
        peers.unwrap_or_default()
    };
    let owner = wait_for("the seeder to be known", PATIENCE, || known().into_iter().next());
    let tracker = cluster.tracker();
    let stealing = identity::steal_at_tracker(&tracker, &seeder.id, &owner);
    runtime.block_on(stealing).expect("the tracker answers");
    assert_eq!(known(), [owner]);
}

#[test]
fn another_host_cannot_change_or_stop_an_announce_at_a_ring() {
    let runtime = runtime();
    let ring = runtime.block_on(RingCluster::of(3));
    let cluster = Cluster::by_ring(&[ring.address(0)]);
    let file = cluster.file("source/data.bin", MB, 3);
    let seeder = cluster.seed(&file, &[]);
    let known = |node: usize| {
        let request =
            GetPeersRequest { content_id: seeder.id.clone(), ..GetPeersRequest::default() };
        let answer = runtime.block_on(async { ring.client(node).get_peers(request).await });
        answer.map(|answer| answer.into_inner().peers).unwrap_or_default()
    };
    let owner = wait_for("the seeder to be known", PATIENCE, || known(1).into_iter().next());
    for node in 0..3 {
        let address = ring.address(node);
        let stealing = identity::steal_at_ring(&address, &seeder.id, &owner);
        let refused = runtime.block_on(stealing).expect("the node answers");
        assert_eq!(refused, 6, "announces under the id of a ring node were not refused");
        assert_eq!(known(node), std::slice::from_ref(&owner));
    }
}

#[test]
fn a_victim_that_is_announced_900_times_is_dialled_at_most_60_times() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 40 * MB, 4);
    let seeder = cluster.seed(&file, &["--up", "1MB/s"]);
    let (dialled, accepted) = runtime().block_on(async {
        let victim = reflection::Victim::listen().await.expect("a port is free");
        let tracker = cluster.tracker();
        let announcing = reflection::announce_victim(&tracker, &seeder.id, &victim.address, 900);
        let accepted = announcing.await.expect("the tracker answers");
        let _getters = ["one", "other"].map(|name| cluster.get(&seeder.id, name, &[]));
        (victim.dialled_within(Duration::from_secs(12)).await, accepted)
    });
    println!("{accepted} announces, dialled {dialled} times");
    assert!(accepted > 800, "{accepted} announces were accepted");
    assert!(dialled <= 60, "the victim was dialled {dialled} times");
}

#[test]
fn silent_links_of_one_host_leave_slots_to_others() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 4 * MB, 5);
    let seeder = cluster.seed(&file, &[]);
    let runtime = runtime();
    let silent = links::be_silent(&seeder.address, &seeder.id, "127.0.0.2", 60);
    let silent = runtime.block_on(silent).expect("the seeder answers");
    assert_eq!(silent.len(), 25);
    let took = time_to_get(&cluster, &seeder, &file, "getter");
    println!("{} silent links; a download took {took:?}", silent.len());
    // They are closed for links of their own host too.
    let from_same = links::be_silent(&seeder.address, &seeder.id, "127.0.0.1", 60);
    let _silent = runtime.block_on(from_same).expect("the seeder answers");
    time_to_get(&cluster, &seeder, &file, "neighbour");
}

#[test]
fn a_ring_node_keeps_at_most_10000_announces_of_one_host() {
    let runtime = runtime();
    let ring = runtime.block_on(RingCluster::of(1));
    let node = ring.address(0);
    let accepted = runtime.block_on(announces::flood_ring(&node, 11_000));
    assert_eq!(accepted.expect("the node answers"), 10_000);
}

#[test]
fn a_manifest_is_fetched_although_most_peers_are_tarpits() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 4 * MB, 6);
    let seeder = cluster.seed(&file, &[]);
    let runtime = runtime();
    let tracker = cluster.tracker();
    let pits = tarpits::announce_tarpits(&tracker, &seeder.id, 60);
    runtime.block_on(pits).expect("the tracker answers");
    let took = time_to_get(&cluster, &seeder, &file, "getter");
    println!("a download took {took:?}");
    // Half of the tracker's answers do not name the seeder: it is asked again every 5 s.
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[test]
fn calls_that_stall_do_not_delay_neighbours() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 20 * MB, 7);
    let seeder = cluster.seed(&file, &[]);
    let undisturbed = time_to_get(&cluster, &seeder, &file, "undisturbed");
    let runtime = runtime();
    let stalled = runtime.block_on(turns::stall(&seeder.address, &seeder.id, 64, 200));
    let stalled = stalled.expect("the seeder answers");
    let took = time_to_get(&cluster, &seeder, &file, "beside");
    println!("{} calls stalled; {took:?} beside them, {undisturbed:?} without", stalled.len());
    assert!(
        took < 3 * undisturbed + Duration::from_secs(1),
        "{took:?} beside stalled calls, {undisturbed:?} without"
    );
}
