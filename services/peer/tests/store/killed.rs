//! Downloads to a destination whose process is killed while it makes the files of the blobs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use shoal_core::content::Metadata;
use shoal_peer::store::{OneShot, StoreError};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::support::{Source, finish, names, options, snapshot, state_name};

/// A complete download, of which the process was killed after it had made all files, and before it
/// moved them to the destination.
struct Killed {
    source: Source,
    directory: TempDir,
}

impl Killed {
    fn new(source: Source) -> Self {
        let killed = Self { source, directory: tempfile::tempdir().unwrap() };
        let download = killed.begin(killed.source.metadata());
        killed.source.send_all(download.stored());
        fs::write(killed.destination(), "in the way").unwrap();
        assert!(matches!(finish(download), Err(StoreError::Exists(_))));
        fs::remove_file(killed.destination()).unwrap();
        killed
    }

    fn destination(&self) -> PathBuf {
        self.directory.path().join("copy")
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join(state_name(self.source.stored.id(), "copy"))
    }

    fn tree(&self) -> PathBuf {
        self.state().join("tree")
    }

    /// The file of a blob in the state, and what it became.
    fn blob(&self, number: u32, file: &str) -> (PathBuf, PathBuf) {
        (self.state().join("blobs").join(number.to_string()), self.tree().join(file))
    }

    fn begin(&self, metadata: Metadata) -> OneShot {
        OneShot::begin(&self.destination(), metadata).unwrap()
    }

    /// The download is complete without a piece sent again, and is finished.
    fn expect_finish(&self, download: OneShot) {
        assert!(download.stored().is_complete());
        let stored = finish(download).unwrap();
        self.source.assert_same(&stored);
        assert_eq!(snapshot(&self.destination()), snapshot(&self.source.path));
        assert_eq!(names(self.directory.path()), ["copy"]);
    }
}

/// The files of [`tree`] that are whole blobs, by the numbers of these.
const BLOBS: [(u32, &str); 3] = [(1, "a/long"), (3, "b"), (4, "c/long")];

/// A tree with three whole blobs, one of them twice, and a pack.
fn tree() -> Source {
    Source::made(&options(65_536), |path| {
        for directory in ["a", "c", "empty"] {
            fs::create_dir(path.join(directory)).unwrap();
        }
        for (number, (_, file)) in BLOBS.into_iter().enumerate() {
            fs::write(path.join(file), vec![1 + number as u8; 70_000]).unwrap();
        }
        fs::write(path.join("equal"), vec![1; 70_000]).unwrap();
        fs::write(path.join("a/short"), "short").unwrap();
        fs::write(path.join("other"), "other").unwrap();
        fs::write(path.join("nothing"), "").unwrap();
        std::os::unix::fs::symlink("a/long", path.join("link")).unwrap();
    })
}

fn rename(from: &Path, to: &Path) {
    fs::rename(from, to).unwrap();
}

#[test]
fn files_that_became_part_of_the_tree_are_taken_back() {
    for moved in 0..=BLOBS.len() {
        for from in 0..3 {
            let killed = Killed::new(tree());
            assert_eq!(names(&killed.state().join("blobs")), ["2"], "the pack stays");
            // The last blobs were not moved yet.
            for (number, file) in &BLOBS[moved..] {
                let (blob, file) = killed.blob(*number, file);
                rename(&file, &blob);
            }
            let download = match from {
                0 => killed.begin(killed.source.metadata()),
                1 => killed.begin(killed.source.descriptor_only()),
                _ => {
                    let id = killed.source.stored.id();
                    OneShot::resume(&killed.destination(), id).unwrap().unwrap()
                }
            };
            assert!(!killed.tree().exists());
            killed.expect_finish(download);
        }
    }
}

#[test]
fn a_file_that_was_about_to_be_moved_is_taken_back() {
    for length in [0, 5, 200_000] {
        let killed = Killed::new(Source::file(length, 65_536));
        assert!(killed.tree().is_file());
        let download = killed.begin(killed.source.metadata());
        killed.expect_finish(download);
    }
}

#[test]
fn a_tree_that_was_begun_or_half_deleted_is_made_again() {
    // Only some files were created, one of them in part.
    let killed = Killed::new(tree());
    for (number, file) in BLOBS {
        let (blob, file) = killed.blob(number, file);
        rename(&file, &blob);
    }
    fs::remove_dir_all(killed.tree().join("c")).unwrap();
    fs::remove_file(killed.tree().join("other")).unwrap();
    fs::write(killed.tree().join("a/short"), "sh").unwrap();
    fs::write(killed.tree().join("equal"), vec![1; 7_000]).unwrap();
    killed.expect_finish(killed.begin(killed.source.metadata()));

    // The process that took the blobs back was killed as well.
    let killed = Killed::new(tree());
    let (blob, file) = killed.blob(1, "a/long");
    rename(&file, &blob);
    fs::remove_dir_all(killed.tree().join("a")).unwrap();
    killed.expect_finish(killed.begin(killed.source.metadata()));
}

#[test]
fn a_blob_that_is_lost_is_fetched_again() {
    let killed = Killed::new(tree());
    fs::remove_file(killed.tree().join("b")).unwrap();
    let download = killed.begin(killed.source.metadata());
    let (held, all) = (download.stored().held_pieces(), download.stored().layout().piece_count());
    assert_eq!(held, all - 2);
    killed.source.send_all(download.stored());
    killed.expect_finish(download);
}

#[test]
fn an_interrupted_finish_is_repeated() {
    let source = tree();
    let directory = tempfile::tempdir().unwrap();
    let begin = || OneShot::begin(&directory.path().join("copy"), source.metadata()).unwrap();
    let download = begin();
    source.send_all(download.stored());
    let stop = CancellationToken::new();
    stop.cancel();
    assert!(matches!(download.finish(&stop), Err(StoreError::Interrupted(_))));
    let download = begin();
    assert!(download.stored().is_complete());
    finish(download).unwrap();
    assert_eq!(snapshot(&directory.path().join("copy")), snapshot(&source.path));
}
