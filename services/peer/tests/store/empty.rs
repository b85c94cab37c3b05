//! Contents without pieces: an empty file, a tree of empty files, a tree without files.

use std::fs;

use shoal_peer::store::{Exported, Import, ImportPlan, OneShot, Store};

use crate::support::{Source, snapshot};

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
            assert!(download.is_complete());
            download.checkpoint().unwrap();
            assert_eq!(snapshot(&download.path()), snapshot(&source.path));
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
        let (manifest, hashes) = (source.stored.manifest().clone(), source.stored.hashes().clone());
        let download = OneShot::begin(&destination, manifest, hashes).unwrap();
        download.finish().unwrap();
        assert_eq!(snapshot(&destination), snapshot(&source.path));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}

#[test]
fn empty_contents_are_imported() {
    let directory = tempfile::tempdir().unwrap();
    let store = std::sync::Arc::new(Store::open(directory.path(), Some(0)).unwrap());
    for source in sources() {
        let manifest = source.stored.manifest();
        let plan = ImportPlan {
            name: manifest.name().to_owned(),
            is_directory: manifest.is_directory(),
            total_bytes: 0,
            piece_length: None,
        };
        let mut import = Import::start(&store, plan).unwrap();
        for file in manifest.files() {
            import.file(file.path.clone(), 0, false).unwrap();
        }
        for directory in manifest.empty_directories() {
            import.empty_directory(directory.clone()).unwrap();
        }
        let stored = import.finish().unwrap();
        assert_eq!(stored.id(), source.stored.id());
        assert_eq!(snapshot(&stored.path()), snapshot(&source.path));
    }
}
