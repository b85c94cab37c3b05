//! Permissions and times of files: what everybody has, and what `preserve` keeps.

use std::{
    fs::{self, File, FileTimes, Permissions},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::{fs::Uid, process::geteuid, thread::set_thread_res_uid};
use shoal_peer::store::{HashOptions, OneShot, Store, StoreError, find_at};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::{
    small_disk::SmallDisk,
    support::{Source, finish, hashed, mode, names, options, snapshot, umask},
};

const PIECE: u64 = 65_536;

/// A user without special rights.
const USER: u32 = 12_345;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn set_modified(path: &Path, at: SystemTime) {
    File::open(path).unwrap().set_times(FileTimes::new().set_modified(at)).unwrap();
}

/// The copies of a content that a store exports, from its own copy and from the files in place, and
/// a download to a destination.
fn copies(source: &Source, here: &TempDir) -> [PathBuf; 3] {
    let place = |name: &str| here.path().join(name);
    let store = Store::open(&place("store"), None).unwrap();
    let stored = source.add_to(&store);
    source.send_all(&stored);
    store.export(&stored, &place("exported")).unwrap();
    let from_place = Store::open(&place("other-store"), None).unwrap();
    from_place.export(&source.stored, &place("from-place")).unwrap();
    let download = OneShot::begin(&place("moved"), source.metadata()).unwrap();
    source.send_all(download.stored());
    source.assert_same(&finish(download).unwrap());
    ["exported", "from-place", "moved"].map(place)
}

#[test]
fn permissions_arrive_as_far_as_everybody_has_them() {
    /// A name, the permissions before, and after.
    const FILES: [(&str, u32, u32); 8] = [
        ("plain", 0o644, 0o644),
        ("program", 0o755, 0o755),
        ("secret", 0o600, 0o600),
        ("secret-program", 0o700, 0o700),
        ("of-the-group", 0o640, 0o600),
        ("program-of-the-group", 0o750, 0o700),
        ("read-only", 0o444, 0o644),
        ("writable", 0o666, 0o644),
    ];
    let source = Source::made(&options(PIECE), |path| {
        for (number, (name, before, _)) in FILES.iter().enumerate() {
            fs::write(path.join(name), vec![number as u8; 70_000]).unwrap();
            // In a pack, equal to a file with other permissions, and empty.
            fs::write(path.join(format!("short-{name}")), [number as u8]).unwrap();
            fs::write(path.join(format!("equal-{name}")), vec![77; 70_000]).unwrap();
            fs::write(path.join(format!("empty-{name}")), []).unwrap();
            for start in ["", "short-", "equal-", "empty-"] {
                set_mode(&path.join(format!("{start}{name}")), *before);
            }
        }
        for (name, mode) in [("public", 0o755), ("private", 0o700), ("private-group", 0o770)] {
            fs::create_dir(path.join(name)).unwrap();
            set_mode(&path.join(name), mode);
        }
    });
    let here = tempfile::tempdir().unwrap();
    for copy in copies(&source, &here) {
        for (name, _, after) in FILES {
            for start in ["", "short-", "equal-", "empty-"] {
                let path = copy.join(format!("{start}{name}"));
                assert_eq!(mode(&path), after & !umask(), "{}", path.display());
            }
        }
        for (name, after) in [("public", 0o777), ("private", 0o700), ("private-group", 0o700)] {
            assert_eq!(mode(&copy.join(name)), after & !umask(), "{name}");
        }
        // Such a copy is found to be the content.
        find_at(&copy, &source.metadata(), &CancellationToken::new()).unwrap();
    }
}

#[test]
fn the_id_depends_on_permissions_only_as_far_as_everybody_has_them() {
    let here = tempfile::tempdir().unwrap();
    let path = here.path().join("file");
    fs::write(&path, "bytes").unwrap();
    let id = |mode| {
        set_mode(&path, mode);
        hashed(&path, PIECE).manifest.id()
    };
    assert_eq!(id(0o644), id(0o444));
    assert_eq!(id(0o644), id(0o604));
    assert_eq!(id(0o600), id(0o640));
    assert_eq!(id(0o755), id(0o4755));
    let different = [id(0o644), id(0o600), id(0o755), id(0o700)];
    assert!((1..4).all(|n| !different[..n].contains(&different[n])));
    set_modified(&path, UNIX_EPOCH);
    assert_eq!(id(0o700), different[3]);
}

fn preserving() -> HashOptions {
    HashOptions { preserve: true, ..options(PIECE) }
}

#[test]
fn all_permissions_and_times_arrive_if_they_are_preserved() {
    const MODES: [(&str, u32); 6] = [
        ("plain", 0o644),
        ("group", 0o664),
        ("read-only", 0o400),
        ("set-user-id", 0o4755),
        ("nothing", 0o000),
        ("others", 0o007),
    ];
    let time = |number: usize| match number % 3 {
        0 => UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789),
        1 => UNIX_EPOCH - Duration::new(5, 1),
        _ => UNIX_EPOCH + Duration::new(4_000_000_000, 999_999_999),
    };
    let source = Source::made(&preserving(), |path| {
        fs::create_dir(path.join("read-only-directory")).unwrap();
        // Without special rights, its owner must be able to read a file.
        let is_readable = |mode: u32| geteuid().is_root() || mode & 0o400 != 0;
        let modes = MODES.into_iter().filter(|(_, mode)| is_readable(*mode));
        for (number, (name, mode)) in modes.enumerate() {
            fs::write(path.join(format!("long-{name}")), vec![number as u8; 70_000]).unwrap();
            fs::write(path.join(format!("short-{name}")), [number as u8]).unwrap();
            fs::write(path.join(format!("equal-{name}")), vec![77; 70_000]).unwrap();
            fs::write(path.join(format!("read-only-directory/{name}")), []).unwrap();
            for start in ["long-", "short-", "equal-", "read-only-directory/"] {
                let path = path.join(format!("{start}{name}"));
                set_modified(&path, time(number));
                set_mode(&path, mode);
            }
        }
        for (name, mode) in [("read-only-directory", 0o555), ("", 0o1777)] {
            set_modified(&path.join(name), time(mode as usize));
            set_mode(&path.join(name), mode);
        }
    });
    let here = tempfile::tempdir().unwrap();
    for copy in copies(&source, &here) {
        assert_eq!(snapshot(&copy), snapshot(&source.path));
        for inside in snapshot(&copy).keys() {
            let (found, expected) = (copy.join(inside), source.path.join(inside));
            // Not the set-user-ID bit: the copy may have another owner.
            assert_eq!(mode(&found), mode(&expected) & 0o1777, "{}", inside.display());
            let [found, expected] = [found, expected].map(|path| path.symlink_metadata().unwrap());
            let times = [found, expected].map(|found| (found.mtime(), found.mtime_nsec()));
            assert_eq!(times[0], times[1], "{}", inside.display());
        }
        find_at(&copy, &source.metadata(), &CancellationToken::new()).unwrap();
    }
}

/// Works as a user without special rights, in a directory of that user.
fn as_ordinary_user(work: impl FnOnce(&TempDir) + Send) {
    let here = tempfile::tempdir().unwrap();
    let is_root = geteuid().is_root();
    let user = Uid::from_raw(USER);
    if is_root {
        chown(here.path(), Some(USER), None).unwrap();
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            if is_root {
                // Of this thread, and of those that it starts.
                set_thread_res_uid(user, user, user).unwrap();
            }
            work(&here);
        });
    });
}

/// A tree with preserved directories that their owner cannot write to.
fn read_only_tree() -> Source {
    Source::made(&preserving(), |path| {
        fs::create_dir(path.join("sub")).unwrap();
        for name in ["file", "sub/other"] {
            fs::write(path.join(name), vec![name.len() as u8; 70_000]).unwrap();
            set_mode(&path.join(name), 0o444);
        }
        set_mode(&path.join("sub"), 0o555);
        set_mode(path, 0o555);
    })
}

#[test]
fn read_only_directories_can_be_delivered_without_special_rights() {
    let source = read_only_tree();
    as_ordinary_user(|here| {
        for copy in copies(&source, here) {
            assert_eq!(snapshot(&copy), snapshot(&source.path));
            assert_eq!((mode(&copy), mode(&copy.join("sub"))), (0o555, 0o555));
        }
    });
}

#[test]
fn a_download_with_read_only_directories_that_failed_at_its_end_is_finished_later() {
    let source = read_only_tree();
    as_ordinary_user(|here| {
        let destination = here.path().join("copy");
        let download = OneShot::begin(&destination, source.metadata()).unwrap();
        source.send_all(download.stored());
        fs::write(&destination, "mine").unwrap();
        assert!(matches!(finish(download), Err(StoreError::Exists(_))));
        fs::remove_file(&destination).unwrap();
        finish(OneShot::begin(&destination, source.metadata()).unwrap()).unwrap();
        assert_eq!(snapshot(&destination), snapshot(&source.path));
        assert_eq!(names(here.path()), ["copy"]);
    });
}

#[test]
fn an_export_with_read_only_directories_that_fails_leaves_nothing_behind() {
    let Some(disk) = SmallDisk::anywhere(200 << 10) else { return };
    let source = Source::made(&preserving(), |path| {
        fs::create_dir(path.join("sub")).unwrap();
        fs::write(path.join("sub/file"), "bytes").unwrap();
        fs::write(path.join("too-long"), vec![7; 300_000]).unwrap();
        set_mode(&path.join("sub/file"), 0o444);
        set_mode(&path.join("too-long"), 0o444);
        set_mode(&path.join("sub"), 0o555);
    });
    fs::create_dir(disk.path().join("into")).unwrap();
    let into = disk.path().join("into");
    chown(&into, Some(USER), None).unwrap();
    as_ordinary_user(|here| {
        let store = Store::open(&here.path().join("store"), None).unwrap();
        let refused = store.export(&source.stored, &into.join("copy")).err().unwrap();
        assert!(matches!(refused, StoreError::DiskFull { .. }), "{refused}");
        assert!(names(&into).is_empty());
    });
}

/// The same with files that nobody may read.
fn unreadable_tree() -> Source {
    Source::made(&preserving(), |path| {
        fs::create_dir(path.join("sub")).unwrap();
        for name in ["a", "equal", "sub/b"] {
            fs::write(path.join(name), vec![7; 70_000]).unwrap();
            set_mode(&path.join(name), 0o000);
        }
        set_mode(&path.join("sub"), 0o555);
    })
}

#[test]
fn files_that_nobody_may_read_can_be_delivered() {
    // Without special rights they cannot be hashed.
    if !geteuid().is_root() {
        return;
    }
    let (tree, file) = (unreadable_tree(), tempfile::tempdir().unwrap());
    let path = file.path().join("file");
    fs::write(&path, "bytes").unwrap();
    set_mode(&path, 0o000);
    let file = Source::in_directory(file, path, &preserving());
    for source in [tree, file] {
        // Opens the files, and keeps them open.
        source.assert_same(&source.stored);
        as_ordinary_user(|here| {
            let place = |name: &str| here.path().join(name);
            let store = Store::open(&place("store"), None).unwrap();
            let stored = source.add_to(&store);
            source.send_all(&stored);
            store.export(&stored, &place("exported")).unwrap();
            let download = OneShot::begin(&place("moved"), source.metadata()).unwrap();
            source.send_all(download.stored());
            fs::write(place("moved"), "mine").unwrap();
            assert!(matches!(finish(download), Err(StoreError::Exists(_))));
            fs::remove_file(place("moved")).unwrap();
            finish(OneShot::begin(&place("moved"), source.metadata()).unwrap()).unwrap();
        });
    }
}
