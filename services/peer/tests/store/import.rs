use std::{path::Path, sync::Arc};

use shoal_core::content::BlobNumber;
use shoal_peer::store::{Import, Store, StoreError};
use tempfile::TempDir;

use crate::support::{Source, bytes_of, names, options, snapshot};

const QUOTA: u64 = 1_000_000;

fn store() -> (TempDir, Arc<Store>) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), Some(QUOTA)).unwrap();
    (directory, Arc::new(store))
}

fn start(store: &Arc<Store>, source: &Source) -> Result<Import, StoreError> {
    Import::start(store, source.manifest().clone())
}

/// The bytes that an import takes: those of the pieces that are neither the manifest's nor holes.
fn bytes_to_import(source: &Source) -> Vec<u8> {
    let (manifest, layout) = (source.manifest(), source.stored.layout());
    let holes: Vec<_> = manifest.holes().collect();
    let blobs = layout.blobs().filter(|blob| *blob != BlobNumber::MANIFEST);
    let pieces = blobs.flat_map(|blob| layout.pieces_of(blob));
    let sent = pieces.filter(|piece| !holes.contains(piece));
    sent.flat_map(|piece| bytes_of(&source.stored, layout.whole(piece)).unwrap()).collect()
}

fn assert_nothing_is_left(directory: &Path) {
    assert!(names(&directory.join("import")).is_empty());
    assert!(names(&directory.join("contents")).is_empty());
}

#[test]
fn an_imported_tree_has_the_same_id_and_files() {
    let (directory, store) = store();
    let source = Source::tree(&[0, 65_536, 65_537, 3, 300_000, 4], 65_536);
    let mut import = start(&store, &source).unwrap();
    for chunk in bytes_to_import(&source).chunks(50_000) {
        import.chunk(chunk).unwrap();
    }
    let stored = import.finish().unwrap();
    assert_eq!(stored.id(), source.stored.id());
    source.assert_same(&stored);
    assert!(names(&directory.path().join("import")).is_empty());
    // The reserved room is used once, not twice.
    let (evicted, room) = store.make_room(QUOTA - source.descriptor().disk_bytes()).unwrap();
    assert!(evicted.is_empty());
    assert_eq!(store.contents().len(), 1);
    drop(room);
    let copy = directory.path().join("copy");
    store.export(&stored, &copy).unwrap();
    assert_eq!(snapshot(&copy), snapshot(&source.path));
}

#[test]
fn an_import_lacks_the_pieces_that_are_holes() {
    let (_directory, store) = store();
    let source = Source::made(&options(65_536), |path| {
        let mut bytes = vec![0; 5 * 65_536 + 9];
        bytes[70_000] = 1;
        bytes[5 * 65_536] = 2;
        std::fs::write(path.join("file"), bytes).unwrap();
    });
    let bytes = bytes_to_import(&source);
    assert_eq!(bytes.len(), 65_536 + 9);
    let mut import = start(&store, &source).unwrap();
    import.chunk(&bytes).unwrap();
    source.assert_same(&import.finish().unwrap());
}

#[test]
fn a_file_is_imported_twice_and_stored_once() {
    let (_directory, store) = store();
    let source = Source::file(100_000, 65_536);
    let import = || {
        let mut import = start(&store, &source).unwrap();
        import.chunk(&bytes_to_import(&source)).unwrap();
        import.finish().unwrap()
    };
    let first = import();
    assert_eq!(first.id(), source.stored.id());
    assert!(Arc::ptr_eq(&first, &import()));
}

#[test]
fn an_empty_directory_can_be_imported() {
    let (_directory, store) = store();
    let source = Source::made(&options(65_536), |_| {});
    let stored = start(&store, &source).unwrap().finish().unwrap();
    assert!(stored.is_complete());
}

#[test]
fn an_aborted_import_leaves_nothing_behind() {
    let (directory, store) = store();
    let first = Source::file(900_000, 65_536);
    let second = Source::seeded_file(200_000, 65_536, 2);
    let mut import = start(&store, &first).unwrap();
    import.chunk(&bytes_to_import(&first)[..100_000]).unwrap();
    let both = first.descriptor().disk_bytes() + second.descriptor().disk_bytes();
    match start(&store, &second) {
        Err(StoreError::QuotaExceeded { missing, .. }) => assert_eq!(missing, both - QUOTA),
        _ => panic!("both fit into the quota"),
    }
    drop(import);
    assert_nothing_is_left(directory.path());
    start(&store, &second).unwrap();
}

#[test]
fn bytes_that_are_not_those_of_the_manifest_are_refused() {
    let (directory, store) = store();
    let source = Source::tree(&[100_000, 5], 65_536);
    let bytes = bytes_to_import(&source);
    let refused = |outcome| matches!(outcome, Err(StoreError::Import(_)));

    let mut import = start(&store, &source).unwrap();
    assert!(refused(import.chunk(&vec![7; bytes.len()])));
    drop(import);

    let mut import = start(&store, &source).unwrap();
    import.chunk(&bytes).unwrap();
    assert!(refused(import.chunk(&[1])));
    drop(import);

    for end in [0, 65_536, bytes.len() - 1] {
        let mut import = start(&store, &source).unwrap();
        import.chunk(&bytes[..end]).unwrap();
        assert!(refused(import.finish().map(drop)), "{end}");
    }
    assert_nothing_is_left(directory.path());
}
