//! Trees, destinations and disks that users of systems like this one stumbled over, tried as a user
//! would.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, Permissions},
    os::unix::{
        ffi::OsStringExt as _,
        fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink},
    },
    path::{Path, PathBuf},
    process::{Command, Output},
};

use shoal_testkit::{
    cluster::{Cluster, Seeder, assert_same},
    process::binary,
    small_disk::SmallDisk,
};

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn shoal(arguments: &[&OsStr]) -> Output {
    Command::new(binary("shoal")).args(arguments).output().expect("the command runs")
}

fn hash(path: &Path) -> Output {
    shoal(&["hash".as_ref(), path.as_os_str()])
}

/// The arguments of a download to a path.
fn get(cluster: &Cluster, seeder: &Seeder, to: &Path) -> Vec<String> {
    let to = to.to_str().expect("the paths of tests are UTF-8");
    let tracker = cluster.tracker();
    let limits = ["--listen", "127.0.0.1:0", "--timeout", "60s"];
    let arguments = [&["get", &seeder.id, "-o", to, "--tracker", &tracker], &limits[..]].concat();
    arguments.into_iter().map(ToOwned::to_owned).collect()
}

fn run_get(cluster: &Cluster, seeder: &Seeder, to: &Path) -> Output {
    let arguments = get(cluster, seeder, to);
    shoal(&arguments.iter().map(OsStr::new).collect::<Vec<_>>())
}

fn directory(cluster: &Cluster, name: &str) -> PathBuf {
    let path = cluster.path().join(name);
    fs::create_dir_all(&path).expect("the directory is made");
    path
}

#[test]
fn a_file_without_a_size_is_not_published_as_an_empty_one() {
    let here = tempfile::tempdir().expect("a directory");
    symlink("/proc/version", here.path().join("link")).expect("the link is made");
    fs::write(here.path().join("empty"), "").expect("the file is written");
    for path in [Path::new("/proc/version"), here.path()] {
        let refused = hash(path);
        assert!(!refused.status.success(), "{refused:?}");
        assert!(words(&refused).contains("its size is 0"), "{}", words(&refused));
    }
    fs::remove_file(here.path().join("link")).expect("it exists");
    assert!(hash(here.path()).status.success());
}

#[test]
fn a_tree_deeper_than_files_may_be_open_arrives() {
    let cluster = Cluster::start();
    let tree = directory(&cluster, "source/tree");
    let deep: PathBuf = vec!["d"; 1_500].iter().collect();
    fs::create_dir_all(tree.join(&deep)).expect("the directories are made");
    fs::write(tree.join(&deep).join("file"), "deep").expect("the file is written");
    // After its deep neighbours: in a directory that was closed meanwhile.
    fs::write(tree.join("d/d/last"), "last").expect("the file is written");
    let seeder = cluster.seed(&tree, &["--preserve"]);
    let to = cluster.path().join("copy");
    let limited = Command::new("bash")
        .args(["-c", "ulimit -n 256 && exec \"$@\"", "bash"])
        .arg(binary("shoal"))
        .args(get(&cluster, &seeder, &to))
        .output()
        .expect("bash runs");
    assert!(limited.status.success(), "{}", words(&limited));
    for file in [deep.join("file"), "d/d/last".into()] {
        assert_same(&tree.join(&file), &to.join(&file));
    }
    let modified = |path: &Path| path.join("d/d").metadata().expect("it exists").mtime();
    assert_eq!(modified(&tree), modified(&to));
}

#[test]
fn paths_that_the_destination_makes_too_long_are_refused_before_the_download() {
    let cluster = Cluster::start();
    let tree = directory(&cluster, "source/tree");
    let long: PathBuf = vec!["l".repeat(240); 15].iter().collect();
    fs::create_dir_all(tree.join(&long)).expect("the directories are made");
    fs::write(tree.join(&long).join("file"), "far away").expect("the file is written");
    let seeder = cluster.seed(&tree, &[]);
    let to = directory(&cluster, &vec!["to".repeat(100); 3].join("/"));
    let refused = run_get(&cluster, &seeder, &to);
    assert!(!refused.status.success() && words(&refused).contains("shorter path"), "{refused:?}");
    assert!(!to.join("tree").exists());
}

#[test]
fn a_directory_of_a_group_stays_one_when_modes_are_preserved() {
    let cluster = Cluster::start();
    let tree = directory(&cluster, "source/tree");
    fs::create_dir(tree.join("sub")).expect("the directory is made");
    fs::write(tree.join("sub/file"), "bytes").expect("the file is written");
    for (path, mode) in [("", 0o2750), ("sub", 0o1775), ("sub/file", 0o4755)] {
        let mode = Permissions::from_mode(mode);
        fs::set_permissions(tree.join(path), mode).expect("the owner may");
    }
    let seeder = cluster.seed(&tree, &["--preserve"]);
    let modes = |to: &Path| {
        assert!(run_get(&cluster, &seeder, to).status.success());
        ["tree", "tree/sub", "tree/sub/file"]
            .map(|path| to.join(path).metadata().expect("it arrived").mode() & 0o7777)
    };
    assert_eq!(modes(&directory(&cluster, "plain")), [0o750, 0o1775, 0o755]);
    let group = directory(&cluster, "group");
    fs::set_permissions(&group, Permissions::from_mode(0o2775)).expect("the owner may");
    assert_eq!(modes(&group), [0o2750, 0o3775, 0o755]);
}

#[test]
fn a_download_into_an_append_only_directory_succeeds() {
    let cluster = Cluster::start();
    let file = cluster.file("source/file", 100_000, 1);
    let to = directory(&cluster, "to");
    let chattr = |change| Command::new("chattr").arg(change).arg(&to).output();
    let Ok(true) = chattr("+a").map(|done| done.status.success()) else {
        eprintln!("not tested: the file system or this user cannot make it append-only");
        return;
    };
    let seeder = cluster.seed(&file, &[]);
    let outcomes = [run_get(&cluster, &seeder, &to), run_get(&cluster, &seeder, &to)];
    chattr("-a").expect("chattr ran before");
    for outcome in outcomes {
        assert!(outcome.status.success(), "{}", words(&outcome));
        assert!(words(&outcome).contains("delete it"), "{}", words(&outcome));
    }
    assert_same(&file, &to.join("file"));
}

#[test]
fn a_full_disk_is_reported_by_the_destination() {
    let cluster = Cluster::start();
    let file = cluster.file("source/file", 8_000_000, 2);
    let seeder = cluster.seed(&file, &[]);
    let Some(disk) = SmallDisk::anywhere(4 << 20) else { return };
    let failed = run_get(&cluster, &seeder, disk.path());
    let words = words(&failed);
    let error = words.lines().find(|line| line.starts_with("error:")).expect("it says why");
    assert_eq!(failed.status.code(), Some(5), "{words}");
    assert!(error.contains(&disk.path().display().to_string()), "{error}");
    assert!(!error.contains(".shoal"), "{error}");
}

#[test]
fn a_content_of_holes_is_not_said_to_have_been_here() {
    let cluster = Cluster::start();
    let source = directory(&cluster, "source").join("zeros");
    let file = File::create(&source).expect("the file is created");
    file.set_len(50_000_777).expect("the disk has room for a hole");
    let seeder = cluster.seed(&source, &[]);
    let to = directory(&cluster, "to");
    let done = run_get(&cluster, &seeder, &to);
    assert!(words(&done).contains("50.00 MB are here; nothing had to be fetched"), "{done:?}");
    assert_same(&source, &to.join("zeros"));

    // With data only at the start, and a hole at the end that is no multiple of a block.
    file.write_all_at(b"data", 0).expect("the file is written");
    let seeder = cluster.seed(&source, &[]);
    let to = directory(&cluster, "other");
    assert!(run_get(&cluster, &seeder, &to).status.success());
    assert_same(&source, &to.join("zeros"));
    let occupied = to.join("zeros").metadata().expect("it arrived").blocks() * 512;
    assert!(occupied < 1_000_000, "{occupied} bytes");
}

#[test]
fn a_peer_is_told_paths_that_are_not_utf_8() {
    let cluster = Cluster::start();
    let odd = |name: &[u8]| OsString::from_vec([name, b" \xff\xfe\n"].concat());
    let tree = directory(&cluster, "source").join(odd(b"tree"));
    fs::create_dir(&tree).expect("the directory is made");
    for (name, byte) in [(&b"wanted"[..], 1), (b"skipped", 2)] {
        fs::write(tree.join(odd(name)), vec![byte; 300_000]).expect("the file is written");
    }
    let peers = ["publisher", "fetcher"].map(|name| cluster.peer(name, &[]));
    let run = |peer: usize, arguments: &[&OsStr]| {
        let control = ["--control".as_ref(), OsStr::new(&peers[peer].control)];
        let done = shoal(&[arguments, &control].concat());
        assert!(done.status.success(), "{}", words(&done));
        String::from_utf8(done.stdout).expect("an id").trim().to_owned()
    };
    let name = odd(b"name");
    let publish = ["publish", "--in-place"].map(OsStr::new);
    let id = run(0, &[&publish[..], &["--name".as_ref(), &name, tree.as_os_str()]].concat());
    let listed = shoal(&["hash".as_ref(), "--name".as_ref(), &name, tree.as_os_str()]);
    assert!(String::from_utf8_lossy(&listed.stdout).starts_with(&id));

    let fetch = ["fetch".as_ref(), OsStr::new(&id)];
    let skip = ["--priority".as_ref(), OsStr::new(r"skipped \xff\xfe\n=skip")];
    run(1, &[fetch, skip].concat());
    let status = peers[1].status(&id).expect("it was fetched");
    assert!((300_000..600_000).contains(&status.held_bytes), "{status:?}");
    let copy = cluster.path().join(odd(b"copy"));
    run(1, &[fetch, ["--to".as_ref(), copy.as_os_str()]].concat());
    assert_same(&tree, &copy);
}

#[test]
fn the_state_of_an_older_release_is_named() {
    let cluster = Cluster::start();
    let file = cluster.file("source/file", 100_000, 3);
    let to = directory(&cluster, "to");
    let old = directory(&cluster, "to/.file.shoal");
    let seeder = cluster.seed(&file, &[]);
    let done = run_get(&cluster, &seeder, &to);
    assert!(done.status.success(), "{}", words(&done));
    let warning = words(&done);
    let warning = warning.lines().find(|line| line.contains("older release")).expect("it is named");
    assert!(warning.contains(&old.display().to_string()), "{warning}");
    assert!(old.exists(), "it is left alone");
    assert_same(&file, &to.join("file"));
}
