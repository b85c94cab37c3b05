//! Pieces of zeros: they are never sent, and take no room on disk.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
};

use shoal_core::{
    content::{BlobNumber, PieceIndex},
    swarm::LinkKey,
};
use shoal_peer::store::{Exported, OneShot, Store, Stored};

use crate::{
    small_disk::SmallDisk,
    support::{Source, blob_piece, bytes_of, finish, held_blob_pieces, options, snapshot},
};

const PIECE: u64 = 65_536;
const LENGTH: u64 = 64 << 20;

/// Where the sparse file has a byte: in its first piece, across two pieces, and in its last, which
/// is shorter.
const DATA: [u64; 4] = [5, 100 * PIECE - 1, 100 * PIECE, LENGTH + 9];

/// The pieces with data.
const WITH_DATA: [u32; 4] = [0, 99, 100, 1024];

/// The number of the others.
const HOLES: usize = 1025 - WITH_DATA.len();

/// Bytes that the data may take on disk, with what the file system needs to find it.
const LITTLE: u64 = 1 << 20;

/// A tree with a sparse file of 64 MiB and 10 bytes.
fn sparse() -> Source {
    Source::made(&options(PIECE), |path| {
        let file = File::create(path.join("sparse")).unwrap();
        file.set_len(LENGTH + 10).unwrap();
        for at in DATA {
            file.write_all_at(b"x", at).unwrap();
        }
    })
}

/// Bytes on disk of a file.
fn on_disk(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

fn assert_same_and_sparse(source: &Source, copy: &Path) {
    assert!(snapshot(copy) == snapshot(&source.path));
    let bytes = on_disk(&copy.join("sparse"));
    assert!(bytes < LITTLE, "{bytes} bytes on disk");
}

#[test]
fn the_holes_of_a_file_are_held_from_the_start_and_take_no_room() {
    let source = sparse();
    assert_eq!(source.descriptor().blob_bytes(), LENGTH + 10);
    assert_eq!(source.descriptor().stored_bytes(), 3 * PIECE + 10);
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store"), None).unwrap();
    let download = source.add_to(&store);
    let missing = |stored: &Stored| {
        let held = stored.held();
        let missing = stored.layout().pieces().filter(|piece| !held.has(*piece));
        missing.map(|piece| piece.get() - 1).collect::<Vec<_>>()
    };
    assert_eq!(missing(&download), WITH_DATA);
    assert_eq!(download.held_bytes(), LENGTH - 3 * PIECE);
    let hole = download.layout().whole(blob_piece(1));
    assert_eq!(bytes_of(&download, hole).unwrap(), vec![0; PIECE as usize]);

    // Also after a restart.
    source.send(&download, LinkKey(1), blob_piece(99)).unwrap();
    drop((download, store));
    let store = Store::open(&directory.path().join("store"), None).unwrap();
    let download = store.load(source.stored.id()).unwrap();
    assert_eq!(missing(&download), [0, 100, 1024]);
    source.send_all(&download);
    assert_eq!(download.held_bytes(), LENGTH + 10);
    source.assert_same(&download);
    assert!(on_disk(&download.path().join("blobs/1")) < LITTLE);

    let copy = directory.path().join("copy");
    store.export(&download, &copy).unwrap();
    assert_same_and_sparse(&source, &copy);
}

#[test]
fn a_copy_has_the_holes_of_its_source() {
    let source = sparse();
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store"), None).unwrap();
    let stored = store.add_in_place(crate::support::hashed(&source.path, PIECE)).unwrap();
    let copy = directory.path().join("copy");
    store.export(&stored, &copy).unwrap();
    assert_same_and_sparse(&source, &copy);
    // To another file system.
    let Some(disk) = SmallDisk::anywhere(2 << 20) else { return };
    let copy = disk.path().join("copy");
    assert_eq!(store.export(&stored, &copy).unwrap(), Exported::Copy);
    assert_same_and_sparse(&source, &copy);
}

#[test]
fn a_download_to_a_destination_keeps_holes() {
    let source = sparse();
    let directory = tempfile::tempdir().unwrap();
    for (name, metadata) in [("whole", source.metadata()), ("in-pieces", source.descriptor_only())]
    {
        let destination = directory.path().join(name);
        let download = OneShot::begin(&destination, metadata).unwrap();
        let stored = download.stored();
        if stored.manifest().is_none() {
            source.send(stored, LinkKey(1), PieceIndex::new(0)).unwrap();
            let holes = stored.learn_manifest().unwrap();
            assert_eq!(holes.len(), HOLES);
        }
        assert_eq!(stored.held_bytes(), LENGTH - 3 * PIECE);
        source.send_all(stored);
        source.assert_same(&finish(download).unwrap());
        assert_same_and_sparse(&source, &destination);
    }
}

#[test]
fn zeros_that_were_written_are_holes_as_well() {
    let sizes = [3 * PIECE + 7, 2 * PIECE, 100, 200];
    let zeros = |name: &Path, size: u64| fs::write(name, vec![0; size as usize]).unwrap();
    let source = Source::made(&options(PIECE), |path| {
        for (number, size) in sizes.into_iter().enumerate() {
            zeros(&path.join(number.to_string()), size);
        }
    });
    let pack = BlobNumber::new(3);
    assert_eq!(source.manifest().files_of(pack).len(), 2);
    assert_eq!(source.manifest().holes().count(), 4 + 2 + 1);
    assert_eq!(source.descriptor().stored_bytes(), 0);
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store"), None).unwrap();
    let stored = source.add_to(&store);
    source.assert_same(&stored);
    let copy = directory.path().join("copy");
    store.export(&stored, &copy).unwrap();
    assert_eq!(snapshot(&copy), snapshot(&source.path));
}

#[test]
fn a_lost_file_of_holes_and_data_keeps_its_holes() {
    let source = sparse();
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        let store = Store::open(directory.path(), None).unwrap();
        let stored = store.add(source.metadata()).unwrap();
        (store, stored)
    };
    let (store, stored) = open();
    source.send_all(&stored);
    fs::remove_file(stored.path().join("blobs/1")).unwrap();
    drop((store, stored));
    for _ in 0..2 {
        let (_store, stored) = open();
        assert_eq!(held_blob_pieces(&stored).len(), HOLES);
    }
    let (_store, stored) = open();
    source.send_all(&stored);
    source.assert_same(&stored);
}

#[test]
fn a_complete_content_with_holes_can_be_evicted_before_it_is_opened_again() {
    let source = sparse();
    let directory = tempfile::tempdir().unwrap();
    let open = || Store::open(directory.path(), Some(source.descriptor().disk_bytes())).unwrap();
    let store = open();
    let stored = store.add(source.descriptor_only()).unwrap();
    source.send(&stored, LinkKey(1), PieceIndex::new(0)).unwrap();
    stored.learn_manifest().unwrap();
    assert!(store.make_room(1).is_err(), "it is not complete");
    source.send_all(&stored);
    stored.checkpoint().unwrap();
    drop((store, stored));
    assert_eq!(open().make_room(1).unwrap().0, [source.stored.id()]);
}
