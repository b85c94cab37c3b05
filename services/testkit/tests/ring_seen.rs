//! The metrics of a ring, and one trace over the hops of a call.

use std::time::Duration;

use shoal_proto::dht::v1::{GetRequest, LookupRequest, PutRequest, Target, target::Kind};
use shoal_testkit::{
    collector::{Collector, Span},
    ring::RingCluster,
};
use tokio::{
    runtime::Runtime,
    time::{Instant, sleep},
};

const SOON: Duration = Duration::from_secs(10);
const GRACE: Duration = Duration::from_secs(60);

async fn fill(ring: &RingCluster, keys: usize) {
    for key in 0..keys {
        let (key, value) = (format!("key-{key}").into(), "value".into());
        let put = PutRequest { key, value, ..PutRequest::default() };
        ring.client(0).put(put).await.expect("the put succeeds");
    }
}

async fn sum(ring: &RingCluster, name: &str) -> f64 {
    let mut sum = 0.0;
    for number in ring.running() {
        sum += ring.figure(number, name).await;
    }
    sum
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_lookups_keys_reconfigurations_and_repairs() {
    const KEYS: usize = 30;
    let mut ring = RingCluster::of(3).await;
    fill(&ring, KEYS).await;
    for key in 0..KEYS {
        let target = Some(Target { kind: Some(Kind::Key(format!("key-{key}").into())) });
        ring.client(0).lookup(LookupRequest { target }).await.expect("it is found");
    }
    assert!(ring.figure(0, "shoal_dht_lookup_hops_count").await >= KEYS as f64);
    assert!(sum(&ring, "shoal_dht_reconfigurations_total").await >= 3.0);
    assert!(sum(&ring, "shoal_dht_commits_total").await >= KEYS as f64 / 2.0);
    assert!(sum(&ring, "shoal_rpc_served_seconds_count").await > 0.0);

    // A replica that returns gets the records that it missed: every node has every key.
    ring.kill(2);
    ring.settled(SOON).await;
    fill(&ring, KEYS).await;
    ring.start(2);
    ring.one(SOON).await;
    let deadline = Instant::now() + SOON;
    while sum(&ring, "shoal_dht_repaired_records_total").await == 0.0
        || sum(&ring, "shoal_dht_records").await < 3.0 * KEYS as f64
    {
        assert!(Instant::now() < deadline, "no record is repaired");
        sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn a_call_is_one_trace_over_all_nodes_that_it_reaches() {
    const KEYS: usize = 20;
    let collector = Collector::start();
    // Sent every 100 ms, not every 5 s.
    let traced = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
    ];
    Runtime::new().expect("a runtime").block_on(async {
        let mut ring = RingCluster::new().with_env(&traced);
        for _ in 0..3 {
            ring.add();
        }
        ring.settled(SOON).await;
        fill(&ring, KEYS).await;
        for key in 0..KEYS {
            let name = format!("key-{key}");
            let target = Some(Target { kind: Some(Kind::Key(name.clone().into())) });
            ring.client(0).lookup(LookupRequest { target }).await.expect("it is found");
            let get = GetRequest { key: name.into(), direct: false };
            ring.client(0).get(get).await.expect("it exists");
        }
        ring.stop(GRACE).await;
    });

    let spans = collector.spans();
    for (call, next) in [("Lookup", "FindSuccessor"), ("Get", "Get"), ("Put", "Replicate")] {
        let is_of = |span: &Span, call| span.name.ends_with(&format!("Service/{call}"));
        let of_call = || spans.iter().filter(|span| is_of(span, call));
        assert!(of_call().count() >= KEYS, "{call} is not traced");
        let reaches = |first: &Span| {
            let mut of_trace = spans.iter().filter(|span| span.trace == first.trace);
            of_trace.any(|span| is_of(span, next) && span.process != first.process)
        };
        assert!(of_call().any(reaches), "no trace of {call} goes on to {next} at another node");
    }
}
