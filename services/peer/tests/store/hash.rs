use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt, fs::symlink, net::UnixListener},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use shoal_common::lock::Mutex;
use shoal_peer::store::{StoreError, hash};

use crate::support::{MIB, Source, noise};

#[test]
fn the_root_of_a_file_is_what_b3sum_prints() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    for length in [0, 1, 65_536, 65_537, 9 * MIB + 5] {
        let bytes = noise(length, 3);
        fs::write(&path, &bytes).unwrap();
        let hashed = hash(&path, None, |_| {}).unwrap();
        assert_eq!(hashed.manifest.files()[0].root, *blake3::hash(&bytes).as_bytes());
        assert_eq!(hashed.manifest.name(), "file");
    }
}

#[test]
fn a_manifest_describes_the_tree_and_follows_links() {
    let directory = tempfile::tempdir().unwrap();
    let outside = directory.path().join("blob");
    fs::write(&outside, b"linked").unwrap();
    let root = directory.path().join("tree");
    fs::create_dir_all(root.join("sub/empty")).unwrap();
    fs::write(root.join("sub/run.sh"), b"#!/bin/sh").unwrap();
    fs::set_permissions(root.join("sub/run.sh"), PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(root.join("sub-a"), b"").unwrap();
    symlink(&outside, root.join("link")).unwrap();
    symlink(root.join("sub"), root.join("twice")).unwrap();

    let manifest = hash(&root, None, |_| {}).unwrap().manifest;
    let files: Vec<_> =
        manifest.files().iter().map(|file| (&*file.path, file.size, file.executable)).collect();
    assert_eq!(
        files,
        [
            ("link", 6, false),
            ("sub-a", 0, false),
            ("sub/run.sh", 9, true),
            ("twice/run.sh", 9, true)
        ]
    );
    assert_eq!(manifest.empty_directories(), ["sub/empty", "twice/empty"]);
}

#[test]
fn a_thousand_small_files_and_a_big_one_have_the_right_roots() {
    let mut lengths: Vec<_> = (0..1000).map(|number| number * 7).collect();
    lengths.push(20 * MIB + 1);
    let source = Source::tree(&lengths, 256 << 10);
    for file in source.stored.manifest().files() {
        let bytes = fs::read(source.path.join(&file.path)).unwrap();
        assert_eq!(file.root, *blake3::hash(&bytes).as_bytes(), "{}", file.path);
    }
}

#[test]
fn paths_that_cannot_be_published_are_named_in_the_error() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("tree");
    let sub = root.join("sub");
    fs::create_dir_all(&sub).unwrap();
    let refused = |name: &OsStr| {
        let error = hash(&root, None, |_| {}).err().unwrap();
        fs::remove_file(sub.join(name)).unwrap();
        error
    };

    symlink(&root, sub.join("up")).unwrap();
    assert!(
        matches!(refused(OsStr::new("up")), StoreError::LinkCycle(path) if path == sub.join("up"))
    );
    let _listener = UnixListener::bind(sub.join("socket")).unwrap();
    assert!(matches!(refused(OsStr::new("socket")), StoreError::NotAFile(_)));
    let strange = OsStr::from_bytes(b"caf\xe9");
    File::create(sub.join(strange)).unwrap();
    assert!(matches!(refused(strange), StoreError::NotUtf8(_)));
    File::create(sub.join("new\nline")).unwrap();
    assert!(matches!(refused(OsStr::new("new\nline")), StoreError::Manifest(_)));
    symlink("nowhere", sub.join("dangling")).unwrap();
    let message = refused(OsStr::new("dangling")).to_string();
    assert!(message.contains("dangling"), "{message}");
    assert!(matches!(hash("/".as_ref(), None, |_| {}), Err(StoreError::Unnamed(_))));
}

#[test]
fn a_source_that_changes_while_it_is_hashed_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    for (change, length) in [("truncated", 0), ("extended", 64 * MIB as u64)] {
        fs::write(&path, noise(16 * MIB, 0)).unwrap();
        let is_changed = AtomicBool::new(false);
        let outcome = hash(&path, None, |_| {
            if !is_changed.swap(true, Ordering::Relaxed) {
                File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
            }
        });
        assert!(matches!(outcome, Err(StoreError::SourceChanged(_))), "{change}");
    }
}

#[test]
fn progress_ends_with_all_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, noise(5 * MIB + 1, 0)).unwrap();
    let most = AtomicU64::new(0);
    let calls = Mutex::new(0);
    hash(&path, None, |bytes| {
        most.fetch_max(bytes, Ordering::Relaxed);
        *calls.lock() += 1;
    })
    .unwrap();
    assert_eq!(most.into_inner(), 5 * MIB as u64 + 1);
    assert_eq!(calls.into_inner(), 81);
}
