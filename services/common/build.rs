//! Stamps the binaries with the commit that they are built from.

use std::{env, path::Path, process::Command};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=SHOAL_COMMIT");
    println!("cargo:rerun-if-env-changed=SHOAL_COMMIT_DATE");
    let release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let directory = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let stamp = match Commit::checked_out(Path::new(&directory)).filter(|_| release) {
        Some(commit) => {
            for path in &commit.changes_with {
                println!("cargo:rerun-if-changed={path}");
            }
            Some(commit.stamp)
        }
        None => given(|name| env::var(name).ok()),
    };
    // Every crate of ours depends on this one, and would be built anew after each commit.
    let stamp = stamp.or_else(|| (!release).then(|| "debug build".to_owned()));
    let version = env::var("CARGO_PKG_VERSION").expect("cargo sets it");
    println!("cargo:rustc-env=SHOAL_VERSION={}", with_stamp(&version, stamp.as_deref()));
}

/// Of a commit id, the characters that are shown.
const SHORT: usize = 7;

pub(crate) struct Commit {
    /// Its short id and its date.
    pub(crate) stamp: String,
    /// Git's files that change when another commit is checked out.
    pub(crate) changes_with: Vec<String>,
}

impl Commit {
    /// The commit of the working tree with the directory `services/common`, if it is one.
    pub(crate) fn checked_out(directory: &Path) -> Option<Self> {
        // Source that was unpacked inside another repository is no part of its commits.
        git(directory, &["ls-files", "--error-unmatch", "Cargo.toml"])?;
        let format = format!("--abbrev={SHORT}");
        let stamp = git(directory, &["log", "-1", &format, "--format=%h %cs"])?;
        let reference = git(directory, &["symbolic-ref", "-q", "HEAD"]);
        // A packed reference has no file of its own; the log of HEAD grows by each commit too.
        let changes_with = ["HEAD", "logs/HEAD"]
            .into_iter()
            .chain(reference.as_deref())
            .filter_map(|name| git(directory, &["rev-parse", "--git-path", name]))
            .filter(|path| directory.join(path).exists())
            .collect();
        Some(Self { stamp, changes_with })
    }
}

/// The commit that the environment names, for builds without a repository.
pub(crate) fn given(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let commit = variable("SHOAL_COMMIT").filter(|commit| !commit.is_empty())?;
    let short = commit.get(..SHORT).unwrap_or(&commit);
    let date = variable("SHOAL_COMMIT_DATE").unwrap_or_default();
    Some(format!("{short} {date}").trim_end().to_owned())
}

pub(crate) fn with_stamp(version: &str, stamp: Option<&str>) -> String {
    stamp.map_or_else(|| version.to_owned(), |stamp| format!("{version} ({stamp})"))
}

/// The output of git, or nothing if it fails or is not installed.
fn git(directory: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").current_dir(directory).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    Some(text.trim_end().to_owned())
}
