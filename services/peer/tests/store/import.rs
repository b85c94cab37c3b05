use std::{fs, path::Path, sync::Arc};

use shoal_core::content::PieceLength;
use shoal_peer::store::{Import, ImportPlan, Store, StoreError};
use tempfile::TempDir;

use crate::support::{Source, names, snapshot};

fn store() -> (TempDir, Arc<Store>) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), Some(1_000_000)).unwrap();
    (directory, Arc::new(store))
}

fn plan(name: &str, is_directory: bool, total_bytes: u64) -> ImportPlan {
    let piece_length = Some(PieceLength::MIN);
    ImportPlan { name: name.to_owned(), is_directory, total_bytes, piece_length }
}

fn assert_nothing_is_left(directory: &Path) {
    assert!(names(&directory.join("import")).is_empty());
    assert!(names(&directory.join("contents")).is_empty());
}

#[test]
fn an_imported_tree_has_the_same_id_and_files() {
    let (directory, store) = store();
    let source = Source::tree(&[0, 65_536, 65_537, 3, 300_000], 65_536);
    let manifest = source.stored.manifest();
    let total = manifest.layout().total_bytes();
    let mut import = Import::start(&store, plan("model", true, total)).unwrap();
    for path in manifest.empty_directories() {
        import.empty_directory(path.clone()).unwrap();
    }
    // In reverse order of the manifest.
    for file in manifest.files().iter().rev() {
        import.file(file.path.clone(), file.size, file.executable).unwrap();
        for chunk in fs::read(source.path.join(&file.path)).unwrap().chunks(50_000) {
            import.chunk(chunk).unwrap();
        }
    }
    let stored = import.finish().unwrap();
    assert_eq!(stored.id(), source.stored.id());
    assert_eq!(stored.hashes(), source.stored.hashes());
    assert_eq!(snapshot(&stored.path()), snapshot(&source.path));
    assert!(stored.is_complete());
    assert!(names(&directory.path().join("import")).is_empty());
    // The reserved room is used once, not twice.
    let (evicted, _) = store.make_room(1_000_000 - total).unwrap();
    assert!(evicted.is_empty());
    assert_eq!(store.contents().len(), 1);
}

#[test]
fn a_file_is_imported_twice_and_stored_once() {
    let (_directory, store) = store();
    let source = Source::file(100_000, 65_536);
    let import = || {
        let mut import = Import::start(&store, plan("model.bin", false, 100_000)).unwrap();
        import.file("model.bin".to_owned(), 100_000, false).unwrap();
        import.chunk(&fs::read(&source.path).unwrap()).unwrap();
        import.finish().unwrap()
    };
    let first = import();
    assert_eq!(first.id(), source.stored.id());
    assert!(Arc::ptr_eq(&first, &import()));
}

#[test]
fn an_empty_directory_can_be_imported() {
    let (_directory, store) = store();
    let stored = Import::start(&store, plan("nothing", true, 0)).unwrap().finish().unwrap();
    assert!(stored.is_complete());
    assert!(stored.path().is_dir());
}

#[test]
fn an_aborted_import_leaves_nothing_behind() {
    let (directory, store) = store();
    let mut import = Import::start(&store, plan("model", true, 900_000)).unwrap();
    import.file("a/b".to_owned(), 100_000, false).unwrap();
    import.chunk(&[0; 10_000]).unwrap();
    let second = Import::start(&store, plan("model", true, 100_001));
    assert!(matches!(second, Err(StoreError::QuotaExceeded { missing: 1, .. })));
    drop(import);
    assert_nothing_is_left(directory.path());
    Import::start(&store, plan("model", true, 1_000_000)).unwrap();
}

#[test]
fn parts_that_do_not_fit_the_plan_are_refused() {
    let (directory, store) = store();
    let start = |is_directory| Import::start(&store, plan("model", is_directory, 10)).unwrap();
    let file = |import: &mut Import, path: &str, size| import.file(path.to_owned(), size, false);
    let refused = |outcome| matches!(outcome, Err(StoreError::Import(_) | StoreError::Manifest(_)));

    assert!(refused(start(true).chunk(b"early")));
    assert!(refused(file(&mut start(true), "a", 11)));
    for path in ["../a", "/etc/passwd", "a//b", ""] {
        assert!(refused(file(&mut start(true), path, 1)), "{path}");
        assert!(refused(start(true).empty_directory(path.to_owned())), "{path}");
    }
    assert!(refused(file(&mut start(false), "other", 1)));
    assert!(refused(start(false).finish().map(drop)));

    let mut import = start(true);
    file(&mut import, "a", 2).unwrap();
    assert!(refused(import.chunk(b"abc")));
    import.chunk(b"a").unwrap();
    assert!(refused(file(&mut import, "b", 2)));
    drop(import);

    let mut import = start(true);
    for _ in 0..2 {
        file(&mut import, "a", 0).unwrap();
    }
    assert!(refused(import.finish().map(drop)));
    assert_nothing_is_left(directory.path());
}
