//! Rings of real processes: they form, keep acknowledged writes, shrink and grow.

use std::{collections::HashMap, env, fs, time::Duration};

use shoal_proto::dht::v1::{Condition, DeleteRequest, GetRequest, PutRequest, condition::Kind};
use shoal_testkit::{
    fleet::ProcessNetwork,
    process::free_port,
    ring::{Client, RingCluster, replica_set_of},
};
use tempfile::NamedTempFile;
use tonic::Code;
use tonic_types::StatusExt as _;

/// How soon after the last change the nodes form one ring again.
const SOON: Duration = Duration::from_secs(5);
/// How often a ring shrinks and grows, unless `SHOAL_SCALE_ROUNDS` is set.
const ROUNDS: u32 = 3;
/// The grace period of a node that leaves.
const GRACE: Duration = Duration::from_secs(30);

async fn put(client: &mut Client, key: &str, value: &str) -> Result<(String, u32), tonic::Status> {
    let request = PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..PutRequest::default()
    };
    let response = client.put(request).await?.into_inner();
    Ok((response.version, response.durable_copies))
}

async fn get(client: &mut Client, key: &str) -> Result<String, tonic::Status> {
    let request = GetRequest { key: key.to_owned().into(), direct: false };
    let value = client.get(request).await?.into_inner().value;
    Ok(String::from_utf8(value.to_vec()).expect("the value that was put"))
}

async fn fill(ring: &RingCluster, keys: usize) {
    let running = ring.running();
    for key in 0..keys {
        let mut client = ring.client(running[key % running.len()]);
        put(&mut client, &format!("key-{key}"), &format!("value-{key}"))
            .await
            .expect("the put succeeds");
    }
}

async fn check(ring: &RingCluster, keys: usize) {
    let running = ring.running();
    for key in 0..keys {
        let mut client = ring.client(running[key % running.len()]);
        let value = get(&mut client, &format!("key-{key}")).await;
        assert_eq!(value.expect("it exists"), format!("value-{key}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_primary_answers_for_a_key_and_the_other_replicas_name_it() {
    let ring = RingCluster::of(5).await;
    put(&mut ring.client(0), "llama-3", "a-content").await.expect("the put succeeds");
    let (mut primaries, mut named) = (Vec::new(), HashMap::new());
    for number in 0..5 {
        let request = GetRequest { key: "llama-3".into(), direct: true };
        let request = ring.addressed(number, request).await;
        match ring.client(number).get(request).await {
            Ok(_) => primaries.push(number),
            Err(refused) => {
                assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
                let info = refused.get_details_error_info().expect("a reason");
                assert_eq!(info.reason, "NOT_SERVING");
                named.insert(ring.address(number), info.metadata.get("primary_address").cloned());
            }
        }
    }
    let [primary] = primaries[..] else { panic!("{primaries:?} answer") };
    let kept = replica_set_of(b"llama-3", &mut ring.client(primary)).await;
    let members = kept.replica_set.expect("there is one").members;
    assert_eq!(members.len(), 3, "{members:?}");
    for other in members.iter().filter(|member| member.address != ring.address(primary)) {
        assert_eq!(named[&other.address], Some(ring.address(primary)), "{named:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_read_through_every_node_until_it_is_removed() {
    let ring = RingCluster::of(5).await;
    let (version, copies) =
        put(&mut ring.client(0), "llama-3", "a-content").await.expect("the put succeeds");
    assert!(copies >= 2, "{copies} copies");
    for number in 0..5 {
        assert_eq!(get(&mut ring.client(number), "llama-3").await.expect("it exists"), "a-content");
    }
    let stale = Condition { kind: Some(Kind::Absent(true)) };
    let request = PutRequest {
        key: "llama-3".into(),
        value: "another".into(),
        condition: Some(stale),
        ..PutRequest::default()
    };
    let refused = ring.client(1).put(request.clone()).await.expect_err("it has a value");
    assert_eq!(refused.code(), Code::Aborted, "{refused}");
    let right = Condition { kind: Some(Kind::Version(version)) };
    let request = PutRequest { condition: Some(right), ..request };
    ring.client(2).put(request).await.expect("its version is still the latest");
    assert_eq!(get(&mut ring.client(3), "llama-3").await.expect("it exists"), "another");

    let request = DeleteRequest { key: "llama-3".into(), ..DeleteRequest::default() };
    ring.client(4).delete(request).await.expect("the delete succeeds");
    let missing = get(&mut ring.client(0), "llama-3").await.expect_err("it is gone");
    assert_eq!(missing.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_of_one_node_keeps_one_copy_and_three_after_it_has_grown() {
    let mut ring = RingCluster::of(1).await;
    let (_, copies) = put(&mut ring.client(0), "key-0", "value-0").await.expect("the put succeeds");
    assert_eq!(copies, 1);
    ring.add();
    ring.add();
    ring.settled(SOON).await;
    check(&ring, 1).await;
    ring.kill(0);
    ring.one(SOON).await;
    check(&ring, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_nodes_started_together_become_one_ring() {
    let ring = RingCluster::at_once(5);
    ring.one(Duration::from_secs(15)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_nodes_that_join_by_one_name_of_all_of_them_become_one_ring() {
    let hosts = NamedTempFile::new().expect("a file");
    let addresses = (1..=5).map(|number| format!("127.0.0.{number}"));
    let lines: Vec<_> = addresses.clone().map(|ip| format!("{ip} dht-node.test")).collect();
    fs::write(hosts.path(), lines.join("\n")).expect("it is written");
    let port = free_port();
    let network = ProcessNetwork::Hosts(hosts.path().to_owned());
    let nodes = addresses.map(|ip| (network.clone(), format!("{ip}:{port}"))).collect();
    let ring = RingCluster::joining(nodes, &[format!("dht-node.test:{port}")]);
    ring.one(Duration::from_secs(15)).await;
    assert_eq!(ring.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_down_to_one_and_up_again_loses_nothing() {
    let rounds = env::var("SHOAL_SCALE_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let mut ring = RingCluster::of(5).await;
    fill(&ring, 100).await;
    for _ in 0..rounds.unwrap_or(ROUNDS) {
        for number in (1..5).rev() {
            ring.leave(number, GRACE).await;
        }
        ring.one(SOON).await;
        check(&ring, 100).await;
        for number in 1..5 {
            ring.start(number);
        }
        ring.one(SOON).await;
        check(&ring, 100).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stop_and_start_loses_nothing() {
    let mut ring = RingCluster::at_once(5);
    ring.settled(Duration::from_secs(15)).await;
    fill(&ring, 100).await;
    ring.stop(GRACE).await;
    for number in 0..5 {
        ring.start(number);
    }
    ring.one(Duration::from_secs(15)).await;
    check(&ring, 100).await;
}

#[tokio::test]
async fn nodes_that_restart_with_each_others_addresses_lose_nothing() {
    let mut ring = RingCluster::at_once(5);
    ring.settled(Duration::from_secs(15)).await;
    fill(&ring, 100).await;
    for number in 0..5 {
        ring.kill(number);
    }
    ring.rotate_addresses();
    for number in 0..5 {
        ring.start(number);
    }
    ring.one(Duration::from_secs(15)).await;
    check(&ring, 100).await;
}
