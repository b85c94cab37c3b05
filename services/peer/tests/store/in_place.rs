use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use shoal_peer::store::{Store, StoreError, Stored};

use crate::support::{Source, blob_piece, bytes_of, hashed, noise};

const LENGTH: usize = 200_000;

/// A change that another process makes to a seeded file.
type Change = fn(&Path) -> io::Result<()>;

const CHANGES: [(&str, Change); 3] = [
    ("rewritten", |path| File::options().write(true).open(path)?.write_all_at(b"new", 70_000)),
    ("truncated", |path| File::options().write(true).open(path)?.set_len(10)),
    ("extended", |path| File::options().write(true).open(path)?.set_len(1 << 20)),
];

fn read(stored: &Stored, piece: u32) -> Result<(), StoreError> {
    bytes_of(stored, stored.layout().whole(blob_piece(piece))).map(drop)
}

#[test]
fn a_file_that_changes_while_it_is_seeded_is_refused() {
    for (what, change) in CHANGES {
        let source = Source::file(LENGTH, 65_536);
        read(&source.stored, 0).unwrap();
        change(&source.path).unwrap();
        for piece in 0..4 {
            let outcome = read(&source.stored, piece);
            assert!(matches!(outcome, Err(StoreError::SourceChanged(_))), "{what}");
        }
    }
}

#[test]
fn a_replaced_file_is_never_mixed_with_the_old_one() {
    let source = Source::file(LENGTH, 65_536);
    let before = source.bytes(source.stored.layout().whole(blob_piece(0)));
    let other = source.path.with_extension("new");
    fs::write(&other, noise(LENGTH, 2)).unwrap();
    fs::rename(&other, &source.path).unwrap();
    // The store's open file is still the old one.
    assert_eq!(source.bytes(source.stored.layout().whole(blob_piece(0))), before);
}

#[test]
fn a_content_in_place_is_served_after_a_restart_if_unchanged() {
    let directory = tempfile::tempdir().unwrap();
    let source = Source::tree(&[LENGTH, 5], 65_536);
    let id = {
        let store = Store::open(directory.path(), Some(10)).unwrap();
        store.add_in_place(hashed(&source.path, 65_536)).unwrap().id()
    };
    {
        let store = Store::open(directory.path(), Some(10)).unwrap();
        let stored = store.load(id).unwrap();
        read(&stored, 3).unwrap();
        assert_eq!(stored.path(), source.path);
        assert!(stored.is_in_place());
    }
    fs::write(source.path.join("part-1/1.bin"), b"12345").unwrap();
    let store = Store::open(directory.path(), Some(10)).unwrap();
    let error = store.load(id).err().unwrap();
    assert!(error.to_string().contains("1.bin"), "{error}");
    // Its removal leaves the files alone.
    store.remove(id).unwrap();
    assert_eq!(fs::read(source.path.join("part-1/1.bin")).unwrap(), b"12345");
}

#[test]
fn publishing_in_place_again_serves_the_new_path() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), None).unwrap();
    let source = Source::file(LENGTH, 65_536);
    let first = store.add_in_place(hashed(&source.path, 65_536)).unwrap();
    let moved = source.path.with_file_name("elsewhere");
    fs::create_dir(&moved).unwrap();
    let moved = moved.join("model.bin");
    fs::rename(&source.path, &moved).unwrap();
    let second = store.add_in_place(hashed(&moved, 65_536)).unwrap();
    assert_eq!(first.id(), second.id());
    assert!(matches!(read(&first, 0), Err(StoreError::Removed(_))));
    read(&second, 0).unwrap();
}

#[test]
fn publishing_in_place_keeps_a_stored_copy_and_does_not_disturb_a_download() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), None).unwrap();
    let source = Source::file(LENGTH, 65_536);
    let download = source.add_to(&store);
    let refused = store.add_in_place(hashed(&source.path, 65_536));
    assert!(matches!(refused, Err(StoreError::Downloading(_))));
    source.send_all(&download);
    let kept = store.add_in_place(hashed(&source.path, 65_536)).unwrap();
    assert!(!kept.is_in_place());
}
