//! Symbolic links of a published tree.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use shoal_core::content::{Kind, Manifest};
use shoal_peer::store::{HashOptions, Links, OneShot, Store, StoreError, find_at, hash};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::support::{Found, Source, finish, options, snapshot};

/// A directory `tree` to publish, and files beside it.
struct Bench {
    here: TempDir,
}

impl Bench {
    fn new() -> Self {
        let here = tempfile::tempdir().unwrap();
        fs::create_dir_all(here.path().join("tree/sub")).unwrap();
        fs::create_dir_all(here.path().join("outside/inner")).unwrap();
        fs::write(here.path().join("tree/sub/file"), "inside").unwrap();
        fs::write(here.path().join("outside/file"), "outside").unwrap();
        fs::write(here.path().join("outside/inner/file"), "inner").unwrap();
        Self { here }
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.here.path().join(inside)
    }

    fn link(&self, target: impl AsRef<Path>, name: &str) {
        symlink(target, self.path("tree").join(name)).unwrap();
    }

    fn hash(&self, links: Links) -> Result<Manifest, StoreError> {
        let options = HashOptions { links, ..HashOptions::default() };
        hash(&self.path("tree"), &options, |_| {}).map(|hashed| hashed.manifest)
    }
}

/// The entries below a content, and what links among them lead to.
fn entries(manifest: &Manifest) -> Vec<(String, Option<String>)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let entries = manifest.entries().skip(1).map(|(number, entry)| {
        let target = match entry.kind {
            Kind::Link(target) => Some(text(target)),
            Kind::File { .. } | Kind::Directory => None,
        };
        (text(&manifest.path_of(number)), target)
    });
    entries.collect()
}

fn expected(entries: &[(&str, Option<&str>)]) -> Vec<(String, Option<String>)> {
    let own =
        |(path, target): &(&str, Option<&str>)| ((*path).to_owned(), target.map(ToOwned::to_owned));
    entries.iter().map(own).collect()
}

#[test]
fn links_that_stay_in_the_content_arrive_as_links() {
    let source = Source::made(&options(65_536), |path| {
        fs::create_dir_all(path.join("a/b")).unwrap();
        fs::write(path.join("a/file"), "bytes").unwrap();
        for (target, name) in [
            ("a/file", "file"),
            ("a", "directory"),
            ("../file", "a/b/up"),
            ("../../a/./b", "a/b/around"),
            ("..", "a/b/above"),
            ("nothing/here", "dangling"),
            ("dangling", "a/\u{e9}"),
        ] {
            symlink(target, path.join(name)).unwrap();
        }
    });
    let links =
        source.manifest().entries().filter(|(_, entry)| matches!(entry.kind, Kind::Link(_)));
    assert_eq!(links.count(), 7);
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
        assert_eq!(snapshot(&place(copy)), snapshot(&source.path));
        let found = find_at(&place(copy), &source.metadata(), &CancellationToken::new());
        assert_eq!(found.unwrap().manifest.id(), source.stored.id());
    }
}

#[test]
fn links_that_lead_out_of_the_content_are_followed() {
    let bench = Bench::new();
    bench.link("../outside/file", "file");
    bench.link(bench.path("outside"), "directory");
    bench.link(bench.path("tree/sub"), "absolute");
    // Out of the directory, by way of a name in it.
    bench.link("../sub/../../outside/file", "sub/around");
    let manifest = bench.hash(Links::Follow).unwrap();
    let paths = [
        ("absolute", None),
        ("absolute/around", None),
        ("absolute/file", None),
        ("directory", None),
        ("directory/file", None),
        ("directory/inner", None),
        ("directory/inner/file", None),
        ("file", None),
        ("sub", None),
        ("sub/around", None),
        ("sub/file", None),
    ];
    assert_eq!(entries(&manifest), expected(&paths));

    let here = tempfile::tempdir().unwrap();
    let store = Store::open(&here.path().join("store"), None).unwrap();
    let options = HashOptions::default();
    let stored = store.add_in_place(hash(&bench.path("tree"), &options, |_| {}).unwrap()).unwrap();
    store.export(&stored, &here.path().join("copy")).unwrap();
    let copy = snapshot(&here.path().join("copy"));
    for (path, bytes) in [
        ("file", "outside"),
        ("directory/inner/file", "inner"),
        ("absolute/file", "inside"),
        ("sub/around", "outside"),
    ] {
        assert_eq!(copy[Path::new(path)], Found::File(bytes.into()), "{path}");
    }
}

#[test]
fn in_a_followed_directory_only_links_that_stay_in_it_are_kept() {
    let bench = Bench::new();
    bench.link(bench.path("outside/inner"), "linked");
    symlink("file", bench.path("outside/inner/kept")).unwrap();
    // On disk it leads to another file than it would in the content.
    symlink("../file", bench.path("outside/inner/up")).unwrap();
    let manifest = bench.hash(Links::Follow).unwrap();
    let paths = [
        ("linked", None),
        ("linked/file", None),
        ("linked/kept", Some("file")),
        ("linked/up", None),
        ("sub", None),
        ("sub/file", None),
    ];
    assert_eq!(entries(&manifest), expected(&paths));
    let up = manifest.files().find(|(file, _)| manifest.path_of(*file) == b"linked/up").unwrap();
    assert_eq!(up.1.root, *blake3::hash(b"outside").as_bytes());
}

#[test]
fn links_that_lead_out_of_the_content_can_be_left_out_or_refused() {
    let bench = Bench::new();
    bench.link("file", "sub/kept");
    bench.hash(Links::Refuse).unwrap();
    bench.link("../outside/file", "file");
    bench.link(bench.path("outside"), "directory");
    bench.link("/nowhere", "dangling");
    let manifest = bench.hash(Links::Skip).unwrap();
    let paths = [("sub", None), ("sub/file", None), ("sub/kept", Some("file"))];
    assert_eq!(entries(&manifest), expected(&paths));
    let refused = bench.hash(Links::Refuse).unwrap_err();
    assert!(matches!(refused, StoreError::LinksRefused(_)), "{refused}");
    let message = refused.to_string();
    for name in ["file", "directory", "dangling"] {
        let path = bench.path("tree").join(name);
        assert!(message.contains(path.to_str().unwrap()), "{message}");
    }
    assert!(!message.contains("kept"), "{message}");
    assert!(message.contains("--links follow") && message.contains("--links skip"), "{message}");
}

#[test]
fn all_links_that_lead_nowhere_are_named_in_one_error() {
    let bench = Bench::new();
    for number in 0..22 {
        bench.link("/nowhere", &format!("sub/dangling-{number:02}"));
    }
    // This one is kept as it is.
    bench.link("nowhere", "kept");
    let refused = bench.hash(Links::Follow).unwrap_err();
    assert!(matches!(refused, StoreError::Dangling(_)), "{refused}");
    let message = refused.to_string();
    for number in 0..20 {
        assert!(message.contains(&format!("dangling-{number:02}")), "{message}");
    }
    assert!(message.contains("and 2 more") && message.contains("--links skip"), "{message}");
    assert!(!message.contains("kept"), "{message}");
}

#[test]
fn a_link_to_a_directory_above_it_is_kept_if_it_is_relative_and_else_an_error() {
    let bench = Bench::new();
    bench.link("..", "sub/up");
    bench.hash(Links::Follow).unwrap();
    bench.link(bench.path("tree"), "sub/cycle");
    let refused = bench.hash(Links::Follow).unwrap_err();
    assert!(matches!(refused, StoreError::LinkCycle(path) if path.ends_with("sub/cycle")));
    bench.hash(Links::Skip).unwrap();
}

#[test]
fn the_content_itself_may_be_named_by_a_link() {
    let bench = Bench::new();
    let link = bench.path("link");
    symlink("tree", &link).unwrap();
    let linked = hash(&link, &HashOptions::default(), |_| {}).unwrap().manifest;
    assert_eq!(linked.name(), b"link");
    assert_eq!(linked.encoded(), bench.hash(Links::Follow).unwrap().encoded());
}
