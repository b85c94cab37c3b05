use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use shoal_dht_node::storage::{MAX_VALUE_BYTES, Merged, Record, Store, StoreError};
use tokio::runtime::Builder;

use crate::{
    small_disk::SmallDisk,
    support::{digest, everywhere, merge, open, record},
};

fn big(number: usize) -> Record {
    record(format!("{number}"), &vec![number as u8; MAX_VALUE_BYTES], 5)
}

/// Writes until a write fails. Returns the acknowledged records and the error.
async fn fill(store: &Store) -> (Vec<Record>, StoreError) {
    let mut kept = Vec::new();
    loop {
        match merge(store, big(kept.len())).await {
            Ok(merged) => {
                assert_eq!(merged, Merged::Stored);
                kept.push(big(kept.len()));
            }
            Err(error) => return (kept, error),
        }
    }
}

fn assert_holds(store: &Store, kept: &[Record]) {
    assert_eq!(store.record_count() as usize, kept.len());
    assert_eq!(store.digest(everywhere()).unwrap(), digest(kept));
    assert_eq!(store.records(everywhere(), None, usize::MAX).unwrap().len(), kept.len());
    for record in kept {
        assert_eq!(store.get(&record.key).unwrap().as_ref(), Some(record));
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_keeps_reads_until_there_is_room() {
    for size in [1 << 20, 3 << 20, 11 << 20] {
        let Some(disk) = SmallDisk::anywhere(size) else { return };
        let store = open(disk.path()).unwrap();
        let (mut kept, error) = fill(&store).await;
        assert!(matches!(error, StoreError::Full(_)), "{error}");
        assert!(error.to_string().contains("no space is left"), "{error}");
        assert!(kept.len() > 2, "{}", kept.len());
        assert_holds(&store, &kept);

        for _ in 0..3 {
            let refused = merge(&store, big(kept.len())).await.unwrap_err();
            assert!(matches!(refused, StoreError::Full(_)), "{refused}");
        }
        assert_holds(&store, &kept);

        disk.resize(40 << 20);
        kept.push(big(kept.len()));
        assert_eq!(merge(&store, big(kept.len() - 1)).await.unwrap(), Merged::Stored);
        assert_holds(&store, &kept);
        drop(store);
        assert_holds(&open(disk.path()).unwrap(), &kept);
    }
}

#[tokio::test]
async fn a_store_that_was_closed_on_a_full_disk_can_be_opened() {
    let Some(disk) = SmallDisk::anywhere(3 << 20) else { return };
    let store = open(disk.path()).unwrap();
    let (kept, _) = fill(&store).await;
    drop(store);
    assert_holds(&open(disk.path()).unwrap(), &kept);
}

#[test]
fn reads_continue_after_a_write_has_found_the_disk_full() {
    let Some(disk) = SmallDisk::anywhere(6 << 20) else { return };
    let store = open(disk.path()).unwrap();
    let runtime = Builder::new_current_thread().build().unwrap();
    let kept = record("kept", b"x", 5);
    runtime.block_on(merge(&store, kept.clone())).unwrap();
    let (reads, is_reported, is_over) =
        (&AtomicU64::new(0), &AtomicBool::new(false), &AtomicBool::new(false));
    let deadline = Instant::now() + Duration::from_secs(30);
    let goes_on = || !is_over.load(Ordering::SeqCst) && Instant::now() < deadline;
    let read = || {
        let was_reported = is_reported.load(Ordering::SeqCst);
        match store.get(&kept.key) {
            Ok(found) => assert_eq!(found.as_ref(), Some(&kept)),
            Err(StoreError::Reopening(_)) if !was_reported => {}
            Err(error) => panic!("{error}"),
        }
        reads.fetch_add(1, Ordering::SeqCst);
    };
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while goes_on() {
                    read();
                }
            });
        }
        let (_, first) = runtime.block_on(fill(&store));
        is_reported.store(true, Ordering::SeqCst);
        for _ in 0..5 {
            let before = reads.load(Ordering::SeqCst);
            let error = runtime.block_on(merge(&store, big(200))).unwrap_err();
            assert_eq!(error.to_string(), first.to_string());
            while reads.load(Ordering::SeqCst) < before + 20 && goes_on() {
                thread::yield_now();
            }
        }
        is_over.store(true, Ordering::SeqCst);
        assert!(matches!(first, StoreError::Full(_)), "{first}");
    });
    assert!(Instant::now() < deadline, "the reads have stopped");
}

#[test]
fn a_new_directory_on_a_full_disk_reports_it() {
    let Some(disk) = SmallDisk::anywhere(64 << 10) else { return };
    fs::write(disk.path().join("ballast"), vec![1; 60_000]).unwrap();
    let error = open(&disk.path().join("node")).err().unwrap();
    assert!(matches!(error, StoreError::Full(_)), "{error}");
}

#[test]
fn a_read_only_directory_is_reported() {
    let Some(disk) = SmallDisk::anywhere(20 << 20) else { return };
    drop(open(disk.path()).unwrap());
    disk.make_read_only();
    let error = open(disk.path()).err().unwrap();
    assert!(matches!(error, StoreError::Denied { .. }), "{error}");
    assert!(error.to_string().contains("lock"), "{error}");
}
