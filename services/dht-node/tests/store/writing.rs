use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::channel,
    },
    thread,
    time::{Duration, Instant},
};

use shoal_common::durable_files::DirectoryError;
use shoal_core::ring::{KeyRange, Position, Stamp};
use shoal_dht_node::storage::{Merged, Record, StoreError, Txn};
use tokio::task::JoinSet;

use crate::support::{
    begun, digest, everywhere, fresh, holding, key, merge, record, tombstone, version,
};

#[tokio::test]
async fn the_last_writer_wins() {
    let (_directory, store) = fresh();
    assert_eq!(merge(&store, record("a", b"1", 5)).await.unwrap(), Merged::Stored);
    assert_eq!(
        merge(&store, record("a", b"0", 4)).await.unwrap(),
        Merged::Older(Stamp::of(version(5)))
    );
    assert_eq!(merge(&store, record("a", b"1", 5)).await.unwrap(), Merged::Same);
    assert_eq!(store.get(&key("a")).unwrap(), Some(record("a", b"1", 5)));
    assert_eq!(merge(&store, tombstone("a", 6)).await.unwrap(), Merged::Stored);
    assert_eq!(
        merge(&store, record("a", b"1", 5)).await.unwrap(),
        Merged::Older(Stamp::of(version(6)))
    );
    assert_eq!(store.get(&key("a")).unwrap(), Some(tombstone("a", 6)));
    assert_eq!(store.get(&key("b")).unwrap(), None);
}

#[tokio::test]
async fn a_key_is_purged_only_at_the_given_version() {
    let (_directory, store) = fresh();
    merge(&store, tombstone("a", 6)).await.unwrap();
    let purge = |wall_ms| store.write(move |txn| txn.purge(&key("a"), version(wall_ms)));
    assert!(!purge(5).await.unwrap());
    assert_eq!(store.record_count(), 1);
    assert!(purge(6).await.unwrap());
    assert!(!purge(6).await.unwrap());
    assert_eq!((store.record_count(), store.get(&key("a")).unwrap()), (0, None));
    assert_eq!(merge(&store, record("a", b"1", 5)).await.unwrap(), Merged::Stored);
}

#[tokio::test]
async fn a_range_is_discarded_in_steps() {
    let (_directory, store) = fresh();
    let records: Vec<_> = (0..100).map(|name| record(format!("{name}"), b"x", 5)).collect();
    let all = records.clone();
    store.write(move |txn| all.iter().try_for_each(|one| txn.merge(one).map(drop))).await.unwrap();
    // The range wraps around zero.
    let range =
        KeyRange { after: Position::from_u128(3 << 126), last: Position::from_u128(1 << 126) };
    let (gone, kept): (Vec<Record>, Vec<Record>) =
        records.into_iter().partition(|record| range.contains(record.key.position()));
    assert!(gone.len() > 21 && kept.len() > 20);
    let mut removed = 0;
    loop {
        let step = store.write(move |txn| txn.discard(range, 20)).await.unwrap();
        removed += step;
        assert_eq!(store.record_count() as usize, 100 - removed);
        if step < 20 {
            break;
        }
    }
    assert_eq!(removed, gone.len());
    assert_eq!(store.digest(everywhere()).unwrap(), digest(&kept));
    assert!(gone.iter().all(|record| store.get(&record.key).unwrap().is_none()));
}

#[tokio::test]
async fn jobs_run_in_order_and_see_earlier_jobs_writes_before_their_commit() {
    let (_directory, store) = fresh();
    let (release, hold) = holding();
    let held = begun(store.write(hold)).await;
    let mut jobs = Vec::new();
    for turn in 1..=20_u64 {
        let reader = store.clone();
        let job = move |txn: &mut Txn<'_>| {
            let before = txn.get(&key("a"))?.map(|record| record.stamp.version.wall_ms);
            let last = txn.meta("turn")?.map(|turn| u64::from(turn[0]));
            txn.merge(&record("a", b"x", turn))?;
            txn.put_meta("turn", &[turn as u8])?;
            Ok((before, last, reader.get(&key("a")).unwrap()))
        };
        jobs.push(begun(store.write(job)).await);
    }
    release.send(()).unwrap();
    held.await.unwrap();
    for (turn, job) in (1..).zip(jobs) {
        let (before, last, seen_by_others) = job.await.unwrap();
        let expected = (turn > 1).then_some(turn - 1);
        assert_eq!((before, last, seen_by_others), (expected, expected, None));
    }
    assert_eq!(store.get(&key("a")).unwrap(), Some(record("a", b"x", 20)));
    assert_eq!(store.meta("turn").unwrap(), Some(vec![20]));
    assert_eq!(store.record_count(), 1);
}

#[tokio::test]
async fn writes_beyond_the_queue_wait_for_room() {
    let (_directory, store) = fresh();
    let (release, hold) = holding();
    let held = begun(store.write(hold)).await;
    let mut writes = JoinSet::new();
    for name in 0..1_500 {
        let store = store.clone();
        let write = async move { merge(&store, record(format!("{name}"), b"x", 1)).await };
        writes.spawn(begun(write).await);
    }
    release.send(()).unwrap();
    held.await.unwrap();
    assert!(writes.join_all().await.into_iter().all(|merged| merged.unwrap() == Merged::Stored));
    assert_eq!(store.record_count(), 1_500);
}

#[tokio::test]
async fn a_batch_with_a_panicking_job_is_aborted_as_a_whole() {
    let (_directory, store) = fresh();
    merge(&store, record("a", b"1", 5)).await.unwrap();
    let before = store.digest(everywhere()).unwrap();
    let (release, hold) = holding();
    let held = begun(store.write(hold)).await;
    let first = begun(merge(&store, record("a", b"2", 6))).await;
    let job = |txn: &mut Txn<'_>| {
        txn.put_meta("clock", b"9")?;
        txn.merge(&record("c", b"3", 7))?;
        assert!(txn.get(&key("c"))?.is_none(), "a bug");
        Ok(Merged::Stored)
    };
    let panicking = begun(store.write(job)).await;
    let last = begun(merge(&store, record("b", b"2", 6))).await;
    release.send(()).unwrap();
    assert!(matches!(held.await, Err(StoreError::Aborted)));
    assert!(matches!(first.await, Err(StoreError::Aborted)));
    assert!(matches!(panicking.await, Err(StoreError::Aborted)));
    // The jobs after the panicking one form the next batch.
    assert_eq!(last.await.unwrap(), Merged::Stored);
    assert_eq!(store.get(&key("a")).unwrap(), Some(record("a", b"1", 5)));
    assert_eq!(store.meta("clock").unwrap(), None);
    let mut expected = digest(&[record("b", b"2", 6)]);
    expected += before;
    assert_eq!(store.digest(everywhere()).unwrap(), expected);
    assert_eq!(merge(&store, record("a", b"2", 6)).await.unwrap(), Merged::Stored);
    let expected = [record("a", b"2", 6), record("b", b"2", 6)];
    assert_eq!(store.digest(everywhere()).unwrap(), digest(&expected));
}

#[tokio::test]
async fn a_write_dropped_before_its_turn_is_not_done() {
    let (_directory, store) = fresh();
    let (release, hold) = holding();
    let held = begun(store.write(hold)).await;
    let has_run = Arc::new(AtomicBool::new(false));
    let ran = Arc::clone(&has_run);
    let impatient = begun(store.write(move |_| Ok(ran.swap(true, Ordering::Relaxed)))).await;
    drop(impatient);
    release.send(()).unwrap();
    held.await.unwrap();
    merge(&store, record("a", b"1", 5)).await.unwrap();
    assert!(!has_run.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_job_may_drop_the_last_handle() {
    let (directory, store) = fresh();
    let (start, started) = channel();
    let (open, gate) = channel();
    let own = store.clone();
    let job = move |txn: &mut Txn<'_>| {
        start.send(()).unwrap();
        gate.recv().unwrap();
        txn.merge(&record("a", b"1", 5))?;
        drop(own);
        Ok(())
    };
    let caller = begun(store.write(job)).await;
    started.recv().unwrap();
    drop(caller);
    drop(store);
    open.send(()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let store = loop {
        match crate::support::open(directory.path()) {
            Err(StoreError::Directory(DirectoryError::InUse(_))) if Instant::now() < deadline => {
                thread::yield_now();
            }
            opened => break opened.unwrap(),
        }
    };
    assert_eq!(store.record_count(), 1);
}

/// An answer that panics when the writer drops it.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(thread::current().name() != Some("store-writer"), "a test wanted it");
    }
}

#[tokio::test]
async fn the_end_of_the_writer_is_noticed() {
    let (_directory, store) = fresh();
    let (tell, running) = channel();
    let (release, held) = channel::<()>();
    let job = begun(store.write(move |_| {
        tell.send(()).unwrap();
        let _ = held.recv();
        Ok(Bomb)
    }))
    .await;
    running.recv().unwrap();
    // No caller waits for the answer any more, so the writer drops it.
    drop(job);
    release.send(()).unwrap();
    store.writer_ended().await;
    let refused = merge(&store, record("a", b"1", 1)).await;
    assert!(matches!(refused, Err(StoreError::Closed)), "{refused:?}");
}
