//! Data directories that other versions have written.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use shoal_peer::store::Store;
use tempfile::TempDir;

use crate::support::{Found, Source, held_blob_pieces, noise, options, snapshot};

#[test]
fn a_newer_format_is_refused_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    drop(Store::open(directory.path(), None).unwrap());
    fs::write(directory.path().join("VERSION"), "shoal store 3\n").unwrap();
    let message = Store::open(directory.path(), None).err().unwrap().to_string();
    assert!(message.contains("shoal store 3") && message.contains("VERSION"), "{message}");
}

/// A copy of a data directory that an earlier version has written.
fn copy_of_fixture(name: &str) -> TempDir {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    let directory = tempfile::tempdir().unwrap();
    for (inside, found) in snapshot(&fixture) {
        let path = directory.path().join(inside);
        match found {
            Found::File(bytes) => fs::write(path, bytes).unwrap(),
            Found::Directory => fs::create_dir_all(path).unwrap(),
            Found::Link(_) => panic!("there are no links in it"),
        }
    }
    directory
}

#[test]
fn a_store_of_format_1_is_refused_with_what_to_do_and_left_alone() {
    let directory = copy_of_fixture("store-v1");
    let message = Store::open(directory.path(), None).err().unwrap().to_string();
    for words in
        ["VERSION", "\"shoal store 1\"", "\"shoal store 2\"", "use the shoal that wrote it"]
    {
        assert!(message.contains(words), "{message}");
    }
    let mut left = snapshot(directory.path());
    assert!(left.remove(Path::new("lock")).is_some());
    assert_eq!(left, snapshot(copy_of_fixture("store-v1").path()));
}

/// What the fixture `store-v2` holds: a tree of everything, and a file.
fn fixture_sources() -> [Source; 2] {
    let tree = Source::made(&options(65_536), |path| {
        fs::create_dir_all(path.join("sub/empty")).unwrap();
        let mut long = noise(70_000, 1);
        long.resize(3 * 65_536, 0);
        fs::write(path.join("long"), &long).unwrap();
        fs::write(path.join("equal"), &long).unwrap();
        fs::write(path.join("sub/short"), "short").unwrap();
        fs::write(path.join("sub/other"), "other").unwrap();
        symlink("sub/short", path.join("link")).unwrap();
        // Whatever the umask of this process is: the id depends on it.
        for (inside, found) in snapshot(path) {
            let mode = if matches!(found, Found::Directory) { 0o755 } else { 0o644 };
            fs::set_permissions(path.join(inside), Permissions::from_mode(mode)).unwrap();
        }
    });
    [tree, Source::file(200_000, 65_536)]
}

#[test]
fn a_store_of_format_2_is_readable() {
    let directory = copy_of_fixture("store-v2");
    let store = Store::open(directory.path(), None).unwrap();
    assert_eq!(store.peer_id().to_string(), "3fc29729-1b90-40ac-9f37-a689e80b7048");
    let [tree, file] = fixture_sources();
    let find = |source: &Source| {
        let mut contents = store.contents().into_iter();
        contents.find(|(id, _)| *id == source.stored.id()).expect("it is in the fixture").1
    };
    assert_eq!((find(&tree).name, find(&tree).pinned), (b"model".to_vec(), true));
    assert_eq!((find(&file).name, find(&file).pinned), (b"model.bin".to_vec(), false));
    tree.assert_same(&store.load(tree.stored.id()).unwrap());
    let begun = store.load(file.stored.id()).unwrap();
    assert_eq!(held_blob_pieces(&begun), [1, 2]);
    file.send_all(&begun);
    file.assert_same(&begun);
}
