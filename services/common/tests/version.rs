//! The commit that binaries name: how build.rs finds it.

#[allow(dead_code)]
#[path = "../build.rs"]
mod build;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use build::{Commit, given, with_stamp};
use shoal_common::command_line::VERSION;

fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(directory)
        .args([
            "-c",
            "user.name=test",
            "-c",
            "user.email=test@example",
            "-c",
            "commit.gpgsign=false",
        ])
        .args(arguments)
        .env("GIT_COMMITTER_DATE", "2026-01-02T12:00:00Z")
        .output()
        .expect("git is installed");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("ids are text").trim_end().to_owned()
}

fn commit(repository: &Path) {
    git(repository, &["commit", "--quiet", "--allow-empty", "--message", "A commit"]);
}

/// A repository with one commit, and its directory `services/common`.
fn repository(root: &Path) -> PathBuf {
    let crate_directory = root.join("services/common");
    fs::create_dir_all(&crate_directory).expect("it is new");
    fs::write(crate_directory.join("Cargo.toml"), "").expect("it is writable");
    git(root, &["init", "--quiet"]);
    git(root, &["add", "."]);
    commit(root);
    crate_directory
}

/// The contents of the files that cargo watches.
fn watched(directory: &Path, commit: &Commit) -> Vec<String> {
    let read = |path: &String| fs::read_to_string(directory.join(path)).expect("it exists");
    commit.changes_with.iter().map(read).collect()
}

#[test]
fn the_commit_is_named_with_its_date_and_a_watched_file_changes_with_it() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let directory = repository(root.path());
    // Also where the branch is packed, or the working tree is not the first of its repository.
    git(root.path(), &["pack-refs", "--all"]);
    let tree = root.path().join("tree");
    git(root.path(), &["worktree", "add", "--quiet", "tree"]);
    for (tree, directory) in
        [(root.path(), directory.clone()), (&tree, tree.join("services/common"))]
    {
        let first = Commit::checked_out(&directory).expect("it is a repository");
        let id = git(tree, &["rev-parse", "HEAD"]);
        assert_eq!(first.stamp, format!("{} 2026-01-02", &id[..7]));
        let before = watched(&directory, &first);
        commit(tree);
        assert_ne!(watched(&directory, &first), before);
        assert_ne!(Commit::checked_out(&directory).map(|second| second.stamp), Some(first.stamp));
    }
}

#[test]
fn source_without_a_repository_of_its_own_has_no_commit() {
    let root = tempfile::tempdir().expect("a temporary directory");
    assert!(Commit::checked_out(root.path()).is_none());
    repository(root.path());
    let unpacked = root.path().join("shoal-0.1.0/services/common");
    fs::create_dir_all(&unpacked).expect("it is new");
    fs::write(unpacked.join("Cargo.toml"), "").expect("it is writable");
    assert!(Commit::checked_out(&unpacked).is_none());
}

#[test]
fn the_environment_may_name_the_commit() {
    let both = |name: &str| match name {
        "SHOAL_COMMIT" => Some("1e1ef3b0123456789".to_owned()),
        _ => Some("2026-11-30".to_owned()),
    };
    assert_eq!(given(both).as_deref(), Some("1e1ef3b 2026-11-30"));
    let alone = |name: &str| (name == "SHOAL_COMMIT").then(|| "1e1".to_owned());
    assert_eq!(given(alone).as_deref(), Some("1e1"));
    assert_eq!(given(|_| Some(String::new())), None);
    assert_eq!(given(|_| None), None);
}

#[test]
fn the_version_is_followed_by_what_is_known_of_the_build() {
    assert_eq!(with_stamp("0.1.0", Some("1e1ef3b 2026-11-30")), "0.1.0 (1e1ef3b 2026-11-30)");
    assert_eq!(with_stamp("0.1.0", None), "0.1.0");
    assert_eq!(VERSION.split(' ').next(), Some(env!("CARGO_PKG_VERSION")));
}
