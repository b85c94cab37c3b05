//! Attacks on paths: symbolic links and other users' files, also alternating with the real ones.

use std::{
    fs::{self, File, FileTimes, Permissions},
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use shoal_core::content::ContentId;
use shoal_peer::store::{
    Exported, HashOptions, Hashed, OneShot, RootedPath, Store, StoreError, Stored, hash, hash_at,
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::support::{
    Source, blob_piece, bytes_of, finish, hashed, mode, names, noise, snapshot, state_name, umask,
};

const LENGTH: usize = 100_000;

fn read(stored: &Stored) -> Result<(), StoreError> {
    bytes_of(stored, stored.layout().whole(blob_piece(0))).map(drop)
}

fn beneath(root: &Path, path: &Path) -> RootedPath {
    RootedPath::beneath(&[root.to_owned()], path).expect("it is below the root")
}

fn hash_beneath(root: &Path, path: &Path) -> Result<Hashed, StoreError> {
    hash_at(&CancellationToken::new(), &beneath(root, path), &HashOptions::default(), |_| {})
}

/// Another user's file, with the size and time of `model`.
fn secret_like(model: &Path) -> PathBuf {
    let secret = model.with_file_name("secret");
    fs::write(&secret, noise(LENGTH, 77)).unwrap();
    make_alike(&secret, model);
    secret
}

/// Gives a file the modification time of `model`.
fn make_alike(path: &Path, model: &Path) {
    let modified = fs::metadata(model).unwrap().modified().unwrap();
    let file = File::options().write(true).open(path).unwrap();
    file.set_times(FileTimes::new().set_modified(modified)).unwrap();
}

/// Does `work` while `path` alternates between a directory and a link to `outside`.
fn while_it_alternates<T>(path: &Path, outside: &Path, work: impl FnOnce() -> T) -> T {
    let spare = path.with_file_name("spare");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                fs::rename(path, &spare).unwrap();
                symlink(outside, path).unwrap();
                fs::remove_file(path).unwrap();
                fs::rename(&spare, path).unwrap();
            }
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    })
}

#[test]
fn a_link_to_a_file_of_the_same_size_and_time_is_not_served() {
    let source = Source::file(LENGTH, 65_536);
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), None).unwrap();
    let stored = store.add_in_place(hashed(&source.path, 65_536)).unwrap();
    let secret = secret_like(&source.path);
    fs::remove_file(&source.path).unwrap();
    symlink(&secret, &source.path).unwrap();
    assert!(matches!(read(&stored), Err(StoreError::SourceChanged(_))));
    let copy = directory.path().join("copy");
    assert!(matches!(store.export(&stored, &copy), Err(StoreError::SourceChanged(_))));
    // A process that has not opened the file before refuses it too.
    let id = stored.id();
    drop((store, stored));
    let store = Store::open(directory.path(), None).unwrap();
    assert!(matches!(store.load(id), Err(StoreError::SourceChanged(_))));
}

#[test]
fn a_file_moved_to_another_disk_is_hashed_again_and_served() {
    let source = Source::tree(&[LENGTH, 0, 7], 65_536);
    let directory = tempfile::tempdir().unwrap();
    let id = {
        let store = Store::open(directory.path(), None).unwrap();
        store.add_in_place(hashed(&source.path, 65_536)).unwrap().id()
    };
    for file in ["part-0/0.bin", "part-1/1.bin", "part-2/2.bin"] {
        let path = source.path.join(file);
        let copy = path.with_extension("copy");
        fs::copy(&path, &copy).unwrap();
        make_alike(&copy, &path);
        fs::rename(&copy, &path).unwrap();
    }
    for _ in 0..2 {
        let store = Store::open(directory.path(), None).unwrap();
        read(&store.load(id).unwrap()).unwrap();
    }
}

#[test]
fn a_path_that_leads_out_of_its_root_is_neither_hashed_nor_written() {
    let here = tempfile::tempdir().unwrap();
    let (root, outside) = (here.path().join("root"), here.path().join("outside"));
    fs::create_dir_all(root.join("tree/inner")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    fs::write(root.join("tree/inner/file"), "public").unwrap();
    symlink("inner/file", root.join("tree/link")).unwrap();
    let whole = hash_beneath(&root, &root.join("tree")).unwrap();
    assert_eq!(
        whole.manifest.id(),
        hash(&root.join("tree"), &HashOptions::default(), |_| {}).unwrap().manifest.id()
    );

    symlink(&outside, root.join("way-out")).unwrap();
    let source = Source::file(LENGTH, 65_536);
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), None).unwrap();
    let stored = store.add_in_place(hashed(&source.path, 65_536)).unwrap();
    let out = root.join("tree/../../outside");
    for path in [root.join("way-out/secret"), out.join("secret"), root.join("way-out")] {
        let refused = hash_beneath(&root, &path).err().unwrap();
        assert!(matches!(refused, StoreError::Outside { .. }), "{refused}");
    }
    for path in [root.join("way-out/copy"), out.join("copy"), root.clone()] {
        let refused = store.export_to(&stored, &beneath(&root, &path)).err().unwrap();
        assert!(matches!(refused, StoreError::Outside { .. }), "{refused}");
    }
    assert_eq!(names(&outside), ["secret"]);
    // Also for a link inside a tree.
    symlink("../../../outside/secret", root.join("tree/inner/up")).unwrap();
    let refused = hash_beneath(&root, &root.join("tree")).err().unwrap();
    assert!(matches!(refused, StoreError::Outside { .. }), "{refused}");
}

#[test]
fn hashing_never_follows_a_directory_that_becomes_a_link() {
    let here = tempfile::tempdir().unwrap();
    let (root, outside) = (here.path().join("root"), here.path().join("outside"));
    fs::create_dir_all(root.join("tree")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(root.join("tree/file"), noise(LENGTH, 1)).unwrap();
    fs::write(outside.join("file"), noise(LENGTH, 77)).unwrap();
    make_alike(&outside.join("file"), &root.join("tree/file"));
    let file = root.join("tree/file");
    let known = hash(&file, &HashOptions::default(), |_| {}).unwrap().manifest.id();
    let id = || hash_beneath(&root, &file).map(|hashed| hashed.manifest.id());
    while_it_alternates(&root.join("tree"), &outside, || {
        let ids = (0..1000).filter_map(|_| id().ok());
        ids.for_each(|id| assert_eq!(id, known));
    });
    assert_eq!(id().unwrap(), known);
}

#[test]
fn an_export_never_follows_a_directory_that_becomes_a_link() {
    let here = tempfile::tempdir().unwrap();
    let (root, outside) = (here.path().join("root"), here.path().join("outside"));
    fs::create_dir_all(root.join("into")).unwrap();
    fs::create_dir(&outside).unwrap();
    let source = Source::tree(&[1000, 0, 7], 65_536);
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), None).unwrap();
    let stored = store.add_in_place(hashed(&source.path, 65_536)).unwrap();
    let exported = while_it_alternates(&root.join("into"), &outside, || {
        let place = |n: i32| beneath(&root, &root.join(format!("into/copy-{n}")));
        (0..300).filter(|n| store.export_to(&stored, &place(*n)).is_ok()).count()
    });
    assert!(names(&outside).is_empty());
    assert_eq!(names(&root.join("into")).len(), exported);
    store.export_to(&stored, &beneath(&root, &root.join("into/last"))).unwrap();
}

#[test]
fn an_export_follows_no_link_at_its_destination() {
    let source = Source::file(LENGTH, 65_536);
    let here = tempfile::tempdir().unwrap();
    let store = Store::open(&here.path().join("store"), None).unwrap();
    let stored = store.add_in_place(hashed(&source.path, 65_536)).unwrap();
    let (link, victim) = (here.path().join("link"), here.path().join("victim"));
    symlink(&victim, &link).unwrap();
    assert!(store.export(&stored, &link).is_err());
    assert!(!victim.exists());
}

#[test]
fn an_export_has_no_setuid_bit() {
    let source = Source::file(LENGTH, 65_536);
    fs::set_permissions(&source.path, Permissions::from_mode(0o4755)).unwrap();
    let here = tempfile::tempdir().unwrap();
    let store = Store::open(&here.path().join("store"), None).unwrap();
    let stored = store.add_in_place(hashed(&source.path, 65_536)).unwrap();
    let copy = here.path().join("copy");
    let how = store.export(&stored, &copy).unwrap();
    assert!(how == Exported::Reflink || how == Exported::Copy, "{how:?}");
    assert_eq!(mode(&copy), 0o755 & !umask());
    assert_eq!(snapshot(&copy).len(), snapshot(&source.path).len());
}

#[test]
fn a_data_directory_is_closed_to_other_users() {
    let here = tempfile::tempdir().unwrap();
    let new = here.path().join("above/new");
    drop(Store::open(&new, None).unwrap());
    assert_eq!(mode(&new), 0o700);
    // A directory of an earlier version.
    fs::set_permissions(&new, Permissions::from_mode(0o755)).unwrap();
    drop(Store::open(&new, None).unwrap());
    assert_eq!(mode(&new), 0o700);
    // A directory with other files keeps its permissions.
    let shared = here.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, Permissions::from_mode(0o755)).unwrap();
    fs::write(shared.join("of-others"), "").unwrap();
    drop(Store::open(&shared, None).unwrap());
    assert_eq!(mode(&shared), 0o755);
}

fn begin(source: &Source, directory: &TempDir) -> Result<OneShot, StoreError> {
    OneShot::begin(&directory.path().join("copy"), source.metadata())
}

#[test]
fn the_state_of_a_download_is_not_kept_in_another_users_directory() {
    let source = Source::file(LENGTH, 65_536);
    let here = tempfile::tempdir().unwrap();
    let victim = here.path().join("victim");
    let trap = here.path().join("trap");
    fs::write(&victim, "precious").unwrap();
    fs::create_dir(&trap).unwrap();
    for name in ["lock", "descriptor.new", "manifest.new", "manifest", "held.new", "blobs"] {
        symlink(&victim, trap.join(name)).unwrap();
    }
    let state = here.path().join(state_name(source.stored.id(), "copy"));
    let expect_refusal = || {
        assert!(matches!(begin(&source, &here), Err(StoreError::NotOurs(_))));
        let resumed = OneShot::resume(&here.path().join("copy"), source.stored.id());
        assert!(matches!(resumed, Err(StoreError::NotOurs(_))));
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
    };
    symlink(&trap, &state).unwrap();
    expect_refusal();
    fs::remove_file(&state).unwrap();
    // Only root can change the owner of a directory.
    if chown(&trap, Some(54_321), None).is_ok() {
        fs::rename(&trap, &state).unwrap();
        expect_refusal();
        fs::remove_dir_all(&state).unwrap();
    }
    let download = begin(&source, &here).unwrap();
    assert_eq!(mode(&state), 0o700);
    source.send_all(download.stored());
    finish(download).unwrap();
}

#[test]
fn what_other_users_put_beside_a_destination_does_not_stop_a_download() {
    let source = Source::file(LENGTH, 65_536);
    let here = tempfile::tempdir().unwrap();
    // As the state of another download to the same destination is named.
    let other =
        |number: u8| here.path().join(state_name(ContentId::from_bytes([number; 32]), "copy"));
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("descriptor"), "a descriptor").unwrap();
    symlink(elsewhere.path(), other(1)).unwrap();
    fs::write(other(2), "a file").unwrap();
    symlink("nowhere", other(3)).unwrap();
    fs::create_dir(other(4)).unwrap();
    // To read from it would take forever.
    let pipe = other(4).join("descriptor");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
    // Only root can change the owner of a directory.
    if chown(other(4), Some(54_321), None).is_err() {
        fs::remove_dir_all(other(4)).unwrap();
    }
    let download = begin(&source, &here).unwrap();
    source.send_all(download.stored());
    finish(download).unwrap();
}
