use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Barrier},
    thread,
};

use shoal_common::durable_files::DirectoryError;
use shoal_core::{
    content::ContentId,
    swarm::{LinkKey, Priority},
};
use shoal_peer::{
    Options,
    store::{Need, Store, StoreError},
};
use tempfile::TempDir;

use crate::support::{Source, blob_piece, bytes_of, names};

const LENGTH: usize = 100_000;

/// The bytes on disk of each of [`contents`], with its manifest.
const EACH: u64 = 100_110;

/// A store with room for three contents.
fn small_store() -> (TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), Some(3 * EACH)).unwrap();
    (directory, store)
}

/// Contents of the same size, all different.
fn contents(count: u8) -> Vec<Source> {
    let content = |seed| {
        let source = Source::seeded_file(LENGTH, 65_536, seed);
        assert_eq!(source.descriptor().disk_bytes(), EACH);
        source
    };
    (0..count).map(content).collect()
}

#[test]
fn a_second_store_in_the_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), None).unwrap();
    let error = Store::open(directory.path(), None).err().unwrap();
    assert!(
        matches!(&error, StoreError::Directory(DirectoryError::InUse(path)) if path == directory.path())
    );
    drop(store);
    Store::open(directory.path(), None).unwrap();
}

#[test]
fn the_peer_id_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let first = Store::open(directory.path(), None).unwrap().peer_id();
    assert_eq!(Store::open(directory.path(), None).unwrap().peer_id(), first);
    let other = tempfile::tempdir().unwrap();
    assert_ne!(Store::open(other.path(), None).unwrap().peer_id(), first);
}

#[test]
fn options_and_exports_of_a_content_are_kept_and_removed_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), None).unwrap();
    let id = contents(1)[0].add_to(&store).id();
    assert_eq!(store.options(id).unwrap(), Options::default());
    let levels = [Priority::Skip, Priority::Low, Priority::Normal, Priority::High];
    let path = |(number, level)| (format!("dir/file-{number}"), level);
    let options = Options {
        trackers: vec!["tracker.example:7070".parse().unwrap(), "[::1]:7070".parse().unwrap()],
        ring_nodes: vec!["ring.example:7071".parse().unwrap()],
        sequential: true,
        super_seeding: true,
        priorities: levels.into_iter().enumerate().map(path).collect(),
    };
    store.note_options(id, &options).unwrap();
    for path in ["/one", "/other", "/one"] {
        store.note_export(id, Path::new(path)).unwrap();
    }
    drop(store);
    let store = Store::open(directory.path(), None).unwrap();
    assert_eq!(store.options(id).unwrap(), options);
    assert_eq!(store.exports(id).unwrap(), ["/one", "/other"].map(PathBuf::from));
    store.forget_export(id, Path::new("/one")).unwrap();
    assert_eq!(store.exports(id).unwrap(), [PathBuf::from("/other")]);
    store.remove(id).unwrap();
    assert_eq!(store.options(id).unwrap(), Options::default());
    assert!(store.exports(id).unwrap().is_empty());
    store.note_export(id, Path::new("/one")).unwrap();
    assert!(store.exports(id).unwrap().is_empty(), "the content was removed");
}

#[test]
fn contents_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let source = Source::tree(&[0, 100_000, 5, 70_000], 65_536);
    let store = Store::open(directory.path(), None).unwrap();
    let download = source.add_to(&store);
    assert!(Arc::ptr_eq(&download, &source.add_to(&store)));
    assert!(Arc::ptr_eq(&download, &store.load(download.id()).unwrap()));
    source.send_all(&download);
    store.pin(download.id(), true).unwrap();
    let listed = store.contents();
    drop((store, download));

    let store = Store::open(directory.path(), None).unwrap();
    assert_eq!(store.contents(), listed);
    let (id, entry) = &listed[0];
    assert!(entry.pinned && entry.total_bytes == 170_005 && entry.name == b"model");
    let download = store.load(*id).unwrap();
    source.assert_same(&download);
}

#[test]
fn a_content_that_is_removed_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let source = Source::file(100_000, 65_536);
    let store = Store::open(directory.path(), None).unwrap();
    let download = source.add_to(&store);
    source.send_all(&download);
    store.remove(download.id()).unwrap();
    let read = bytes_of(&download, download.layout().whole(blob_piece(0)));
    assert!(matches!(read, Err(StoreError::Removed(_))));
    let sent = source.send(&download, LinkKey(1), blob_piece(1));
    assert!(matches!(sent, Err(StoreError::Removed(_))));
    assert!(names(&directory.path().join("contents")).is_empty());
    assert!(matches!(store.load(download.id()), Err(StoreError::Unknown(_))));
    assert!(matches!(store.remove(download.id()), Err(StoreError::Unknown(_))));
    let again = source.add_to(&store);
    assert_eq!(again.held_bytes(), 0);
}

#[test]
fn leftovers_of_a_crash_are_deleted() {
    let directory = tempfile::tempdir().unwrap();
    drop(Store::open(directory.path(), None).unwrap());
    fs::create_dir_all(directory.path().join("contents").join("0".repeat(64)).join("blobs"))
        .unwrap();
    fs::create_dir_all(directory.path().join("import/x")).unwrap();
    let _store = Store::open(directory.path(), None).unwrap();
    assert!(names(&directory.path().join("contents")).is_empty());
    assert!(names(&directory.path().join("import")).is_empty());
}

#[test]
fn the_quota_evicts_whole_unpinned_contents_only() {
    let (_directory, store) = small_store();
    let sources = contents(4);
    let downloads: Vec<_> = sources[..3].iter().map(|source| source.add_to(&store)).collect();
    sources[0].send_all(&downloads[0]);
    sources[1].send_all(&downloads[1]);
    store.pin(downloads[1].id(), true).unwrap();

    let refused = store.add(sources[3].metadata());
    let Err(StoreError::QuotaExceeded { missing: EACH, .. }) = refused else {
        panic!("a fourth content fits in room for three");
    };
    // The second is pinned, and the third incomplete.
    assert!(matches!(store.make_room(EACH + 1), Err(StoreError::QuotaExceeded { missing: 1, .. })));
    assert_eq!(store.contents().len(), 3);
    let (evicted, room) = store.make_room(EACH).unwrap();
    assert_eq!(evicted, [downloads[0].id()]);
    store.add_within(Some(room), sources[3].metadata()).unwrap();
    assert!(store.make_room(0).unwrap().0.is_empty());
}

#[test]
fn the_content_not_used_for_longest_is_evicted_first() {
    let (_directory, store) = small_store();
    let sources = contents(3);
    for source in &sources {
        source.send_all(&source.add_to(&store));
    }
    let [first, second, third] = [0, 1, 2].map(|number: usize| sources[number].stored.id());
    for id in [second, third, first] {
        touch_later_than_all(&store, id);
    }
    assert_eq!(store.make_room(EACH).unwrap().0, [second]);
    assert_eq!(store.make_room(3 * EACH).unwrap().0, [third, first]);
}

#[test]
fn one_of_many_concurrent_reservations_of_the_last_room_succeeds() {
    const ASKING: usize = 4;
    let (_directory, store) = small_store();
    for _ in 0..50 {
        let start = Barrier::new(ASKING);
        let ask = || {
            start.wait();
            store.make_room(2 * EACH)
        };
        let answers: Vec<_> = thread::scope(|scope| {
            let asking: Vec<_> = (0..ASKING).map(|_| scope.spawn(ask)).collect();
            asking.into_iter().map(|asking| asking.join().unwrap()).collect()
        });
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    }
}

#[test]
fn reserved_room_counts_as_used_until_it_is_used_or_released() {
    let (_directory, store) = small_store();
    let sources = contents(4);
    let (_, room) = store.make_room(2 * EACH).unwrap();
    let refused = store.make_room(2 * EACH);
    assert!(matches!(refused, Err(StoreError::QuotaExceeded { missing: EACH, .. })));
    sources[0].add_to(&store);
    let refused = store.add(sources[1].metadata());
    assert!(matches!(refused, Err(StoreError::QuotaExceeded { missing: EACH, .. })));
    drop(room);
    // A content that is stored already needs no room, and releases its reservation.
    let (_, room) = store.make_room(2 * EACH).unwrap();
    store.add_within(Some(room), sources[0].metadata()).unwrap();
    for source in &sources[1..3] {
        source.add_to(&store);
    }
    assert!(matches!(store.make_room(1), Err(StoreError::QuotaExceeded { missing: 1, .. })));
}

#[test]
fn sizes_that_overflow_are_refused() {
    let (_directory, store) = small_store();
    let source = &contents(1)[0];
    source.add_to(&store);
    for bytes in [u64::MAX, u64::MAX - 1, 1 << 63] {
        let refused = store.make_room(bytes);
        let Err(StoreError::QuotaExceeded { needed, missing, .. }) = refused else {
            panic!("{bytes} bytes fit into a small store");
        };
        assert_eq!((needed, missing), (bytes, bytes.saturating_add(EACH) - 3 * EACH));
    }
    // Without a quota, the file system is the limit, unless nothing is going to be written.
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), None).unwrap();
    source.add_to(&store);
    for bytes in [u64::MAX, u64::MAX - 1, 1 << 63] {
        assert!(matches!(store.make_room(bytes), Err(StoreError::NoSpace { .. })));
    }
    let promised = [u64::MAX, u64::MAX, 1]
        .map(|bytes| store.make_room_beside(&BTreeSet::new(), Need { bytes, written: 0 }).unwrap());
    drop(promised);
    drop(store);
    let store = Store::open(directory.path(), Some(EACH)).unwrap();
    assert!(matches!(store.make_room(u64::MAX), Err(StoreError::QuotaExceeded { .. })));
}

/// Touches a content until its last use is later than all others.
fn touch_later_than_all(store: &Store, id: ContentId) {
    let latest = store.contents().iter().map(|(_, entry)| entry.last_used_unix_ms).max();
    let last_use = || {
        store.touch(id).unwrap();
        let contents = store.contents();
        contents.iter().find(|(found, _)| *found == id).map(|(_, entry)| entry.last_used_unix_ms)
    };
    while last_use() <= latest {}
}
