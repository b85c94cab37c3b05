//! A version stays for as long as the value that it was given to, whatever becomes of nodes and clocks.

use std::{fs, time::Duration};

use shoal_proto::dht::v1::{
    Condition, GetRequest, PutRequest, ReadRecordsRequest, condition::Kind,
};
use shoal_testkit::ring::{Ring, addressed, agreement_on};
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};

/// One ring again, and each key written again, so soon.
const SOON: Duration = Duration::from_secs(20);
const HOUR_MS: u64 = 3_600_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_writes_again_what_a_majority_has_and_leaves_its_version() {
    const KEY: &str = "key";
    let mut ring = Ring::of(5).await;
    put(&ring, 0, KEY, None).await.expect("all nodes are there");
    let members = members_of(&ring, KEY).await;
    ring.pause(members[2]);
    let version = put(&ring, members[1], KEY, None).await.expect("two of three replicas answer");
    ring.kill(members[0]);
    ring.resume(members[2]);
    assert_eq!(read(&ring, members[1], KEY).await, version);

    let primary = members_of(&ring, KEY).await[0];
    let request = ReadRecordsRequest { keys: vec![KEY.into()] };
    let request = addressed(&ring.id(primary).await, request);
    let records = ring.replica(primary).read_records(request).await.expect("it has the key");
    let record = records.into_inner().records.remove(0);
    assert!(record.epoch.is_some(), "the takeover has not written it again: {record:?}");
    let next = put(&ring, members[1], KEY, Some(version.clone())).await;
    assert!(next.is_ok_and(|next| next != version), "nobody else wrote");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_of_one_node_that_was_hours_ahead_costs_nothing_later() {
    costs_nothing_later(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clocks_of_all_nodes_that_were_hours_ahead_cost_nothing_later() {
    costs_nothing_later(5).await;
}

/// Of five nodes so many have a clock that is ahead for a while.
async fn costs_nothing_later(ahead: usize) {
    let faults = tempfile::tempdir().expect("a temporary directory");
    let directory = faults.path().to_str().expect("it is text");
    let mut ring = Ring::new();
    for number in 0..5 {
        let directory = if number < ahead { directory } else { "/nonexistent" };
        ring = ring.with_env(&[("SHOAL_FAULTS", directory)]);
        ring.add();
    }
    ring.settled(SOON).await;
    let keys: Vec<_> = (0..16).map(|number| format!("key-{number}")).collect();
    let mut versions = Vec::new();
    for key in &keys {
        versions.push(put(&ring, 1, key, None).await.expect("the ring is in order"));
    }
    let clock = faults.path().join("clock");
    fs::write(&clock, (5 * HOUR_MS).to_string()).expect("a file can be written");
    let (since, mut is_ahead) = (Instant::now(), false);
    while !is_ahead {
        assert!(since.elapsed() < SOON, "no key is written by a clock that is ahead");
        for (key, version) in keys.iter().zip(&mut versions) {
            let next = put(&ring, 1, key, Some(version.clone())).await.expect("it is in order");
            is_ahead |= wall_ms(&next) > wall_ms(version) + 4 * HOUR_MS;
            *version = next;
        }
    }
    fs::remove_file(&clock).expect("it is there");
    for (key, version) in keys.iter().zip(&mut versions) {
        *version = put(&ring, 1, key, Some(version.clone())).await.expect("it is in order again");
    }
    // What has such a version is handed over, written again, and written anew.
    ring.kill(0);
    ring.settled(SOON).await;
    for (key, version) in keys.iter().zip(&mut versions) {
        assert_eq!(read(&ring, 1, key).await, *version);
        *version = put(&ring, 1, key, Some(version.clone())).await.expect("it has been read");
    }
    ring.start(0);
    ring.settled(SOON).await;
    for (key, version) in keys.iter().zip(&versions) {
        assert_eq!(read(&ring, 0, key).await, *version);
        let next = put(&ring, 0, key, Some(version.clone())).await.expect("it has been read");
        assert!(wall_ms(&next) < wall_ms(version) + HOUR_MS);
    }
}

fn wall_ms(version: &str) -> u64 {
    let wall_ms = version.split('.').nth(1).and_then(|wall_ms| wall_ms.parse().ok());
    wall_ms.unwrap_or_else(|| panic!("{version} is no version"))
}

/// Writes a key, if it has this version still. Gives the new one.
async fn put(
    ring: &Ring,
    through: usize,
    key: &str,
    expected: Option<String>,
) -> Result<String, Status> {
    let condition = expected.map(|version| Condition { kind: Some(Kind::Version(version)) });
    let request = PutRequest { key: key.to_owned().into(), condition, ..PutRequest::default() };
    ring.client(through).put(request).await.map(|answer| answer.into_inner().version)
}

/// The version of a key, once it can be read.
async fn read(ring: &Ring, through: usize, key: &str) -> String {
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

/// The nodes that keep a key, the primary first, as the one knows that has heard of the latest set.
async fn members_of(ring: &Ring, key: &str) -> Vec<usize> {
    let mut sets = Vec::new();
    for node in ring.running() {
        let agreement = agreement_on(key.as_bytes(), &mut ring.client(node)).await;
        sets.extend(agreement.replica_set);
    }
    let latest = sets.into_iter().max_by_key(|set| set.epoch).expect("somebody keeps the key");
    let number_of = |address: &str| (0..ring.len()).find(|node| ring.address(*node) == address);
    let members = latest.members.iter().map(|member| number_of(&member.address));
    members.collect::<Option<_>>().expect("they are nodes of the ring")
}
