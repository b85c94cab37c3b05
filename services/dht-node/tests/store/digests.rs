use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use proptest::prelude::*;
use shoal_core::ring::{KeyRange, NodeId, Position, Stamp, Version};
use shoal_dht_node::storage::{Broken, Digest, Key, Record, Store, Txn, split};
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

use crate::support::{digest, everywhere, fresh, key, merge, open, record, version};

/// Few keys and versions, so that writes conflict.
const KEYS: usize = 12;

fn runtime() -> Runtime {
    Builder::new_current_thread().build().unwrap()
}

fn name(number: usize) -> Key {
    key(format!("key {number}"))
}

prop_compose! {
    fn records()(
        number in 0..KEYS,
        wall_ms in 1..5_u64,
        counter in 0..2_u32,
        node in 0..2_u128,
        epoch in 1..3_u64,
        is_tombstone: bool,
        expires_ms in prop::option::of(1..9_u64),
    ) -> Record {
        // A version has one value only.
        let value = format!("{wall_ms} {counter} {node}");
        let is_tombstone = is_tombstone && counter == 0;
        let expires_ms = expires_ms.filter(|_| counter == 1 && node == 1).map(|_| wall_ms + 2);
        let version = Version { epoch: 1, wall_ms, counter, node: NodeId::new(Uuid::from_u128(node)) };
        let plain = record(name(number).as_bytes(), value.as_bytes(), wall_ms);
        let value = plain.value.filter(|_| !is_tombstone);
        Record { key: plain.key, stamp: Stamp { epoch, version }, value, expires_ms }
    }
}

/// Ranges whose ends are anywhere, or at and beside keys.
fn ranges() -> impl Strategy<Value = KeyRange> {
    let beside = (0..KEYS, 0..3_u128).prop_map(|(number, off)| {
        Position::from_u128(name(number).position().to_u128().wrapping_add(off).wrapping_sub(1))
    });
    let ends = || prop_oneof![any::<u128>().prop_map(Position::from_u128), beside.clone()];
    (ends(), ends()).prop_map(|(after, last)| KeyRange { after, last })
}

#[derive(Clone, Debug)]
enum Step {
    Merge(Record),
    Purge(Record),
    Discard(KeyRange, usize),
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => records().prop_map(Step::Merge),
        2 => records().prop_map(Step::Purge),
        1 => (ranges(), 0..4_usize).prop_map(|(range, max)| Step::Discard(range, max)),
    ]
}

/// How a batch ends, and what happens after it.
#[derive(Clone, Copy, Debug)]
enum End {
    Commit,
    Panic,
    Reopen,
}

fn run(txn: &mut Txn<'_>, step: &Step) -> Result<(), Broken> {
    match step {
        Step::Merge(record) => txn.merge(record).map(drop),
        Step::Purge(record) => txn.purge(&record.key, record.stamp.version).map(drop),
        Step::Discard(range, max) => txn.discard(*range, *max).map(drop),
    }
}

/// The expected contents of a store.
#[derive(Clone, Default)]
struct Model(BTreeMap<Position, Record>);

impl Model {
    fn run(&mut self, step: &Step) {
        match step {
            Step::Merge(record) => {
                let position = record.key.position();
                if self.0.get(&position).is_none_or(|known| known.stamp < record.stamp) {
                    self.0.insert(position, record.clone());
                }
            }
            Step::Purge(record) => {
                let position = record.key.position();
                if self
                    .0
                    .get(&position)
                    .is_some_and(|known| known.stamp.version == record.stamp.version)
                {
                    self.0.remove(&position);
                }
            }
            Step::Discard(range, max) => {
                let mut gone: Vec<_> =
                    self.0.keys().copied().filter(|position| range.contains(*position)).collect();
                gone.sort_by_key(|position| range.first().distance_to(*position));
                gone.iter().take(*max).for_each(|position| drop(self.0.remove(position)));
            }
        }
    }

    /// Clockwise.
    fn inside(&self, range: KeyRange) -> Vec<Record> {
        let mut inside: Vec<_> =
            self.0.values().filter(|one| range.contains(one.key.position())).cloned().collect();
        inside.sort_by_key(|one| range.first().distance_to(one.key.position()));
        inside
    }

    /// Sorted by key; the store has its own order.
    fn purgeable(&self, range: KeyRange, before_ms: u64) -> Vec<(Key, Version)> {
        let mut ended: Vec<_> = self
            .0
            .values()
            .filter(|one| range.contains(one.key.position()))
            .filter_map(|one| {
                let wall_ms = one.stamp.version.wall_ms;
                let expires_ms = one.expires_ms.filter(|_| one.value.is_some());
                let ends_ms = if one.value.is_none() { Some(wall_ms) } else { expires_ms };
                Some((ends_ms?.max(wall_ms), one))
            })
            .filter(|(ends_ms, _)| *ends_ms < before_ms)
            .map(|(_, one)| (one.key.clone(), one.stamp.version))
            .collect();
        ended.sort();
        ended
    }

    fn assert_like(&self, store: &Store, ranges: &[KeyRange]) {
        assert_eq!(store.record_count() as usize, self.0.len());
        let footprints: u64 = self.0.values().map(Record::footprint).sum();
        assert_eq!(store.usage().bytes, footprints);
        for range in ranges.iter().chain([&everywhere()]) {
            let inside = self.inside(*range);
            assert_eq!(store.digest(*range).unwrap(), digest(&inside), "{range:?}");
            assert_eq!(paged(store, *range), inside);
            let parts: Vec<_> = split(*range);
            let sums = parts.into_iter().map(|part| store.digest(part).unwrap());
            let whole = sums.fold(Digest::default(), |mut sum, part| {
                sum += part;
                sum
            });
            assert_eq!(whole, digest(&inside));
            for before_ms in [2, 4, 7] {
                let mut purgeable = store.purgeable(*range, before_ms, 100).unwrap();
                purgeable.sort();
                assert_eq!(purgeable, self.purgeable(*range, before_ms));
            }
        }
    }
}

/// All records of a range, by pages of two versions.
fn paged(store: &Store, range: KeyRange) -> Vec<Record> {
    let mut found: Vec<Record> = Vec::new();
    loop {
        let last = found.last().map(|record| &record.key);
        let page = store.stamps(range, last, 2).unwrap();
        if page.is_empty() {
            return found;
        }
        for (key, stamp) in page {
            let record = store.get(&key).unwrap().unwrap();
            assert_eq!(record.stamp, stamp);
            found.push(record);
        }
    }
}

fn ends() -> impl Strategy<Value = End> {
    prop_oneof![4 => Just(End::Commit), 1 => Just(End::Panic), 1 => Just(End::Reopen)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_store_behaves_like_a_map(
        batches in prop::collection::vec((prop::collection::vec(steps(), 1..12), ends()), 1..6),
        ranges in prop::collection::vec(ranges(), 4),
    ) {
        let (directory, mut store) = fresh();
        let mut model = Model::default();
        for (steps, end) in batches {
            if !matches!(end, End::Panic) {
                for step in &steps {
                    model.run(step);
                }
            }
            let job = move |txn: &mut Txn<'_>| {
                steps.iter().try_for_each(|step| run(txn, step))?;
                assert!(!matches!(end, End::Panic), "a bug");
                Ok(())
            };
            let written = runtime().block_on(store.write(job));
            prop_assert_eq!(written.is_ok(), !matches!(end, End::Panic));
            if matches!(end, End::Reopen) {
                drop(store);
                store = open(directory.path()).unwrap();
            }
            model.assert_like(&store, &ranges);
        }
    }

    #[test]
    fn digests_do_not_depend_on_the_order_of_writes(
        (one, other) in prop::collection::vec(records(), 1..40)
            .prop_flat_map(|records| (Just(records.clone()), Just(records).prop_shuffle())),
        range in ranges(),
    ) {
        let stores = [one, other].map(|records| {
            let (directory, store) = fresh();
            let job = move |txn: &mut Txn<'_>| {
                records.iter().try_for_each(|record| txn.merge(record).map(drop))
            };
            runtime().block_on(store.write(job)).unwrap();
            (directory, store)
        });
        let [one, other] = stores.each_ref().map(|(_, store)| store);
        for part in split(range).into_iter().chain([range, everywhere()]) {
            prop_assert_eq!(one.digest(part).unwrap(), other.digest(part).unwrap());
        }
    }
}

#[tokio::test]
async fn two_nodes_find_the_only_key_that_differs() {
    let (_one, one) = fresh();
    let (_other, other) = fresh();
    for store in [&one, &other] {
        let job = |txn: &mut Txn<'_>| {
            (0..3_000)
                .try_for_each(|number| txn.merge(&record(format!("{number}"), b"x", 1)).map(drop))
        };
        store.write(job).await.unwrap();
    }
    merge(&other, record("1234", b"y", 2)).await.unwrap();
    let mut range = KeyRange::whole(Position::from_u128(12_345));
    let mut asked = 0;
    while one.digest(range).unwrap().count > 1 {
        let differs = |part: &KeyRange| one.digest(*part).unwrap() != other.digest(*part).unwrap();
        let mut parts = split(range).into_iter().filter(differs);
        range = parts.next().unwrap();
        assert_eq!(parts.next(), None);
        asked += 1;
    }
    assert_eq!(other.stamps(range, None, 10).unwrap(), [(key("1234"), Stamp::of(version(2)))]);
    assert!(asked <= 4, "{asked} steps for 3,000 keys");
}

#[test]
fn a_digest_is_a_snapshot_during_writes() {
    const BATCHES: u64 = 100;
    let (_directory, store) = fresh();
    let names: Vec<_> = (0..6).map(|number| format!("{number}")).collect();
    let states: Vec<_> = (1..=BATCHES)
        .map(|wall_ms| names.iter().map(|name| record(name, b"x", wall_ms)).collect::<Vec<_>>())
        .collect();
    let allowed: Vec<_> = states.iter().map(digest).collect();
    // Ends within the leaves of two keys, so that a part is summed from the table.
    let cuts: Vec<_> =
        names[..2].iter().map(|name| KeyRange::whole(key(name).position())).collect();
    let write = |records: &[Record]| {
        let records = records.to_vec();
        let job = move |txn: &mut Txn<'_>| {
            records.iter().try_for_each(|record| txn.merge(record).map(drop))
        };
        runtime().block_on(store.write(job)).unwrap();
    };
    write(&states[0]);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for range in cuts.iter().chain([&everywhere()]).copied() {
            let (store, allowed, is_over) = (&store, &allowed, &is_over);
            scope.spawn(move || {
                let mut at = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let sum = store.digest(range).unwrap();
                    let found = allowed[at..].iter().position(|allowed| *allowed == sum);
                    at += found.expect("a snapshot, not older than the last one");
                }
                assert!(at > 0);
            });
        }
        states[1..].iter().for_each(|records| write(records));
        is_over.store(true, Ordering::Relaxed);
    });
}
