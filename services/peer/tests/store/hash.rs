use std::{
    fs::{self, File},
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use shoal_common::lock::Mutex;
use shoal_core::content::{Escaped, Kind, Manifest};
use shoal_peer::store::{HashOptions, StoreError, hash};

use crate::support::{MIB, Source, noise};

fn hashed(path: &Path) -> Result<Manifest, StoreError> {
    hash(path, &HashOptions::default(), |_| {}).map(|hashed| hashed.manifest)
}

/// The entries below a content, each with its size if it is a file.
fn entries(manifest: &Manifest) -> Vec<(String, &'static str, u64)> {
    let shown = manifest.entries().skip(1).map(|(number, entry)| {
        let (kind, size) = match entry.kind {
            Kind::Directory => ("directory", 0),
            Kind::Link(_) => ("link", 0),
            Kind::File { part, executable: true } => ("program", part.size),
            Kind::File { part, executable: false } => ("file", part.size),
        };
        (Escaped(&manifest.path_of(number)).to_string(), kind, size)
    });
    shown.collect()
}

#[test]
fn the_root_of_a_file_is_what_b3sum_prints() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    for length in [0, 1, 65_536, 65_537, 9 * MIB + 5] {
        let bytes = noise(length, 3);
        fs::write(&path, &bytes).unwrap();
        let manifest = hashed(&path).unwrap();
        let (_, part) = manifest.files().next().unwrap();
        assert_eq!(part.root, *blake3::hash(&bytes).as_bytes());
        assert_eq!(manifest.name(), b"file");
    }
}

#[test]
fn a_manifest_describes_the_tree_and_follows_links_that_lead_out_of_it() {
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

    let manifest = hashed(&root).unwrap();
    let expected = [
        ("link", "file", 6),
        ("sub", "directory", 0),
        ("sub/empty", "directory", 0),
        ("sub/run.sh", "program", 9),
        ("sub-a", "file", 0),
        ("twice", "directory", 0),
        ("twice/empty", "directory", 0),
        ("twice/run.sh", "program", 9),
    ];
    assert_eq!(
        entries(&manifest),
        expected.map(|(path, kind, size)| (path.to_owned(), kind, size))
    );
}

#[test]
fn a_content_gets_the_name_that_is_chosen() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, b"abc").unwrap();
    let named = |name: &[u8]| {
        let options = HashOptions { name: Some(name.to_owned()), ..HashOptions::default() };
        hash(&path, &options, |_| {}).map(|hashed| hashed.manifest)
    };
    let (one, other) = (named(b"file").unwrap(), named(b"other\xff").unwrap());
    assert_eq!(one, hashed(&path).unwrap());
    assert_eq!((other.name(), other.encoded()), (&b"other\xff"[..], one.encoded()));
    assert_ne!(one.id(), other.id());
    for name in [&b""[..], b"a/b", b".."] {
        assert!(matches!(named(name), Err(StoreError::Manifest(_))), "{}", Escaped(name));
    }
}

#[test]
fn a_thousand_small_files_and_a_big_one_have_the_right_roots() {
    let mut lengths: Vec<_> = (0..1000).map(|number| number * 7).collect();
    lengths.push(20 * MIB + 1);
    let source = Source::tree(&lengths, 256 << 10);
    let manifest = source.manifest();
    assert_eq!(manifest.files().count(), 1001);
    for (file, part) in manifest.files() {
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(&manifest.path_of(file)));
        let bytes = fs::read(source.path.join(&path)).unwrap();
        assert_eq!(part.root, *blake3::hash(&bytes).as_bytes(), "{}", path.display());
    }
}

#[test]
fn what_cannot_be_published_is_named_in_the_error() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("tree");
    let sub = root.join("sub");
    fs::create_dir_all(&sub).unwrap();
    symlink(&root, sub.join("up")).unwrap();
    let refused = hashed(&root).unwrap_err();
    assert!(matches!(refused, StoreError::LinkCycle(path) if path == sub.join("up")));
    fs::remove_file(sub.join("up")).unwrap();

    let sockets = ["socket", "other"].map(|name| sub.join(name));
    let _listening = sockets.each_ref().map(|path| UnixListener::bind(path).unwrap());
    let refused = hashed(&root).unwrap_err();
    assert!(matches!(refused, StoreError::NotFiles(_)), "{refused}");
    for path in &sockets {
        assert!(refused.to_string().contains(path.to_str().unwrap()), "{refused}");
    }
    assert!(matches!(hashed("/".as_ref()), Err(StoreError::Unnamed(_))));
}

#[test]
fn a_source_that_changes_while_it_is_hashed_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    for (change, length) in [("truncated", 0), ("extended", 64 * MIB as u64)] {
        fs::write(&path, noise(16 * MIB, 0)).unwrap();
        let is_changed = AtomicBool::new(false);
        let outcome = hash(&path, &HashOptions::default(), |_| {
            if !is_changed.swap(true, Ordering::Relaxed) {
                File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
            }
        });
        assert!(matches!(outcome, Err(StoreError::SourceChanged(_))), "{change}");
    }
}

#[test]
fn a_short_file_that_changes_before_it_is_packed_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let names = ["a", "b"].map(|name| directory.path().join(name));
    for path in &names {
        fs::write(path, path.as_os_str().as_bytes()).unwrap();
    }
    let calls = AtomicU64::new(0);
    let outcome = hash(directory.path(), &HashOptions::default(), |_| {
        // Both were hashed, and are read again as a pack.
        if calls.fetch_add(1, Ordering::Relaxed) == 1 {
            fs::write(&names[0], "another").unwrap();
        }
    });
    assert!(matches!(outcome, Err(StoreError::SourceChanged(path)) if path == names[0]));
}

#[test]
fn progress_ends_with_all_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, noise(5 * MIB + 1, 0)).unwrap();
    let most = AtomicU64::new(0);
    let calls = Mutex::new(0);
    hash(&path, &HashOptions::default(), |bytes| {
        most.fetch_max(bytes, Ordering::Relaxed);
        *calls.lock() += 1;
    })
    .unwrap();
    assert_eq!(most.into_inner(), 5 * MIB as u64 + 1);
    assert_eq!(calls.into_inner(), 81);
}
