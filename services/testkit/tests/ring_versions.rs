//! A value keeps its version, whatever happens to nodes and clocks.

use std::{fs, time::Duration};

use shoal_core::ring::Position;
use shoal_proto::dht::v1::{
    Condition, GetRequest, PutRequest, ReadRecordsRequest, condition::Kind,
};
use shoal_testkit::ring::{RingCluster, addressed, key_range, position, state};
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};

/// How soon there is one ring again, and each key is rewritten.
const SOON: Duration = Duration::from_secs(20);
const HOUR_MS: u64 = 3_600_000;

/// The write is on two of three replicas. The next primary reads one of these and the third.
#[tokio::test(flavor = "multi_thread")]
async fn a_reconfiguration_rewrites_a_majoritys_value_with_its_old_version() {
    const ATTEMPTS: usize = 10;
    let mut ring = RingCluster::of(5).await;
    for attempt in 0..ATTEMPTS {
        let key = format!("key-{attempt}");
        put(&ring, 0, &key, None).await.expect("all nodes are up");
        let members = members_of(&ring, &key).await;
        ring.kill(members[2]);
        let written = put(&ring, members[1], &key, None).await;
        ring.kill(members[0]);
        ring.start(members[2]);
        let version = written.expect("two of three replicas answer");
        assert_eq!(read(&ring, members[1], &key).await, version);
        let is_rewritten = is_rewritten(&ring, members[1], &key).await;
        let next = put(&ring, members[1], &key, Some(version.clone())).await;
        assert!(next.is_ok_and(|next| next != version), "its version is still the latest");
        if is_rewritten {
            return;
        }
        // The third replica had been replaced before the first was killed.
        ring.start(members[0]);
        ring.settled(SOON).await;
    }
    panic!("no value was rewritten in {ATTEMPTS} attempts");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_nodes_clock_that_was_hours_ahead_has_no_lasting_effect() {
    clocks_ahead_have_no_lasting_effect(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_clocks_that_were_hours_ahead_have_no_lasting_effect() {
    clocks_ahead_have_no_lasting_effect(5).await;
}

/// Of five nodes, `ahead` have a clock that is 5 h ahead for a while.
async fn clocks_ahead_have_no_lasting_effect(ahead: usize) {
    let faults = tempfile::tempdir().expect("a temporary directory");
    let directory = faults.path().to_str().expect("it is text");
    let mut ring = RingCluster::new();
    for number in 0..5 {
        let directory = if number < ahead { directory } else { "/nonexistent" };
        ring = ring.with_env(&[("SHOAL_FAULTS", directory)]);
        ring.add();
    }
    ring.settled(SOON).await;
    let mut keys: Vec<_> = (0..16).map(|number| format!("key-{number}")).collect();
    keys.push(key_of_first(&ring).await);
    let mut versions = Vec::new();
    for key in &keys {
        versions.push(put(&ring, 1, key, None).await.expect("the ring is in order"));
    }
    let clock = faults.path().join("clock");
    fs::write(&clock, (5 * HOUR_MS).to_string()).expect("a file can be written");
    let (since, mut is_ahead) = (Instant::now(), false);
    while !is_ahead {
        assert!(since.elapsed() < SOON, "no key is written with a clock that is ahead");
        for (key, version) in keys.iter().zip(&mut versions) {
            let next =
                put(&ring, 1, key, Some(version.clone())).await.expect("the ring is in order");
            is_ahead |= wall_ms(&next) > wall_ms(version) + 4 * HOUR_MS;
            *version = next;
        }
    }
    fs::remove_file(&clock).expect("it exists");
    for (key, version) in keys.iter().zip(&mut versions) {
        *version =
            put(&ring, 1, key, Some(version.clone())).await.expect("the ring is in order again");
    }
    // Values with such versions are handed over, rewritten, and overwritten.
    ring.kill(0);
    ring.settled(SOON).await;
    for (key, version) in keys.iter().zip(&mut versions) {
        assert_eq!(read(&ring, 1, key).await, *version);
        *version = put(&ring, 1, key, Some(version.clone()))
            .await
            .expect("its version is still the latest");
    }
    ring.start(0);
    ring.settled(SOON).await;
    for (key, version) in keys.iter().zip(&versions) {
        assert_eq!(read(&ring, 0, key).await, *version);
        let next = put(&ring, 0, key, Some(version.clone()))
            .await
            .expect("its version is still the latest");
        assert!(wall_ms(&next) < wall_ms(version) + HOUR_MS);
    }
}

fn wall_ms(version: &str) -> u64 {
    let wall_ms = version.split('.').nth(1).and_then(|wall_ms| wall_ms.parse().ok());
    wall_ms.unwrap_or_else(|| panic!("{version} is not a version"))
}

/// Writes a key if it still has the expected version. Returns the new version.
async fn put(
    ring: &RingCluster,
    through: usize,
    key: &str,
    expected: Option<String>,
) -> Result<String, Status> {
    let condition = expected.map(|version| Condition { kind: Some(Kind::Version(version)) });
    let request = PutRequest { key: key.to_owned().into(), condition, ..PutRequest::default() };
    ring.client(through).put(request).await.map(|answer| answer.into_inner().version)
}

/// The version of a key, once it can be read.
async fn read(ring: &RingCluster, through: usize, key: &str) -> String {
    let since = Instant::now();
    loop {
        let request = GetRequest { key: key.to_owned().into(), direct: false };
        match ring.client(through).get(request).await {
            Ok(answer) => return answer.into_inner().version,
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{key}: {status}");
                assert!(since.elapsed() < SOON, "{key}: {status}");
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// Whether a node has a record of a key that a reconfiguration has rewritten.
async fn is_rewritten(ring: &RingCluster, node: usize, key: &str) -> bool {
    let request = ReadRecordsRequest { keys: vec![key.to_owned().into()] };
    let request = addressed(&ring.id(node).await, request);
    let records = ring.replica(node).read_records(request).await.expect("it has the key");
    records.into_inner().records.iter().any(|record| record.epoch.is_some())
}

/// A key whose closest successor is the first node.
async fn key_of_first(ring: &RingCluster) -> String {
    let order = in_order(ring).await;
    let mut keys = (0..100_000).map(|number| format!("first-{number}"));
    keys.find(|key| successors(&order, key)[0] == 0).expect("it owns some key")
}

/// The replica set of a key, the primary first, once it is the key's closest successor and the two
/// nodes after that.
async fn members_of(ring: &RingCluster, key: &str) -> Vec<usize> {
    let expected = successors(&in_order(ring).await, key);
    let (position, since) = (Position::of_key(key.as_bytes()), Instant::now());
    loop {
        let answer = state(&mut ring.client(expected[0])).await.expect("it answers");
        let sets = answer.replica_sets.into_iter().filter_map(|kept| {
            let is_of_key = key_range(&kept.range?).contains(position);
            kept.replica_set.filter(|_| is_of_key)
        });
        let members: Vec<_> = sets.flat_map(|set| set.members).map(|node| node.address).collect();
        let is_member = |node: &usize| members.contains(&ring.address(*node));
        if members.len() == expected.len()
            && members[0] == ring.address(expected[0])
            && expected.iter().all(is_member)
        {
            return expected;
        }
        assert!(since.elapsed() < SOON, "{key} is kept by {members:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// The closest successor of a key and the two nodes after it.
fn successors(order: &[(Position, usize)], key: &str) -> Vec<usize> {
    let first = order.partition_point(|(position, _)| *position < Position::of_key(key.as_bytes()));
    (0..3).map(|step| order[(first + step) % order.len()].1).collect()
}

/// All running nodes, sorted by position.
async fn in_order(ring: &RingCluster) -> Vec<(Position, usize)> {
    let mut order = Vec::new();
    for node in ring.running() {
        let answer = state(&mut ring.client(node)).await.expect("it answers");
        let info = answer.state.and_then(|state| state.node).expect("its state names it");
        order.push((position(&info.position), node));
    }
    order.sort_unstable();
    order
}
