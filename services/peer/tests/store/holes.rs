//! Pieces of zeros: they are never sent, and take no room on disk.

use std::{
    fs::{self, File},
    iter,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
};

use shoal_core::{
    content::{
        BlobNumber, Entry, Kind, Layout, Manifest, ManifestHashes, Metadata, NewBlob, Part,
        PieceHasher, PieceIndex, PieceLength,
    },
    swarm::{Attempt, LinkKey},
};
use shoal_peer::store::{Exported, OneShot, Store, StoreError, Stored};

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

#[test]
fn a_piece_that_is_only_said_to_be_a_hole_is_refused() {
    let piece_length = PieceLength::MIN;
    let layout = Layout::new(0, piece_length, [3 * PIECE]).unwrap();
    let hash = |number: u32, byte: u8| {
        let span = layout.span(PieceIndex::new(number));
        let mut hasher = PieceHasher::new(&layout, span);
        hasher.update(&vec![byte; span.length as usize]);
        hasher.finish()
    };
    // The second piece has ones.
    let hashes = vec![hash(0, 1), hash(1, 1), hash(2, 0)];
    let blob = NewBlob { size: 3 * PIECE, hashes, holes: iter::once(1..3).collect() };
    let part =
        Part { blob: Some(BlobNumber::new(1)), offset: 0, size: 3 * PIECE, root: blob.root() };
    let file = Entry {
        depth: 0,
        name: b"",
        kind: Kind::File { part, executable: false },
        private: false,
        attributes: None,
    };
    let manifest = Manifest::new(b"false", piece_length, &[blob], [file]).unwrap();
    let hashes = ManifestHashes::of(&manifest);
    let encoded = manifest.encoded().to_vec();
    let here = tempfile::tempdir().unwrap();
    let is_false = |error: StoreError| matches!(error, StoreError::FalseHole(piece) if piece == PieceIndex::new(2));

    let in_pieces = Metadata::Descriptor(manifest.descriptor().clone(), hashes);
    let store = Store::open(&here.path().join("store"), None).unwrap();
    let download = store.add(in_pieces).unwrap();
    let block = download.layout().whole(PieceIndex::new(0));
    download.accept(LinkKey(1), Attempt(1), block, encoded.into()).unwrap();
    assert!(is_false(download.learn_manifest().err().unwrap()));
    assert_eq!(download.held_bytes(), 0);

    let whole = Metadata::Manifest(manifest);
    let refused = OneShot::begin(&here.path().join("copy"), whole).err().unwrap();
    assert!(is_false(refused), "with a manifest of one piece");
}

#[test]
fn holes_are_checked_once() {
    let source = sparse();
    let directory = tempfile::tempdir().unwrap();
    let open = || Store::open(directory.path(), None).unwrap();
    drop(open().add(source.metadata()).unwrap());
    let log = directory.path().join(format!("contents/{}/held.log", source.stored.id()));
    let logged = fs::metadata(&log).unwrap().len();
    assert!(logged >= 8 * HOLES as u64, "all holes are in the log: {logged} bytes");
}
