//! A ring with bad input, and with nodes that violate the protocol.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use shoal_common::ring_client::ADDRESSEE;
use shoal_core::ring::{NodeId, Position};
use shoal_proto::dht::v1::{
    AcceptRequest, Ballot, Condition, DeleteRequest, FindSuccessorRequest, GetPeersRequest,
    GetRequest, GossipRequest, LearnRequest, Life, ListNodesRequest, ListReplicaSetsRequest,
    LookupRequest, NodeInfo, NodeState, NotifyRequest, PrepareRequest, ProbeRequest, Proposal,
    PutRequest, RangeReplicaSet, ReadRecordsRequest, Record, ReplicaSet, ReplicateRequest, Rumour,
    Target, condition, replicate_response, target,
};
use shoal_testkit::ring::{
    RingCluster, addressed, replica_set_of,
    rogue::{Rogue, Vice},
    state,
};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    time::{sleep, timeout},
};
use tonic::{Code, Request, Response, Status, metadata::MetadataMap};
use tonic_types::StatusExt as _;
use uuid::Uuid;

/// The time limit for a call.
const DEADLINE: Duration = Duration::from_secs(5);
/// How soon a ring is in order again after a disturbance.
const SETTLED: Duration = Duration::from_secs(20);

fn put_of(key: &[u8], value: &[u8]) -> PutRequest {
    PutRequest { key: key.to_vec().into(), value: value.to_vec().into(), ..PutRequest::default() }
}

fn target(kind: target::Kind) -> Target {
    Target { kind: Some(kind) }
}

fn stranger() -> NodeInfo {
    let id = NodeId::new(Uuid::new_v4());
    let position = Position::of_node(id, 0).to_string();
    NodeInfo {
        node_id: id.to_string(),
        position,
        address: "127.0.0.1:1".to_owned(),
        ..NodeInfo::default()
    }
}

/// The fields that an error names.
fn fields(status: &Status) -> Vec<String> {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let violations = status.get_details_bad_request().expect("fields").field_violations;
    violations.into_iter().map(|violation| violation.field).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_with_the_reason_and_change_nothing() {
    let ring = RingCluster::of(1).await;
    let (mut node, id) = (ring.client(0), ring.id(0).await);
    node.put(put_of(b"key", b"value")).await.expect("the put succeeds");

    let refused = node.put(put_of(&[], &vec![0; 65_537])).await.expect_err("too long, too short");
    assert_eq!(fields(&refused), ["key", "value"]);
    assert!(refused.message().contains("65536"), "{refused:?}");
    let refused = node.put(put_of(&[7; 257], b"")).await.expect_err("too long");
    assert_eq!(fields(&refused), ["key"]);
    let forever = prost_types::Duration { seconds: 400_000_000, nanos: 0 };
    let refused = node.put(PutRequest { ttl: Some(forever), ..put_of(b"key", b"") }).await;
    assert_eq!(fields(&refused.expect_err("the TTL is too long")), ["ttl"]);
    let version = |text: &str| Condition { kind: Some(condition::Kind::Version(text.to_owned())) };
    let refused =
        node.put(PutRequest { condition: Some(version("7")), ..put_of(b"key", b"") }).await;
    assert_eq!(fields(&refused.expect_err("no version")), ["condition"]);
    let other = format!("1.1.1@{}", Uuid::nil());
    let refused =
        node.put(PutRequest { condition: Some(version(&other)), ..put_of(b"key", b"") }).await;
    assert_eq!(refused.expect_err("another version").code(), Code::Aborted);
    let refused = node.put(PutRequest { min_copies: 3, ..put_of(b"key", b"") }).await;
    assert_eq!(refused.expect_err("it is alone").code(), Code::FailedPrecondition);

    for kind in [target::Kind::Key(vec![0; 257].into()), target::Kind::Position("7".to_owned())] {
        let request = FindSuccessorRequest { target: Some(target(kind.clone())) };
        let refused = node.find_successor(request).await.expect_err("no target");
        assert_eq!(refused.code(), Code::InvalidArgument);
        let refused = node.lookup(LookupRequest { target: Some(target(kind)) }).await;
        assert_eq!(refused.expect_err("no target").code(), Code::InvalidArgument);
    }
    let forged = NodeInfo { position: format!("{:032x}", 7), ..stranger() };
    let state = Some(NodeState { node: Some(forged.clone()), ..NodeState::default() });
    let refused =
        node.notify(addressed(&id, NotifyRequest { state })).await.expect_err("a forged position");
    assert!(refused.message().contains("positions are computed from ids"), "{refused:?}");
    let rumour = |node| Rumour { node: Some(node), incarnation: 1, life: Life::Alive.into() };
    let gossip = GossipRequest { rumours: vec![rumour(forged)], digest: Vec::new() };
    assert_eq!(
        node.gossip(addressed(&id, gossip)).await.expect_err("forged").code(),
        Code::InvalidArgument
    );
    let flood = GossipRequest { rumours: vec![rumour(stranger()); 300], digest: Vec::new() };
    assert_eq!(
        node.gossip(addressed(&id, flood)).await.expect_err("a flood").code(),
        Code::InvalidArgument
    );

    let found = node.get(GetRequest { key: "key".into(), direct: false }).await.expect("a value");
    assert_eq!(found.into_inner().value, "value");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_arrives_after_its_deadline_is_refused() {
    let ring = RingCluster::of(2).await;
    let begun = Instant::now();
    let now = SystemTime::now;
    let until =
        |end: SystemTime| PutRequest { not_after: Some(end.into()), ..put_of(b"key", b"late") };
    // One of the two nodes is the primary; the other forwards to it.
    for number in 0..2 {
        let mut node = ring.client(number);
        for end in [now() - Duration::from_millis(1), now() + Duration::from_secs(60)] {
            let info = loop {
                let refused = node.put(until(end)).await.expect_err("its deadline is wrong");
                assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
                let info = refused.get_details_error_info().expect("a reason");
                // A primary on a loaded machine may have no leases for a moment.
                if info.reason != "NOT_SERVING" || begun.elapsed() > DEADLINE {
                    break info;
                }
            };
            assert_eq!(info.reason, "TOO_LATE");
            let clock = info.metadata["clock_unix_ms"].parse().expect("the node's clock");
            let clock = UNIX_EPOCH + Duration::from_millis(clock);
            assert!(now().duration_since(clock).expect("a time in the past") < DEADLINE);
            let get = GetRequest { key: "key".into(), direct: false };
            let missing = node.get(get).await.expect_err("nothing was written");
            assert_eq!(missing.code(), Code::NotFound);
        }
        node.put(until(now() + Duration::from_secs(2))).await.expect("it is before the deadline");
        let delete = DeleteRequest { key: "key".into(), ..DeleteRequest::default() };
        node.delete(delete).await.expect("the delete succeeds");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_primary_can_write() {
    let ring = RingCluster::of(3).await;
    let direct = PutRequest { direct: true, ..put_of(b"key", b"value") };
    ring.client(0).put(put_of(b"key", b"value")).await.expect("the put succeeds");
    let mut answers = Vec::new();
    for number in 0..3 {
        let answer = ring.client(number).put(ring.addressed(number, direct.clone()).await).await;
        answers.push(answer.map_or_else(|status| status.code(), |_| Code::Ok));
    }
    answers.sort_by_key(|code| *code as i32);
    assert_eq!(answers, [Code::Ok, Code::Unavailable, Code::Unavailable]);

    // An invented replica set with the lowest epoch.
    let present = replica_set_of(b"key", &mut ring.client(0)).await;
    let set = present.replica_set.clone().expect("a set");
    let set = ReplicaSet { members: vec![stranger()], epoch: 1, ..set };
    let write = |wall_ms: u64| ReplicateRequest {
        present: Some(RangeReplicaSet { replica_set: Some(set.clone()), ..present.clone() }),
        records: vec![Record {
            key: "key".into(),
            version: format!("9.{wall_ms}.0@{}", Uuid::nil()),
            value: Some("forged".into()),
            ..Record::default()
        }],
    };
    let (mut replica, id) = (ring.replica(0), ring.id(0).await);
    let write = |wall_ms| addressed(&id, write(wall_ms));
    let answer = replica.replicate(write(1)).await.expect("an answer").into_inner();
    assert!(matches!(answer.kind, Some(replicate_response::Kind::Superseded(_))), "{answer:?}");
    let refused = replica.replicate(write(u64::MAX)).await.expect_err("the far future");
    assert!(refused.message().contains("before the year 10000"), "{refused:?}");
    for number in 0..3 {
        let request = GetRequest { key: "key".into(), direct: false };
        let found = ring.client(number).get(request).await.expect("it exists").into_inner();
        assert_eq!(found.value, "value");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_only_one_replica_has_is_rewritten_before_it_is_read() {
    let mut ring = RingCluster::of(3).await;
    ring.client(0).put(put_of(b"key", b"value")).await.expect("the put succeeds");
    let get = |direct| GetRequest { key: "key".into(), direct };
    let (mut primary, mut before) = (None, String::new());
    for number in 0..3 {
        if let Ok(found) = ring.client(number).get(ring.addressed(number, get(true)).await).await {
            (primary, before) = (Some(number), found.into_inner().version);
        }
    }
    let primary = primary.expect("one of them answers");
    let replica = (primary + 1) % 3;
    let epoch = |version: &str| -> u64 {
        version.split('.').next().and_then(|epoch| epoch.parse().ok()).expect("an epoch")
    };
    let (_, rest) = before.split_once('.').expect("an epoch and more");
    let (wall_ms, rest) = rest.split_once('.').expect("a time and more");
    let later = wall_ms.parse::<u64>().expect("a time") + 1;
    let version = format!("{}.{later}.{rest}", epoch(&before));
    let unanswered = ReplicateRequest {
        present: Some(replica_set_of(b"key", &mut ring.client(primary)).await),
        records: vec![Record {
            key: "key".into(),
            version: version.clone(),
            value: Some("indeterminate".into()),
            ..Record::default()
        }],
    };
    let unanswered = ring.addressed(replica, unanswered).await;
    let answer = ring.replica(replica).replicate(unanswered).await.expect("an answer").into_inner();
    assert!(matches!(answer.kind, Some(replicate_response::Kind::Stored(_))), "{answer:?}");
    ring.kill(primary);

    let found = timeout(DEADLINE, async {
        loop {
            if let Ok(found) = ring.client(replica).get(get(false)).await {
                break found.into_inner();
            }
        }
    });
    let found = found.await.expect("the other replicas serve the key");
    assert_eq!(found.value, "indeterminate", "the new primary lost the write");
    assert_eq!(found.version, version);
    let request = ReadRecordsRequest { keys: vec!["key".into()] };
    let request = ring.addressed(replica, request).await;
    let records = ring.replica(replica).read_records(request).await.expect("it has the key");
    let again = records.into_inner().records.remove(0).epoch;
    assert!(again > Some(epoch(&before)), "epoch {again:?} after {before}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_between_nodes_are_refused_unless_they_name_the_called_node() {
    let ring = RingCluster::of(2).await;
    let (mut node, mut replica) = (ring.client(0), ring.replica(0));
    let present = replica_set_of(b"key", &mut node).await;
    let [own, other] = [ring.id(0).await, ring.id(1).await];
    for (to, code) in
        [(None, Code::InvalidArgument), (Some(&other), Code::Unavailable), (Some(&own), Code::Ok)]
    {
        let name = |message: &mut MetadataMap| {
            let to = to.map(|id| id.parse().expect("an id is ASCII"));
            to.map(|id| message.insert(ADDRESSEE, id));
        };
        macro_rules! code_of {
            ($client:ident.$call:ident($message:expr)) => {{
                let mut request = Request::new($message);
                name(request.metadata_mut());
                $client.$call(request).await.map_or_else(|status| status.code(), |_| Code::Ok)
            }};
        }
        assert_eq!(code_of!(node.gossip(GossipRequest::default())), code);
        let state = state(&mut node).await.expect("a state").state;
        assert_eq!(code_of!(node.notify(NotifyRequest { state: state.clone() })), code);
        assert_eq!(code_of!(node.probe(ProbeRequest { state })), code);
        let chosen = Some(present.clone());
        assert_eq!(code_of!(replica.learn(LearnRequest { chosen })), code);
        let range = replica_set_of(b"key", &mut node).await.range;
        assert_eq!(code_of!(replica.list_replica_sets(ListReplicaSetsRequest { range })), code);
        let direct = GetRequest { key: "key".into(), direct: true };
        let answer = code_of!(node.get(direct));
        // The called node may not be the primary.
        let may_be = [Code::NotFound, Code::Unavailable];
        assert!(answer == code || code == Code::Ok && may_be.contains(&answer), "{answer:?}");
        let direct = GetPeersRequest {
            content_id: "00".repeat(32),
            direct: true,
            ..GetPeersRequest::default()
        };
        assert_eq!(code_of!(node.get_peers(direct)), code);
    }
}

/// Neither the highest number of all nor the highest accepted one blocks later epochs and rounds.
#[tokio::test(flavor = "multi_thread")]
async fn absurd_epochs_and_rounds_are_refused_and_high_ones_are_surpassed() {
    const DAY_MS: u64 = 24 * 3600 * 1000;
    let ring = RingCluster::of(3).await;
    ring.client(0).put(put_of(b"key", b"value")).await.expect("the put succeeds");
    let stranger = Uuid::nil().to_string();
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later").as_millis();
    let accepted = now_ms as u64 + DAY_MS - 2_000;
    for (count, is_accepted) in [(u64::MAX, false), (accepted + 60_000, false), (accepted, true)] {
        let mut codes = Vec::new();
        for number in 0..3 {
            let (mut replica, id) = (ring.replica(number), ring.id(number).await);
            let present = replica_set_of(b"key", &mut ring.client(number)).await;
            let ballot = Some(Ballot { round: count, node_id: stranger.clone() });
            let primary_agrees = true;
            let prepare = PrepareRequest {
                present: Some(present.clone()),
                ballot: ballot.clone(),
                primary_agrees,
            };
            codes.push(code(replica.prepare(addressed(&id, prepare)).await));
            let set = present.replica_set.clone().map(|set| ReplicaSet { epoch: count, ..set });
            let proposal = Some(Proposal { ballot, replica_set: set.clone() });
            let accept = AcceptRequest { present: Some(present.clone()), proposal };
            codes.push(code(replica.accept(addressed(&id, accept)).await));
            let chosen = Some(RangeReplicaSet { replica_set: set, ..present });
            codes.push(code(replica.learn(addressed(&id, LearnRequest { chosen })).await));
        }
        let all = if is_accepted { Code::Ok } else { Code::InvalidArgument };
        assert_eq!(codes, [all; 9], "{count}");
        let written = timeout(SETTLED, async {
            loop {
                match ring.client(0).put(put_of(b"key", &count.to_be_bytes())).await {
                    Ok(_) => break,
                    Err(refused) => assert_eq!(refused.code(), Code::Unavailable, "{refused:?}"),
                }
            }
        });
        written.await.expect("the range is usable again");
        for number in 0..3 {
            let request = GetRequest { key: "key".into(), direct: false };
            let found = within(ring.client(number).get(request)).await.expect("it exists");
            assert_eq!(found.value, &count.to_be_bytes()[..]);
        }
    }
    ring.settled(SETTLED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_refutes_rumours_of_its_death() {
    let ring = RingCluster::of(3).await;
    known(&ring).await;
    let node = state(&mut ring.client(1)).await.and_then(|told| told.state).expect("a state").node;
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later").as_millis();
    let day_ms = 24 * 3600 * 1000;
    for ahead in [0, 5, 60_000, day_ms - 2_000] {
        let incarnation = now_ms as u64 + ahead;
        for life in [Life::Dead, Life::Left] {
            let rumour = Rumour { node: node.clone(), incarnation, life: life.into() };
            let gossip = GossipRequest { rumours: vec![rumour], digest: Vec::new() };
            for number in [0, 2] {
                let gossip = ring.addressed(number, gossip.clone()).await;
                ring.client(number).gossip(gossip).await.expect("it accepts gossip");
            }
        }
        all_know_all(&ring).await;
    }
    let rumour = Rumour { node, incarnation: u64::MAX, life: Life::Dead.into() };
    for number in 0..3 {
        let gossip = GossipRequest { rumours: vec![rumour.clone()], digest: Vec::new() };
        let gossip = ring.addressed(number, gossip).await;
        ring.client(number).gossip(gossip).await.expect("it accepts gossip");
    }
    // If this rumour were accepted, the node could not refute it.
    all_know_all(&ring).await;
}

/// Waits until every node knows all nodes.
async fn all_know_all(ring: &RingCluster) {
    let heard = async {
        for number in 0..ring.len() {
            let mut node = ring.client(number);
            loop {
                let nodes = node.list_nodes(ListNodesRequest::default()).await.expect("a list");
                if nodes.into_inner().nodes.len() == ring.len() {
                    break;
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
    };
    timeout(SETTLED, heard).await.expect("all nodes become known");
}

fn code<T>(answer: Result<Response<T>, Status>) -> Code {
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_grpc_do_no_harm() {
    let ring = RingCluster::of(1).await;
    for noise in
        [&[0; 4096][..], &[255; 4096], b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM"]
    {
        let mut stream = TcpStream::connect(ring.address(0)).await.expect("it listens");
        // The node may close it half-way.
        let _ = stream.write_all(noise).await;
    }
    ring.client(0).put(put_of(b"key", b"value")).await.expect("it serves");
}

#[tokio::test(flavor = "multi_thread")]
async fn lookups_avoid_a_node_that_never_answers() {
    lookups_avoid(Vice::Silent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lookups_avoid_a_node_that_forges_positions() {
    lookups_avoid(Vice::ForgedPositions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lookups_avoid_a_node_that_refers_them_in_circles() {
    lookups_avoid(Vice::Circles).await;
}

/// Gossips about a rogue node to all nodes again and again; every key must still be found and
/// stored.
async fn lookups_avoid(vice: Vice) {
    const KEYS: usize = 40;
    let ring = RingCluster::of(4).await;
    let nodes = known(&ring).await;
    let rogue = Rogue::start(vice, nodes.clone()).await;
    let rumour =
        Rumour { node: Some(rogue.info.clone()), incarnation: 1, life: Life::Alive.into() };
    for key in 0..KEYS {
        for number in 0..4 {
            let rumour = Rumour { incarnation: key as u64 + 1, ..rumour.clone() };
            let gossip = GossipRequest { rumours: vec![rumour], digest: Vec::new() };
            let gossip = ring.addressed(number, gossip).await;
            ring.client(number).gossip(gossip).await.expect("it accepts gossip");
        }
        let (mut node, name) = (ring.client(key % 4), format!("key-{key}"));
        let look_up =
            LookupRequest { target: Some(target(target::Kind::Key(name.clone().into()))) };
        let found = within(node.lookup(look_up)).await.expect("it is found");
        let owner = found.owner.clone().map(|owner| owner.position);
        assert_eq!(owner, Some(owner_of(&name, &nodes)), "{found:?} beside {:?}", rogue.info);
        within(node.put(put_of(name.as_bytes(), b"value"))).await.expect("the put succeeds");
        let get = GetRequest { key: name.into(), direct: false };
        assert_eq!(within(node.get(get)).await.expect("it exists").value, "value");
    }
}

/// The nodes of a ring, once the first node knows all.
async fn known(ring: &RingCluster) -> Vec<NodeInfo> {
    let mut node = ring.client(0);
    let all = async {
        loop {
            let known = node.list_nodes(ListNodesRequest::default()).await.expect("a list");
            let nodes = known.into_inner().nodes;
            if nodes.len() == ring.len() {
                break nodes;
            }
        }
    };
    timeout(DEADLINE, all).await.expect("all nodes become known")
}

fn owner_of(key: &str, nodes: &[NodeInfo]) -> String {
    let position = Position::of_key(key.as_bytes()).to_string();
    let mut positions: Vec<_> = nodes.iter().map(|node| node.position.clone()).collect();
    positions.sort();
    let owner = positions.iter().find(|other| **other >= position);
    owner.unwrap_or(&positions[0]).clone()
}

async fn within<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    Ok(timeout(DEADLINE, call).await.expect("an answer in time")?.into_inner())
}
