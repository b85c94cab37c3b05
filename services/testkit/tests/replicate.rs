//! Peers that replicate contents without a request.

use std::time::Duration;

use shoal_core::content::ContentId;
use shoal_proto::{
    control::v1::ContentState,
    tracker::v1::{AnnounceRequest, tracker_service_client::TrackerServiceClient},
    types::v1::PeerInfo,
};
use shoal_testkit::{
    cluster::{Cluster, PATIENCE, assert_same},
    daemon::Peer,
    hostile::channel_from,
    process::{run, wait_for},
    ring::RingCluster,
};
use tokio::runtime::Runtime;
use uuid::Uuid;

const MB: usize = 1_000_000;

#[test]
fn replicas_fetch_and_serve_every_content_of_the_tracker() {
    let mut cluster = Cluster::start_with(&["--interval", "2s"]);
    let file = cluster.file("source/first", 8 * MB, 1);
    let mut seeder = cluster.seed(&file, &[]);
    let all = ["--replicate", "all"];
    let replicas = ["one", "two"].map(|name| cluster.peer(name, &all));
    for replica in &replicas {
        replica.wait_until_complete(&seeder.id);
        assert_same(&file, &replica.data_of(&seeder.id));
    }
    // A later replica is served by the others, after a restart of the tracker has lost its swarms.
    seeder.process.kill();
    cluster.restart_tracker();
    let late = cluster.peer("late", &all);
    late.wait_until_complete(&seeder.id);
    // A content published at one replica reaches all.
    let second = cluster.file("source/second", MB, 2);
    let id = replicas[0].publish(&second);
    for replica in [&replicas[1], &late] {
        replica.wait_until_complete(&id);
    }
}

#[test]
fn a_replica_is_ready_once_it_holds_everything() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 16 * MB, 1);
    let seeder = cluster.peer("seeder", &["--limits-upload", "4MB/s"]);
    assert!(seeder.is_ready(), "it has nothing to replicate");
    let id = seeder.publish(&file);
    wait_for("the seeder at the tracker", PATIENCE, || {
        let swarm = run("shoal", &["swarm", &id, "--tracker", &cluster.tracker()], b"");
        swarm.status.success().then_some(())
    });
    let replica = cluster.peer("replica", &["--replicate", "all"]);
    replica.wait_until(&id, "a part", |status| status.held_bytes > 0);
    wait_for("a replica that is ready", PATIENCE, || {
        let was_ready = replica.is_ready();
        let status = replica.status(&id).expect("it exists");
        assert!(!was_ready || status.state() == ContentState::Seeding, "{status:?}");
        was_ready.then_some(())
    });
    // A later content does not make it unready.
    let next = seeder.publish(&cluster.file("source/next", 16 * MB, 2));
    replica.wait_until(&next, "a part", |status| status.held_bytes > 0);
    assert!(replica.is_ready());
}

#[test]
fn a_content_removed_at_a_replica_is_not_fetched_again() {
    let cluster = Cluster::start();
    let seeder = cluster.seed(&cluster.file("source/first", MB, 1), &[]);
    let replica = cluster.peer("replica", &["--replicate", "all"]);
    replica.wait_until_complete(&seeder.id);
    replica.answer(&["rm", &seeder.id]);
    // A replica that has found this one has listed the contents after the removal.
    let next = cluster.seed(&cluster.file("source/second", MB, 2), &[]);
    replica.wait_until_complete(&next.id);
    assert!(replica.status(&seeder.id).is_none());
}

#[test]
fn a_swarm_without_a_seeder_is_not_joined() {
    let cluster = Cluster::start();
    let mistyped = "0".repeat(64);
    let _getter = cluster.get(&mistyped, "getter", &[]);
    wait_for("the mistyped swarm", PATIENCE, || {
        let swarm = run("shoal", &["swarm", &mistyped, "--tracker", &cluster.tracker()], b"");
        swarm.status.success().then_some(())
    });
    let seeder = cluster.seed(&cluster.file("source/data.bin", MB, 1), &[]);
    let replica = cluster.peer("replica", &["--replicate", "all"]);
    replica.wait_until_complete(&seeder.id);
    assert_eq!(replica.list().len(), 1);
}

#[test]
fn a_thousand_contents_without_seeders_do_not_keep_a_real_one_from_a_replica() {
    /// As many as a replica takes on.
    const JUNK: usize = 1000;
    /// Of these, those tried at a time.
    const TRIED: usize = 256;
    /// All are tried in four turns of 30 s. A replica may notice the end of a turn 6 s late.
    const TURNS: Duration = Duration::from_secs(4 * (30 + 7));
    // No announce expires meanwhile.
    let cluster = Cluster::start_with(&["--interval", "10m"]);
    let tracker = cluster.tracker();
    let announced = announce_junk(&tracker, JUNK);
    Runtime::new().expect("a runtime").block_on(announced).expect("the tracker accepts them");
    let replica = cluster.peer("replica", &["--replicate", "all"]);
    wait_for("a replica that is busy with junk", PATIENCE, || {
        (replica.list().len() == TRIED).then_some(())
    });
    let seeder = cluster.seed(&cluster.file("source/data.bin", MB, 1), &[]);
    wait_for("the real content at the replica", TURNS, || {
        let here = replica.list();
        assert!(here.len() <= TRIED + 1, "{} contents", here.len());
        let mut real = here.iter().filter(|status| status.content_id == seeder.id);
        real.any(|status| status.state() == ContentState::Seeding).then_some(())
    });
}

/// Announces a complete peer for each of so many contents. No peer listens at its address.
async fn announce_junk(tracker: &str, contents: usize) -> anyhow::Result<()> {
    let mut client = TrackerServiceClient::new(channel_from("127.0.0.1", tracker).await?);
    for number in 0..contents {
        let peer = PeerInfo {
            peer_id: Uuid::new_v4().to_string(),
            address: "127.0.0.1:9".to_owned(),
            complete: true,
            location: None,
        };
        let request = AnnounceRequest {
            content_id: ContentId::of_descriptor(&number.to_le_bytes()).to_string(),
            peer: Some(peer),
            ..AnnounceRequest::default()
        };
        client.announce(request).await?;
    }
    Ok(())
}

#[test]
fn a_content_that_does_not_fit_the_quota_is_fetched_once_there_is_room() {
    let cluster = Cluster::start();
    let small = cluster.seed(&cluster.file("source/small", 4 * MB, 1), &[]);
    let replica = cluster.peer("replica", &["--replicate", "all", "--limits-quota", "10MB"]);
    replica.wait_until_complete(&small.id);
    let large = cluster.seed(&cluster.file("source/large", 8 * MB, 2), &[]);
    let failed = replica.wait_until(&large.id, "a refusal", |s| s.state() == ContentState::Failed);
    assert!(failed.error.contains("quota"), "{failed:?}");
    assert!(replica.status(&small.id).is_some(), "a content was evicted to make room");
    replica.answer(&["rm", &small.id]);
    replica.wait_until_complete(&large.id);
}

#[test]
fn listed_contents_are_fetched_by_name_id_and_link_and_no_others() {
    let ring = Runtime::new().expect("a runtime").block_on(RingCluster::of(1));
    let (by_ring, by_tracker) = (Cluster::by_ring(&[ring.address(0)]), Cluster::start());
    let seed = |cluster: &Cluster, name, seed| {
        let file = cluster.file(&format!("source/{name}"), MB, seed);
        cluster.seed(&file, &[])
    };
    let (named, other) = (seed(&by_ring, "named", 1), seed(&by_ring, "other", 2));
    let (by_id, by_link) = (seed(&by_ring, "by-id", 3), seed(&by_tracker, "by-link", 4));
    let link = format!("shoal:{}?tr={}", by_link.id, by_tracker.tracker());
    let listed = format!("model/new,{},{link}", by_id.id);
    let environment = [("SHOAL__REPLICATE", "listed"), ("SHOAL__CONTENTS", &*listed)];
    let peer =
        Peer::start(&by_ring.path().join("peer"), &["--dht", &ring.address(0)], &environment);
    for seeder in [&by_id, &by_link] {
        peer.wait_until_complete(&seeder.id);
    }
    wait_for("a warning about the unknown name", PATIENCE, || {
        peer.process.stderr().contains("not found by its name").then_some(())
    });
    let name = ["name", "set", "model/new", &named.id, "--dht", &ring.address(0)];
    assert!(run("shoal", &name, b"").status.success());
    peer.wait_until_complete(&named.id);
    assert!(peer.status(&other.id).is_none());
}

#[test]
fn a_listed_content_makes_room_for_itself_beside_the_others() {
    let cluster = Cluster::start();
    let file = |name, seed| cluster.file(&format!("source/{name}"), 4 * MB, seed);
    let seeders = [file("a", 1), file("b", 2)].map(|file| cluster.seed(&file, &[]));
    let old = file("old", 3);
    let data_dir = cluster.path().join("peer");
    let tracker = cluster.tracker();
    let options = ["--tracker", &tracker, "--limits-quota", "10MB"];
    let mut before = Peer::start(&data_dir, &options, &[]);
    let old = before.publish(&old);
    before.process.terminate();
    before.process.wait(Duration::from_secs(30));
    let listed = seeders.each_ref().map(|seeder| ["--contents", &seeder.id]).concat();
    let peer =
        Peer::start(&data_dir, &[&options[..], &["--replicate", "listed"], &listed].concat(), &[]);
    for seeder in &seeders {
        peer.wait_until_complete(&seeder.id);
    }
    assert!(peer.status(&old).is_none(), "it was not evicted");
}

#[test]
fn conflicting_settings_are_reported_at_the_start_with_other_mistakes() {
    let arguments = ["--replicate", "all", "--contents", "llama-3", "--listen", "nowhere"];
    let refused = run("shoal-peer", &arguments, b"");
    assert_eq!(refused.status.code(), Some(64));
    let said = String::from_utf8_lossy(&refused.stderr);
    for part in ["--listen: ", "replicate, contents: ", "contents, dht: "] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    let refused = run("shoal-peer", &["--replicate", "some", "--contents", "a b"], b"");
    let said = String::from_utf8_lossy(&refused.stderr);
    for part in ["--replicate: \"some\" is not one of", "--contents: \"a b\" is not a name"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
}
