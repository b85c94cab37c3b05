use shoal_core::ring::{KeyRange, Position};
use shoal_dht_node::storage::{Key, MAX_VALUE_BYTES, Record, Store, Txn};

use crate::support::{everywhere, fresh, key, merge, record, tombstone, version};

async fn filled(count: usize, length: usize) -> (tempfile::TempDir, Store) {
    let (directory, store) = fresh();
    let job = move |txn: &mut Txn<'_>| {
        (0..count).try_for_each(|name| {
            txn.merge(&record(format!("{name}"), &vec![1; length], 5)).map(drop)
        })
    };
    store.write(job).await.unwrap();
    (directory, store)
}

#[tokio::test]
async fn records_are_read_in_pages_clockwise() {
    let (_directory, store) = filled(100, 1_000).await;
    let after = Position::from_u128(5 << 125);
    let whole = KeyRange::whole(after);
    let mut found: Vec<Record> = Vec::new();
    loop {
        let last = found.last().map(|record| record.key.clone());
        let page = store.records(whole, last.as_ref(), 10_000).unwrap();
        if page.is_empty() {
            break;
        }
        assert_eq!(page.len(), 10.min(100 - found.len()));
        found.extend(page);
    }
    let distance = |record: &Record| after.advanced(1).distance_to(record.key.position());
    assert!(found.is_sorted_by_key(distance));
    assert_eq!(found.len(), 100);
    assert!(found.iter().all(|record| record.value.as_ref().unwrap().as_bytes().len() == 1_000));
}

#[tokio::test]
async fn a_page_holds_at_least_one_record() {
    let (_directory, store) = filled(3, MAX_VALUE_BYTES).await;
    assert_eq!(store.records(everywhere(), None, 0).unwrap().len(), 1);
    assert_eq!(store.records(everywhere(), None, MAX_VALUE_BYTES).unwrap().len(), 1);
    assert_eq!(store.records(everywhere(), None, usize::MAX).unwrap().len(), 3);
    assert_eq!(store.stamps(everywhere(), None, 2).unwrap().len(), 2);
    assert!(store.stamps(everywhere(), None, 0).unwrap().is_empty());
}

#[tokio::test]
async fn a_page_after_a_key_outside_the_range_begins_at_the_start() {
    let (_directory, store) = filled(50, 1).await;
    let all = store.stamps(everywhere(), None, 50).unwrap();
    let half = KeyRange { after: all[9].0.position(), last: all[29].0.position() };
    let inside = store.stamps(half, None, 100).unwrap();
    assert_eq!(inside, all[10..30]);
    for outside in [&all[0].0, &all[9].0, &all[40].0] {
        assert_eq!(store.stamps(half, Some(outside), 100).unwrap(), inside);
    }
    assert_eq!(store.stamps(half, Some(&all[28].0), 100).unwrap(), all[29..30]);
    assert!(store.stamps(half, Some(&all[29].0), 100).unwrap().is_empty());
}

#[tokio::test]
async fn tombstones_and_expired_values_are_purgeable_once_they_are_old() {
    let (_directory, store) = fresh();
    let expiring = |name, wall_ms, expires_ms| Record {
        expires_ms: Some(expires_ms),
        ..record(name, b"x", wall_ms)
    };
    let records = [
        record("stays", b"x", 1),
        tombstone("deleted", 30),
        expiring("expired", 5, 20),
        expiring("late", 40, 10),
        expiring("later", 5, 50),
    ];
    for record in records {
        merge(&store, record).await.unwrap();
    }
    let purgeable = |before_ms, max| -> Vec<Key> {
        let found = store.purgeable(everywhere(), before_ms, max).unwrap();
        found.into_iter().map(|(key, _)| key).collect()
    };
    let clockwise = |names: &[&str]| -> Vec<Key> {
        let mut keys: Vec<_> = names.iter().map(key).collect();
        keys.sort_by_key(Key::position);
        keys
    };
    assert!(purgeable(20, 10).is_empty());
    assert_eq!(purgeable(21, 10), [key("expired")]);
    assert_eq!(purgeable(50, 10), clockwise(&["expired", "deleted", "late"]));
    let all = clockwise(&["expired", "deleted", "late", "later"]);
    assert_eq!(purgeable(u64::MAX, 2), all[..2]);
    let old = store.purgeable(everywhere(), 31, 10).unwrap();
    assert!(old.contains(&(key("deleted"), version(30))) && old.len() == 2);

    // Records that are written again or purged are not listed any more.
    merge(&store, record("expired", b"y", 60)).await.unwrap();
    merge(&store, tombstone("late", 70)).await.unwrap();
    store.write(|txn| txn.purge(&key("deleted"), version(30))).await.unwrap();
    assert_eq!(purgeable(u64::MAX, 10), clockwise(&["later", "late"]));
    store.write(|txn| txn.discard(everywhere(), 10)).await.unwrap();
    assert!(purgeable(u64::MAX, 10).is_empty());
}

#[tokio::test]
async fn purgeable_records_of_a_range_do_not_depend_on_records_outside() {
    let (_directory, alone) = fresh();
    let (_other_directory, beside) = fresh();
    let cut = |name: &str| key(name).position();
    let range = KeyRange { after: cut("from"), last: cut("to") };
    // The oldest tombstones lie outside the range, and must not be listed.
    for number in 0..600_u64 {
        let old = tombstone(format!("{number}"), number + 1);
        let is_inside = range.contains(old.key.position());
        let record = if is_inside { tombstone(format!("{number}"), 1_000 + number) } else { old };
        if is_inside {
            merge(&alone, record.clone()).await.unwrap();
        }
        merge(&beside, record).await.unwrap();
    }
    let inside = alone.record_count() as usize;
    assert!((20..580).contains(&inside), "{inside} of 600 lie in the range");
    for max in [1, 10, inside - 1, inside + 1] {
        let purgeable = beside.purgeable(range, u64::MAX, max).unwrap();
        assert_eq!(purgeable.len(), max.min(inside));
        assert_eq!(purgeable, alone.purgeable(range, u64::MAX, max).unwrap());
    }
    let complement = KeyRange { after: range.last, last: range.after };
    assert_eq!(beside.purgeable(complement, u64::MAX, 1_000).unwrap().len(), 600 - inside);
}
