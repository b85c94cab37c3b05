//! What strangers can do to a swarm, and what it costs others.

use std::time::{Duration, Instant};

use shoal_proto::dht::v1::GetPeersRequest;
use shoal_testkit::{
    cluster::{Cluster, PATIENCE, Seeder, assert_same},
    hostile::{announces, identity, links, reflection, tarpits, turns},
    process::wait_for,
    ring::Ring,
};
use tokio::runtime::Runtime;

const MB: usize = 1_000_000;

fn runtime() -> Runtime {
    Runtime::new().expect("a runtime")
}

/// How long a download takes, after it was found to be right.
fn time_to_get(cluster: &Cluster, seeder: &Seeder, file: &std::path::Path, name: &str) -> Duration {
    let started = Instant::now();
    let getter = cluster.get(&seeder.id, name, &[]);
    getter.completed();
    let took = started.elapsed();
    assert_same(file, &getter.directory.join("data.bin"));
    took
}

#[test]
fn a_peer_is_not_banned_for_what_others_do_in_its_name() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 8 * MB, 1);
    let seeder = cluster.seed(&file, &["--up", "2MB/s"]);
    let peer = cluster.peer("peer", &[]);
    peer.fetch(&seeder.id).expect("it fetches");
    peer.wait_until(&seeder.id, "something to be held", |status| status.held_bytes > 0);
    let let_in = runtime().block_on(async {
        let peers = identity::peers_of(&cluster.tracker(), &seeder.id).await?;
        let innocent = peers.into_iter().find(|known| known.address == seeder.address);
        let innocent = innocent.expect("the tracker knows the seeder");
        identity::defame("127.0.0.1", &peer.address, &seeder.id, &innocent, 5).await
    });
    println!("{} links in its name were let in", let_in.expect("the victim answers"));
    peer.wait_until_complete(&seeder.id);
    assert_same(&file, &peer.data_of(&seeder.id));
}

#[test]
fn nobody_moves_or_stops_the_announce_of_another_host() {
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
fn nobody_moves_or_stops_the_announce_of_another_host_at_a_ring() {
    let runtime = runtime();
    let ring = runtime.block_on(Ring::of(3));
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
        assert_eq!(refused, 6, "what is said in the name of a ring node is refused");
        assert_eq!(known(node), std::slice::from_ref(&owner));
    }
}

#[test]
fn a_victim_that_is_announced_a_thousand_times_is_seldom_dialled() {
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
fn silent_links_of_one_host_leave_places_to_others() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 4 * MB, 5);
    let seeder = cluster.seed(&file, &[]);
    let runtime = runtime();
    let silent = links::be_silent(&seeder.address, &seeder.id, "127.0.0.2", 60);
    let silent = runtime.block_on(silent).expect("the seeder answers");
    assert_eq!(silent.len(), 25);
    let took = time_to_get(&cluster, &seeder, &file, "getter");
    println!("{} silent links; a download took {took:?}", silent.len());
    // They make room for those of their own host too.
    let from_same = links::be_silent(&seeder.address, &seeder.id, "127.0.0.1", 60);
    let _silent = runtime.block_on(from_same).expect("the seeder answers");
    time_to_get(&cluster, &seeder, &file, "neighbour");
}

#[test]
fn a_ring_node_keeps_so_many_peers_of_one_host() {
    let runtime = runtime();
    let ring = runtime.block_on(Ring::of(1));
    let node = ring.address(0);
    let accepted = runtime.block_on(announces::flood_ring(&node, 11_000));
    assert_eq!(accepted.expect("the node answers"), 10_000);
}

#[test]
fn a_manifest_is_found_although_most_peers_are_tarpits() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 4 * MB, 6);
    let seeder = cluster.seed(&file, &[]);
    let runtime = runtime();
    let tracker = cluster.tracker();
    let pits = tarpits::announce_tarpits(&tracker, &seeder.id, 60);
    runtime.block_on(pits).expect("the tracker answers");
    let took = time_to_get(&cluster, &seeder, &file, "getter");
    println!("a download took {took:?}");
    // Half of the time the tracker does not name the seeder: it is asked again every 5 s.
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[test]
fn calls_that_stall_do_not_delay_neighbours() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 20 * MB, 7);
    let seeder = cluster.seed(&file, &[]);
    let peace = time_to_get(&cluster, &seeder, &file, "in_peace");
    let runtime = runtime();
    let stalled = runtime.block_on(turns::stall(&seeder.address, &seeder.id, 64, 200));
    let stalled = stalled.expect("the seeder answers");
    let took = time_to_get(&cluster, &seeder, &file, "beside");
    println!("{} calls stalled; {took:?} beside them, {peace:?} in peace", stalled.len());
    assert!(took < 3 * peace + Duration::from_secs(1), "{took:?} beside, {peace:?} in peace");
}
