use std::{fs, io::Write as _};

use shoal_core::swarm::LinkKey;
use shoal_peer::store::{OneShot, Store, StoreError};

use crate::{
    small_disk::SmallDisk,
    support::{MIB, Source, finish, options, snapshot},
};

#[test]
fn a_full_disk_stops_a_download_until_there_is_room() {
    for piece_length in [256 << 10, 2 << 20] {
        let Some(disk) = SmallDisk::anywhere(3 << 20) else { return };
        let source = Source::file(8 * MIB, piece_length);
        let begin = || OneShot::begin(&disk.path().join("model.bin"), source.metadata()).unwrap();
        let download = begin();
        let error = source
            .stored
            .layout()
            .pieces()
            .find_map(|piece| source.send(download.stored(), LinkKey(1), piece).err())
            .unwrap();
        assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
        assert!(error.to_string().contains("blobs/1"), "{error}");
        let held = download.stored().held();
        assert!(held.held() > 1 && !held.is_full());

        // The same download continues, and so does one that is begun again.
        disk.resize(20 << 20);
        let next = held.piece_count() - 1;
        let next = source.stored.layout().piece(next).unwrap();
        source.send(download.stored(), LinkKey(1), next).unwrap();
        drop(download);
        let download = begin();
        assert_eq!(download.stored().held().held(), held.held() + 1);
        source.send_all(download.stored());
        finish(download).unwrap();
        assert_eq!(
            fs::read(disk.path().join("model.bin")).unwrap(),
            fs::read(&source.path).unwrap()
        );
    }
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
        assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
        for _ in 0..3 {
            let error = add(&next).err().unwrap();
            assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
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
