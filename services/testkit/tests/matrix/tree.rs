//! A tree with everything that a file system may hold, and the comparison of two trees.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::{self, File, Metadata, Permissions},
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink},
    },
    path::{Path, PathBuf},
};

use shoal_testkit::cluster::random_bytes;

/// Bytes of each file with holes.
const SPARSE_BYTES: u64 = 8 << 20;

/// Bytes that a file with holes may occupy: its data, in whole pieces, and a few blocks.
const MOST_OCCUPIED: u64 = 1 << 20;

/// Makes the tree at `path`: the same wherever it is made.
pub(crate) fn make(path: &Path) {
    fs::create_dir(path).unwrap();
    equal_and_small_files(path);
    sizes_around_a_piece(path);
    names(path);
    links(path);
    modes(path);
    holes(path);
    deep(path);
    fs::create_dir_all(path.join("empty/inner")).unwrap();
    fs::write(path.join("empty/file"), "").unwrap();
}

fn equal_and_small_files(path: &Path) {
    let bytes = random_bytes(300_000, 1);
    fs::create_dir_all(path.join("equal/deeper")).unwrap();
    for name in ["equal/one", "equal/two", "equal/deeper/three"] {
        fs::write(path.join(name), &bytes).unwrap();
    }
    fs::hard_link(path.join("equal/one"), path.join("equal/hard-link")).unwrap();
    fs::create_dir(path.join("small")).unwrap();
    for number in 0..1_500 {
        fs::write(path.join(format!("small/{number}")), format!("file {}", number / 2)).unwrap();
    }
}

/// Of every piece length that the size of the tree may give.
fn sizes_around_a_piece(path: &Path) {
    fs::create_dir(path.join("sizes")).unwrap();
    for piece in [65_536, 131_072, 262_144] {
        for bytes in [piece - 1, piece, piece + 1] {
            let name = format!("sizes/{bytes}");
            fs::write(path.join(name), random_bytes(bytes, bytes as u64)).unwrap();
        }
    }
}

fn names(path: &Path) {
    let directory = path.join("names");
    fs::create_dir(&directory).unwrap();
    let long = "n".repeat(255);
    let names: [&[u8]; 20] = [
        br"systemd\x2dcryptsetup.slice",
        b"new\nline",
        b"carriage\rreturn",
        b"not UTF-8 \xff\xfe",
        "caf\u{e9}".as_bytes(),
        "cafe\u{301}".as_bytes(),
        "right-to-left \u{202e}".as_bytes(),
        b"README",
        b"readme",
        b"-rf",
        b" leading",
        b"trailing ",
        b"trailing.",
        b"CON",
        b"a:b*c?d\"e<f>g|h",
        b"prefix",
        b"prefix-",
        b"prefix0",
        b".shoal",
        long.as_bytes(),
    ];
    for name in names {
        fs::write(directory.join(OsStr::from_bytes(name)), name).unwrap();
    }
    // Sorted between `prefix-` and `prefix0` by its bytes, and after both as a path.
    fs::create_dir(directory.join("prefix.d")).unwrap();
    fs::write(directory.join("prefix.d/file"), "below").unwrap();
}

fn links(path: &Path) {
    let directory = path.join("links");
    fs::create_dir(&directory).unwrap();
    for (name, target) in [
        ("to-file", "../equal/one"),
        ("to-directory", "../names"),
        ("dangling", "../nowhere/at/all"),
        ("to-itself", "to-itself"),
        ("odd", "../names/new\nline"),
    ] {
        symlink(target, directory.join(name)).unwrap();
    }
    let target = OsString::from_vec(b"../names/not UTF-8 \xff\xfe".to_vec());
    symlink(target, directory.join("not-utf-8")).unwrap();
}

fn modes(path: &Path) {
    fs::create_dir_all(path.join("modes/private")).unwrap();
    for (name, mode, bytes) in [
        ("plain", 0o644, 10),
        ("private-file", 0o600, 20),
        ("executable", 0o755, 30),
        ("private-executable", 0o700, 40),
        ("private-long", 0o600, 100_000),
        ("executable-long", 0o755, 100_001),
        ("private/file", 0o644, 50),
    ] {
        let file = path.join("modes").join(name);
        fs::write(&file, random_bytes(bytes, bytes as u64)).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(path.join("modes/private"), Permissions::from_mode(0o700)).unwrap();
}

/// Data at the start, in the middle and at the end, and holes only.
fn holes(path: &Path) {
    fs::create_dir(path.join("holes")).unwrap();
    let middle = SPARSE_BYTES / 2 + 1_000;
    for (name, offsets) in [
        ("at-the-end", &[0, middle][..]),
        ("at-the-start", &[middle, SPARSE_BYTES - 1_000]),
        ("only", &[]),
    ] {
        let file = File::create(path.join("holes").join(name)).unwrap();
        file.set_len(SPARSE_BYTES).unwrap();
        for offset in offsets {
            file.write_all_at(&random_bytes(1_000, *offset), *offset).unwrap();
        }
    }
}

fn deep(path: &Path) {
    let many: PathBuf = ["d"; 300].iter().collect();
    let long: PathBuf = vec!["l".repeat(240); 15].iter().collect();
    for below in [many, long] {
        fs::create_dir_all(path.join(&below)).unwrap();
        fs::write(path.join(below).join("file"), "deep").unwrap();
    }
}

/// Panics unless a tree is a faithful copy: names, kinds, bytes, targets of links and holes. A mode
/// has the same bits of the owner, and is never wider.
pub(crate) fn assert_faithful(source: &Path, copy: &Path) {
    let (before, after) = (look(source), look(copy));
    let shown = copy.display();
    assert_eq!(before.file_type(), after.file_type(), "the kind of {shown}");
    if before.is_symlink() {
        assert_eq!(fs::read_link(source).unwrap(), fs::read_link(copy).unwrap(), "{shown}");
        return;
    }
    let (mode, copied) = (before.mode() & 0o777, after.mode() & 0o777);
    assert_eq!((mode & 0o700, copied & !mode), (copied & 0o700, 0), "{mode:o} {copied:o} {shown}");
    if before.is_dir() {
        let (entries, copies) = (entries(source), entries(copy));
        assert_eq!(names_of(&entries), names_of(&copies), "the entries of {shown}");
        for (name, path) in &entries {
            assert_faithful(path, &copies[name]);
        }
        return;
    }
    assert!(fs::read(source).unwrap() == fs::read(copy).unwrap(), "the bytes of {shown}");
    let is_sparse = before.blocks() * 512 < before.len() / 2;
    let occupied = after.blocks() * 512;
    assert!(!is_sparse || occupied <= MOST_OCCUPIED, "{shown} occupies {occupied} bytes");
}

fn look(path: &Path) -> Metadata {
    path.symlink_metadata().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn entries(path: &Path) -> BTreeMap<OsString, PathBuf> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name(), entry.path())).collect()
}

fn names_of(entries: &BTreeMap<OsString, PathBuf>) -> Vec<&OsString> {
    entries.keys().collect()
}
