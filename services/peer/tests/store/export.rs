use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

use shoal_peer::store::{Exported, Store, StoreError, Stored};
use tempfile::TempDir;

use crate::{
    small_disk::SmallDisk,
    support::{Source, blob_piece, bytes_of, hashed, names, noise, options, snapshot},
};

/// A store with one complete content.
fn complete(source: &Source) -> (TempDir, Store, Arc<Stored>) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), None).unwrap();
    let stored = source.add_to(&store);
    source.send_all(&stored);
    (directory, store, stored)
}

fn read(stored: &Stored) -> Result<(), StoreError> {
    bytes_of(stored, stored.layout().whole(blob_piece(0))).map(drop)
}

#[test]
fn files_and_trees_are_exported_whole() {
    for source in [Source::file(200_000, 65_536), Source::tree(&[200_000, 0, 7], 65_536)] {
        let (_directory, store, stored) = complete(&source);
        let target = tempfile::tempdir().unwrap();
        let destination = target.path().join("copy");
        let how = store.export(&stored, &destination).unwrap();
        assert!(how == Exported::Reflink || how == Exported::HardLink, "{how:?}");
        assert_eq!(snapshot(&destination), snapshot(&source.path));
        assert_eq!(names(target.path()), ["copy"]);
        assert_eq!(store.export(&stored, &destination).unwrap(), Exported::Unchanged);
        read(&stored).unwrap();
    }
}

#[test]
fn an_export_to_another_file_system_is_a_copy() {
    let Some(disk) = SmallDisk::anywhere(1 << 20) else { return };
    let source = Source::tree(&[200_000, 0, 7], 65_536);
    let (_directory, store, stored) = complete(&source);
    let destination = disk.path().join("copy");
    assert_eq!(store.export(&stored, &destination).unwrap(), Exported::Copy);
    assert_eq!(snapshot(&destination), snapshot(&source.path));
}

#[test]
fn an_export_that_fails_leaves_nothing_behind() {
    let Some(disk) = SmallDisk::anywhere(100 << 10) else { return };
    let deep = Source::made(&options(65_536), |path| {
        fs::create_dir_all(path.join("d/".repeat(1_000))).unwrap();
        fs::write(path.join("too-long"), noise(200_000, 1)).unwrap();
    });
    for source in [Source::tree(&[50_000, 200_000], 65_536), deep] {
        let (_directory, store, stored) = complete(&source);
        let error = store.export(&stored, &disk.path().join("copy")).err().unwrap();
        assert!(matches!(error, StoreError::DiskFull { .. }), "{error}");
        assert!(names(disk.path()).is_empty());
    }
}

#[test]
fn an_export_does_not_overwrite_its_destination() {
    let source = Source::file(100_000, 65_536);
    let (_directory, store, stored) = complete(&source);
    let target = tempfile::tempdir().unwrap();
    let destination = target.path().join("copy");
    fs::write(&destination, b"mine").unwrap();
    assert!(matches!(store.export(&stored, &destination), Err(StoreError::Exists(_))));
    assert_eq!(fs::read(&destination).unwrap(), b"mine");
    fs::remove_file(&destination).unwrap();
    fs::create_dir(&destination).unwrap();
    assert!(matches!(store.export(&stored, &destination), Err(StoreError::Exists(_))));
}

#[test]
fn an_incomplete_content_is_not_exported() {
    let source = Source::file(100_000, 65_536);
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), None).unwrap();
    let exported = store.export(&source.add_to(&store), &directory.path().join("copy"));
    assert!(matches!(exported, Err(StoreError::Incomplete(_))));
}

#[test]
fn an_edit_of_an_exported_file_never_makes_the_peer_serve_wrong_bytes() {
    let source = Source::file(100_000, 65_536);
    let (directory, store, stored) = complete(&source);
    let target = tempfile::tempdir().unwrap();
    let destination = target.path().join("copy");
    let how = store.export(&stored, &destination).unwrap();
    File::options().write(true).open(&destination).unwrap().write_all_at(b"edited", 9).unwrap();

    let expect = |outcome: Result<(), StoreError>| match how {
        Exported::HardLink => assert!(matches!(outcome, Err(StoreError::SourceChanged(_)))),
        _ => outcome.unwrap(),
    };
    expect(read(&stored));
    expect(store.export(&stored, &target.path().join("second")).map(drop));
    let id = stored.id();
    drop((store, stored));
    let store = Store::open(directory.path(), None).unwrap();
    expect(store.load(id).map(drop));
}

#[test]
fn an_export_of_a_content_in_place_shares_no_file_with_it() {
    let source = Source::file(100_000, 65_536);
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), None).unwrap();
    let stored = store.add_in_place(hashed(&source.path, 65_536)).unwrap();
    let destination = directory.path().join("copy");
    let how = store.export(&stored, &destination).unwrap();
    assert!(how == Exported::Reflink || how == Exported::Copy, "{how:?}");
    File::options().write(true).open(&destination).unwrap().set_len(0).unwrap();
    assert_eq!(length(&source.path), 100_000);
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}
