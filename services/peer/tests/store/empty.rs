//! Contents without pieces beside the manifest's: an empty file, a tree of empty files, a tree
//! without files.

use std::{fs, sync::Arc};

use shoal_peer::store::{Exported, Import, OneShot, Store};

use crate::support::{Source, finish, snapshot};

/// An empty file, a tree of empty files and directories, and a tree of directories alone.
fn sources() -> Vec<Source> {
    vec![Source::file(0, 65_536), Source::tree(&[0, 0, 0], 65_536), Source::tree(&[], 65_536)]
}

#[test]
fn empty_contents_are_complete_at_once_and_after_a_restart() {
    for source in sources() {
        let directory = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let store = Store::open(&directory.path().join("store"), None).unwrap();
            let download = source.add_to(&store);
            source.assert_same(&download);
            download.checkpoint().unwrap();
            let copy = directory.path().join("copy");
            store.export(&download, &copy).unwrap();
            assert_eq!(snapshot(&copy), snapshot(&source.path));
            assert_eq!(store.export(&download, &copy).unwrap(), Exported::Unchanged);
        }
    }
}

#[test]
fn empty_contents_are_downloaded_to_a_destination() {
    for source in sources() {
        let directory = tempfile::tempdir().unwrap();
        let destination = directory.path().join("copy");
        let download = OneShot::begin(&destination, source.metadata()).unwrap();
        finish(download).unwrap();
        assert_eq!(snapshot(&destination), snapshot(&source.path));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}

#[test]
fn empty_contents_are_complete_once_their_manifest_was_fetched() {
    for source in sources() {
        let directory = tempfile::tempdir().unwrap();
        let destination = directory.path().join("copy");
        let download = OneShot::begin(&destination, source.descriptor_only()).unwrap();
        assert!(!download.stored().is_complete());
        source.send_all(download.stored());
        assert_eq!(download.stored().learn_manifest().unwrap(), []);
        finish(download).unwrap();
        assert_eq!(snapshot(&destination), snapshot(&source.path));
    }
}

#[test]
fn empty_contents_are_imported() {
    let directory = tempfile::tempdir().unwrap();
    let room = sources().iter().map(|source| source.descriptor().disk_bytes()).sum();
    let store = Arc::new(Store::open(directory.path(), Some(room)).unwrap());
    for source in sources() {
        let import = Import::start(&store, source.manifest().clone()).unwrap();
        let stored = import.finish().unwrap();
        assert_eq!(stored.id(), source.stored.id());
        source.assert_same(&stored);
    }
}
