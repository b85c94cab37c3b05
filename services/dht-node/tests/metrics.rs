//! The store's metrics. A test binary of its own, as the recorder is global to the process.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use metrics_exporter_prometheus::PrometheusBuilder;
use shoal_core::ring::{NodeId, Stamp, Version};
use shoal_dht_node::storage::{DataDir, Record, Store, Txn};
use tokio::task::JoinSet;
use uuid::Uuid;

fn record(name: usize, is_tombstone: bool) -> Record {
    let value = Bytes::from_static(b"x").try_into().unwrap();
    let version = Version { epoch: 1, wall_ms: 1, counter: 0, node: NodeId::new(Uuid::nil()) };
    Record {
        key: Bytes::from(format!("{name}")).try_into().unwrap(),
        stamp: Stamp::of(version),
        value: (!is_tombstone).then_some(value),
        expires_ms: None,
    }
}

#[tokio::test]
async fn writes_share_commits_and_both_are_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let metrics = recorder.handle();
    metrics::set_global_recorder(recorder).unwrap();
    let value_of = |name: &str| -> u64 {
        let text = metrics.render();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        line[name.len()..].trim().parse().unwrap()
    };
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(DataDir::open(directory.path()).unwrap()).unwrap();
    assert_eq!(value_of("shoal_dht_records{state=\"live\"}"), 0);

    store.write(|txn| txn.merge(&record(0, false))).await.unwrap();
    // A job that changes nothing needs no commit.
    store.write(|txn| txn.merge(&record(0, false))).await.unwrap();
    assert_eq!(value_of("shoal_dht_commits_total"), 1);

    let (release, held) = std::sync::mpsc::channel::<()>();
    let mut jobs = JoinSet::new();
    let writer = store.clone();
    jobs.spawn(async move { writer.write(move |_| held.recv().map_or(Ok(()), Ok)).await });
    for name in 1..=30 {
        let writer = store.clone();
        let job = move |txn: &mut Txn<'_>| txn.merge(&record(name, name > 20)).map(drop);
        jobs.spawn(async move { writer.write(job).await });
    }
    // The runtime's only thread runs up to 61 tasks before it returns to this one: all jobs are
    // queued.
    tokio::task::yield_now().await;
    release.send(()).unwrap();
    assert!(jobs.join_all().await.iter().all(Result::is_ok));
    assert_eq!(value_of("shoal_dht_commits_total"), 2);
    assert_eq!(value_of("shoal_dht_records_written_total"), 31);
    assert_eq!(value_of("shoal_dht_records{state=\"live\"}"), 21);
    assert_eq!(value_of("shoal_dht_records{state=\"tombstone\"}"), 10);
}
