//! Names that Linux allows and people rarely use.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::symlink},
    path::Path,
};

use shoal_core::content::Escaped;
use shoal_peer::store::{HashOptions, OneShot, Store, StoreError, hash};

use crate::support::{Source, finish, hashed, options, snapshot};

/// Names that other programs and file systems may refuse.
fn odd_names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = [
        &b"systemd\\x2dcryptsetup.slice"[..],
        b"new\nline",
        b"\xff\xfe",
        b"caf\xe9",
        "caf\u{e9}".as_bytes(),
        "cafe\u{301}".as_bytes(),
        b" ",
        b"...",
        b"-rf",
        b"a:b*?\"<>|",
        b"end.",
        b"UPPER",
        b"upper",
        b".hidden.shoal",
    ]
    .map(<[u8]>::to_vec)
    .to_vec();
    names.push(vec![b'n'; 255]);
    names.push(vec![0xff; 255]);
    names
}

/// Files, directories and links with odd names.
fn make_odd(path: &Path) {
    for (number, name) in odd_names().into_iter().enumerate() {
        let name = OsStr::from_bytes(&name);
        fs::create_dir(path.join(number.to_string())).unwrap();
        fs::write(path.join(number.to_string()).join(name), name.as_bytes()).unwrap();
        fs::create_dir(path.join(name)).unwrap();
        symlink(format!("../{number}"), path.join(name).join(name)).unwrap();
    }
}

#[test]
fn odd_names_arrive_as_they_are() {
    let source = Source::made(&options(65_536), make_odd);
    let here = tempfile::tempdir().unwrap();
    let place = |name: &str| here.path().join(name);
    let store = Store::open(&place("store"), None).unwrap();
    let stored = source.add_to(&store);
    source.send_all(&stored);
    store.export(&stored, &place("exported")).unwrap();
    let download = OneShot::begin(&place("moved"), source.metadata()).unwrap();
    source.send_all(download.stored());
    finish(download).unwrap();
    for copy in ["exported", "moved"] {
        assert!(snapshot(&place(copy)) == snapshot(&source.path), "{copy}");
    }
    // In place, and after a restart.
    let open = || Store::open(&place("other-store"), None).unwrap();
    let id = open().add_in_place(hashed(&source.path, 65_536)).unwrap().id();
    source.assert_same(&open().load(id).unwrap());
}

#[test]
fn a_content_and_its_destination_may_have_odd_names() {
    for name in odd_names() {
        let here = tempfile::tempdir().unwrap();
        let name = OsStr::from_bytes(&name);
        let path = here.path().join("from").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "bytes").unwrap();
        let store = Store::open(&here.path().join("store"), None).unwrap();
        let hashed = hash(&path, &HashOptions::default(), |_| {}).unwrap();
        let stored = store.add_in_place(hashed).unwrap();
        assert_eq!(store.contents()[0].1.name, name.as_bytes());
        assert_eq!(store.contents()[0].1.in_place.as_ref(), Some(&path));
        let metadata = shoal_core::content::Metadata::Manifest(stored.manifest().unwrap().clone());
        for (to, is_export) in [("exported", true), ("moved", false)] {
            let destination = here.path().join(to).join(name);
            fs::create_dir(destination.parent().unwrap()).unwrap();
            if is_export {
                store.note_export(stored.id(), &destination).unwrap();
                assert_eq!(store.exports(stored.id()).unwrap(), std::slice::from_ref(&destination));
                store.export(&stored, &destination).unwrap();
            } else {
                let download = OneShot::begin(&destination, metadata.clone()).unwrap();
                let block = stored.layout().whole(crate::support::blob_piece(0));
                let bytes = crate::support::bytes_of(&stored, block).unwrap();
                let (link, attempt) =
                    (shoal_core::swarm::LinkKey(1), shoal_core::swarm::Attempt(1));
                download.stored().accept(link, attempt, block, bytes.into()).unwrap();
                finish(download).unwrap();
            }
            assert_eq!(fs::read(&destination).unwrap(), b"bytes", "{}", Escaped(name.as_bytes()));
            assert_eq!(fs::read_dir(destination.parent().unwrap()).unwrap().count(), 1);
        }
    }
}

#[test]
fn an_error_shows_an_odd_name_on_one_line() {
    let here = tempfile::tempdir().unwrap();
    let name = OsStr::from_bytes(b"new\nline\xff");
    symlink("/nowhere", here.path().join(name)).unwrap();
    let refused = hash(here.path(), &HashOptions::default(), |_| {}).err().unwrap();
    assert!(matches!(refused, StoreError::Dangling(_)));
    assert!(refused.to_string().contains("new\\nline\\xff"), "{refused}");
}

#[test]
fn a_tree_may_have_a_thousand_levels() {
    let source = Source::made(&options(65_536), |path| {
        let deep = path.join("d/".repeat(1_000));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("file"), "bytes").unwrap();
    });
    let here = tempfile::tempdir().unwrap();
    let place = |name: &str| here.path().join(name);
    let store = Store::open(&place("store"), None).unwrap();
    let stored = source.add_to(&store);
    source.send_all(&stored);
    store.export(&stored, &place("exported")).unwrap();
    let download = OneShot::begin(&place("moved"), source.metadata()).unwrap();
    source.send_all(download.stored());
    finish(download).unwrap();
    for copy in ["exported", "moved"] {
        assert!(snapshot(&place(copy)) == snapshot(&source.path), "{copy}");
    }
}
