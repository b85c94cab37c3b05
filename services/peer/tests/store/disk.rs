use std::{collections::BTreeSet, fs, io::Write as _, sync::Arc};

use shoal_core::swarm::{LinkKey, Priority};
use shoal_peer::{
    Options,
    store::{Import, Need, OneShot, Store, StoreError},
};

use crate::{
    small_disk::SmallDisk,
    support::{MIB, Source, finish, options, snapshot},
};

#[test]
fn a_full_disk_stops_a_download_until_there_is_room() {
    for piece_length in [256 << 10, 2 << 20] {
        let Some(disk) = SmallDisk::anywhere(20 << 20) else { return };
        let source = Source::file(8 * MIB, piece_length);
        let store = Store::open(&disk.path().join("store"), None).unwrap();
        let add = |store: &Store| store.add(source.metadata()).unwrap();
        let download = add(&store);
        // Another program has taken the room.
        let ballast = disk.path().join("ballast");
        fs::write(&ballast, vec![1; 14 * MIB]).unwrap();
        let error = source
            .stored
            .layout()
            .pieces()
            .find_map(|piece| source.send(&download, LinkKey(1), piece).err())
            .unwrap();
        assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
        assert!(error.to_string().contains("blobs/1"), "{error}");
        let held = download.held();
        assert!(held.held() > 1 && !held.is_full());

        // The same download continues, and so does one that is begun again.
        fs::remove_file(&ballast).unwrap();
        let next = held.piece_count() - 1;
        let next = source.stored.layout().piece(next).unwrap();
        source.send(&download, LinkKey(1), next).unwrap();
        drop((download, store));
        let store = Store::open(&disk.path().join("store"), None).unwrap();
        let download = add(&store);
        assert_eq!(download.held().held(), held.held() + 1);
        source.send_all(&download);
        assert!(download.is_complete());
        let blob = download.path().join("blobs/1");
        assert_eq!(fs::read(blob).unwrap(), fs::read(&source.path).unwrap());
    }
}

/// Two files of 8 MiB.
fn two_files() -> [Source; 2] {
    [1, 2].map(|seed| Source::seeded_file(8 * MIB, 256 << 10, seed))
}

/// Checks a refusal of 8 MiB, and that its message has the figures.
fn assert_no_space(error: &StoreError) {
    let &StoreError::NoSpace { needed, missing, free, .. } = error else { panic!("{error}") };
    assert!((8 << 20..9 << 20).contains(&needed), "{needed}");
    assert!(missing > 0 && missing <= needed, "{missing}");
    for figure in [needed, missing, free] {
        assert!(error.to_string().contains(&figure.to_string()), "{error}");
    }
}

#[test]
fn a_download_that_does_not_fit_is_refused_before_it_begins() {
    let Some(disk) = SmallDisk::anywhere(6 << 20) else { return };
    let source = Source::file(8 * MIB, 256 << 10);
    let store = Store::open(&disk.path().join("store"), None).unwrap();
    for metadata in [source.metadata(), source.descriptor_only()] {
        assert_no_space(&store.add(metadata.clone()).err().unwrap());
        assert_no_space(&store.make_room(metadata.descriptor().disk_bytes()).err().unwrap());
        let copy = disk.path().join("copy");
        assert_no_space(&OneShot::begin(&copy, metadata).err().unwrap());
    }
    let left: Vec<_> = fs::read_dir(disk.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["store"], "nothing is left of what was refused");
    assert!(store.contents().is_empty());
}

#[test]
fn of_two_downloads_that_do_not_fit_together_one_completes_and_one_is_refused() {
    let [first, second] = two_files();
    let Some(disk) = SmallDisk::anywhere(14 << 20) else { return };
    let store = Store::open(&disk.path().join("store"), None).unwrap();
    let download = first.add_to(&store);
    assert_no_space(&store.add(second.metadata()).err().unwrap());
    // What is written is no longer missing, and a resumed download still counts.
    first.send(&download, LinkKey(1), first.stored.layout().piece(5).unwrap()).unwrap();
    assert_no_space(&store.add(second.metadata()).err().unwrap());
    drop((download, store));
    let store = Store::open(&disk.path().join("store"), None).unwrap();
    assert_no_space(&store.add(second.metadata()).err().unwrap());
    let download = first.add_to(&store);
    first.send_all(&download);
    assert!(download.is_complete());
}

#[test]
fn of_two_one_shot_downloads_that_do_not_fit_together_one_completes_and_one_is_refused() {
    let [first, second] = two_files();
    let Some(disk) = SmallDisk::anywhere(14 << 20) else { return };
    let begin = |name, source: &Source| OneShot::begin(&disk.path().join(name), source.metadata());
    let download = begin("first", &first).unwrap();
    assert_no_space(&begin("second", &second).err().unwrap());
    first.send_all(download.stored());
    finish(download).unwrap();
    assert_eq!(fs::read(disk.path().join("first")).unwrap(), fs::read(&first.path).unwrap());
    fs::remove_file(disk.path().join("first")).unwrap();
    begin("second", &second).unwrap();
}

#[test]
fn a_resumed_one_shot_download_needs_room_only_for_what_is_missing() {
    let [source, _] = two_files();
    let Some(disk) = SmallDisk::anywhere(10 << 20) else { return };
    for _ in 0..2 {
        OneShot::begin(&disk.path().join("copy"), source.metadata()).unwrap();
    }
}

#[test]
fn contents_are_evicted_to_leave_space_free() {
    let [first, second] = two_files();
    let Some(disk) = SmallDisk::anywhere(30 << 20) else { return };
    let store = Store::open(&disk.path().join("store"), None).unwrap().leaving_free(16 << 20);
    let stored = first.add_to(&store);
    first.send_all(&stored);
    let bytes = second.descriptor().disk_bytes();
    assert_no_space(&store.add(second.metadata()).err().unwrap());
    store.pin(first.stored.id(), true).unwrap();
    assert_no_space(&store.make_room(bytes).err().unwrap());
    assert_eq!(store.contents().len(), 1);
    store.pin(first.stored.id(), false).unwrap();
    // Its files are open: their space is free nevertheless.
    let mut block = vec![0; 16 << 10];
    let range = stored.layout().range(5, 0, block.len() as u32).unwrap();
    stored.read(range, &mut block).unwrap();
    let (evicted, room) = store.make_room(bytes).unwrap();
    assert_eq!(evicted, [first.stored.id()]);
    assert_no_space(&store.make_room(bytes).err().unwrap());
    second.send_all(&store.add_within(Some(room), second.metadata()).unwrap());
}

#[test]
fn a_content_of_which_files_are_skipped_is_not_refused_for_want_of_space() {
    let [first, second] = two_files();
    let Some(disk) = SmallDisk::anywhere(12 << 20) else { return };
    let store = Store::open(&disk.path().join("store"), None).unwrap();
    let priorities = vec![("part".to_owned(), Priority::Skip)];
    let options = Options { priorities, ..Options::default() };
    let need = Need::of(20 << 20, &options);
    drop(store.make_room_beside(&BTreeSet::new(), need).unwrap());
    let need = Need::of(first.descriptor().disk_bytes(), &options);
    let (_, room) = store.make_room_beside(&BTreeSet::new(), need).unwrap();
    let id = store.add_within(Some(room), first.metadata()).unwrap().id();
    store.note_options(id, &options).unwrap();
    second.add_to(&store);
}

#[test]
fn the_written_bytes_of_an_import_are_counted_once() {
    let [first, second] = two_files();
    let Some(disk) = SmallDisk::anywhere(20 << 20) else { return };
    let store = Arc::new(Store::open(&disk.path().join("store"), None).unwrap());
    let manifest = first.stored.manifest().unwrap().clone();
    let mut import = Import::start(&store, manifest).unwrap();
    import.chunk(&fs::read(&first.path).unwrap()).unwrap();
    second.add_to(&store);
}

/// Sparse files of many pieces, all different: their manifests take room, and their bytes none.
fn sparse_files() -> impl Iterator<Item = Source> {
    let sparse_file = |number: u64| {
        Source::made(&options(65_536), |path| {
            let file = fs::File::create(path.join("file")).unwrap();
            file.set_len(900 * 65_536 + number).unwrap();
        })
    };
    (1..).map(sparse_file)
}

#[test]
fn a_store_with_a_full_disk_works_again_once_there_is_room() {
    for size in [2 << 20, 3 << 20, 4 << 20] {
        let Some(disk) = SmallDisk::anywhere(size) else { return };
        let directory = disk.path().join("store");
        let store = Store::open(&directory, None).unwrap();
        let peer_id = store.peer_id();
        let add = |source: &Source| store.add(source.metadata());
        let mut known = Vec::new();
        let refused = sparse_files().find_map(|source| match add(&source) {
            Ok(stored) => {
                known.push(stored.id());
                None
            }
            Err(error) => Some((source, error)),
        });
        let (next, error) = refused.unwrap();
        let is_full = |error: &StoreError| {
            matches!(error, StoreError::DiskFull { .. } | StoreError::NoSpace { .. })
        };
        assert!(is_full(&error), "{error}");
        for _ in 0..3 {
            let error = add(&next).err().unwrap();
            assert!(is_full(&error), "{error}");
            for id in &known {
                store.options(*id).unwrap();
            }
        }
        disk.resize(40 << 20);
        known.push(add(&next).unwrap().id());
        drop(store);
        let store = Store::open(&directory, None).unwrap();
        let mut found: Vec<_> = store.contents().into_iter().map(|(id, _)| id).collect();
        found.sort_unstable();
        known.sort_unstable();
        assert_eq!((store.peer_id(), found), (peer_id, known));
    }
}

#[test]
fn a_store_that_was_closed_on_a_full_disk_can_be_opened() {
    let Some(disk) = SmallDisk::anywhere(3 << 20) else { return };
    let directory = disk.path().join("store");
    let store = Store::open(&directory, None).unwrap();
    let add = |source: Source| store.add(source.metadata()).is_ok();
    let count = sparse_files().map(add).take_while(|is_added| *is_added).count();
    // Fills the disk to the last byte.
    let mut ballast = fs::File::create(disk.path().join("ballast")).unwrap();
    while ballast.write(&[1; 4096]).is_ok_and(|written| written > 0) {}
    drop(store);
    assert_eq!(Store::open(&directory, None).unwrap().contents().len(), count);
}

#[test]
fn a_new_store_on_a_full_disk_reports_it() {
    let Some(disk) = SmallDisk::anywhere(64 << 10) else { return };
    fs::write(disk.path().join("ballast"), vec![1; 60_000]).unwrap();
    let error = Store::open(&disk.path().join("store"), None).err().unwrap();
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
}

#[test]
fn a_read_only_directory_is_reported() {
    let Some(disk) = SmallDisk::anywhere(20 << 20) else { return };
    let source = Source::tree(&[100_000], 65_536);
    drop(Store::open(disk.path(), None).unwrap());
    disk.make_read_only();
    let before = snapshot(disk.path());
    let error = Store::open(disk.path(), None).err().unwrap();
    assert!(matches!(error, StoreError::Denied { .. }), "{error}");
    assert!(error.to_string().contains("lock"), "{error}");
    let error = OneShot::begin(&disk.path().join("model"), source.metadata()).err().unwrap();
    assert!(matches!(error, StoreError::Denied { .. }), "{error}");
    assert_eq!(snapshot(disk.path()), before);
}
