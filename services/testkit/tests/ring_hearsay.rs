//! Rumours of thousands of nonexistent nodes do not make a ring flood a victim with dials, and a
//! node's claimed address must be the one that it is seen at.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use shoal_core::ring::{NodeId, Position};
use shoal_proto::dht::v1::{
    GetRequest, GossipRequest, Life, ListNodesRequest, NodeInfo, NodeState, NotifyRequest,
    ProbeRequest, PutRequest, Rumour,
};
use shoal_testkit::ring::{Client, RingCluster, addressed};
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};
use uuid::Uuid;

/// Members in the rumours: so many once made two nodes dial one address 168 times in 8 s.
const FORGED: usize = 4096;
/// Nodes in one answer.
const PAGE: usize = 1000;
/// Nodes that one source may introduce.
const OF_SOURCE: usize = 1024;
/// How soon a node publishes the rumours it has received.
const SOON: Duration = Duration::from_secs(5);
/// How long dials are counted.
const WATCHED: Duration = Duration::from_secs(8);
/// Dials that a node may make at once to a host that never answered; one more each second.
const BURST: usize = 32;

/// Accepts connections, closes and counts them.
async fn victim() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.77:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    (address, count)
}

fn stranger(address: &str) -> NodeInfo {
    let id = NodeId::new(Uuid::new_v4());
    NodeInfo {
        node_id: id.to_string(),
        position: Position::of_node(id, 0).to_string(),
        address: address.to_owned(),
        ..NodeInfo::default()
    }
}

fn forged(address: &str) -> Rumour {
    Rumour { node: Some(stranger(address)), incarnation: 1, life: Life::Alive.into() }
}

/// How many nodes a node lists, on all pages.
async fn listed(node: &mut Client) -> usize {
    let (mut count, mut page_token) = (0, String::new());
    loop {
        let request = ListNodesRequest { page_token, ..ListNodesRequest::default() };
        let page = node.list_nodes(request).await.expect("a page").into_inner();
        count += page.nodes.len();
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return count;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_known_only_from_gossip_are_dialled_a_few_times() {
    let ring = RingCluster::of(2).await;
    let (address, dials) = victim().await;
    let since = Instant::now();
    let (mut node, id) = (ring.client(0), ring.id(0).await);
    for _ in 0..FORGED / 256 {
        let rumours = (0..256).map(|_| forged(&address)).collect();
        let gossip = GossipRequest { rumours, digest: Vec::new() };
        node.gossip(addressed(&id, gossip)).await.expect("it accepts gossip");
    }
    // A node publishes received rumours with its next gossip exchange.
    let published = async {
        while node
            .list_nodes(ListNodesRequest::default())
            .await
            .expect("a list")
            .get_ref()
            .nodes
            .len()
            < PAGE
        {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, published).await.expect("it lists a full page of nodes");
    let known = listed(&mut node).await;
    assert!(known <= OF_SOURCE + 2, "one source introduced {known} nodes");
    // A fixed time: dials are counted per time.
    sleep(WATCHED).await;
    let dialled = dials.load(Ordering::Relaxed);
    let watched = since.elapsed();
    println!("{dialled} dials in {watched:?}");
    let allowed = BURST + watched.as_secs() as usize + 1;
    assert!(dialled > 0, "the claimed address is never dialled");
    assert!(dialled <= 2 * allowed, "{dialled} dials of one address in {watched:?}");
    for key in ["one", "two", "three"] {
        let put = PutRequest { key: key.into(), value: "value".into(), ..PutRequest::default() };
        node.put(put).await.expect("the put succeeds");
        let get = GetRequest { key: key.into(), direct: false };
        assert_eq!(node.get(get).await.expect("it exists").into_inner().value, "value");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nodes_claimed_address_must_be_observed_unless_the_setting_allows_any() {
    for (rule, is_allowed) in [("observed", false), ("any", true)] {
        let mut ring = RingCluster::new().with_env(&[("SHOAL__ADVERTISED_ADDRESSES", rule)]);
        ring.add();
        ring.settled(SOON).await;
        let (mut node, id) = (ring.client(0), ring.id(0).await);
        for (address, is_accepted) in [
            ("0.0.0.0:7071", true),
            ("127.0.0.9:7071", true),
            ("192.0.2.1:7071", is_allowed),
            ("node.example:7071", is_allowed),
            ("224.0.0.1:7071", false),
        ] {
            // It claims to be in no ring yet, so no node will call it.
            let state = Some(NodeState { node: Some(stranger(address)), ..NodeState::default() });
            let notify = addressed(&id, NotifyRequest { state: state.clone() });
            let probe = addressed(&id, ProbeRequest { state });
            let notified = node.notify(notify).await.map(drop);
            let probed = node.probe(probe).await.map(drop);
            for answer in [notified, probed] {
                assert_eq!(
                    answer.is_ok(),
                    is_accepted,
                    "{address}, {rule} addresses allowed: {answer:?}"
                );
            }
        }
    }
}
