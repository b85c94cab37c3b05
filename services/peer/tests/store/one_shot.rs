use std::{
    fs,
    path::{Path, PathBuf},
};

use shoal_common::durable_files::DirectoryError;
use shoal_core::{content::ContentId, swarm::LinkKey};
use shoal_peer::store::{OneShot, StoreError};
use tempfile::TempDir;

use crate::support::{Found, Source, blob_piece, finish, names, snapshot, state_name};

fn begin(source: &Source, directory: &TempDir) -> Result<OneShot, StoreError> {
    OneShot::begin(&directory.path().join("copy"), source.metadata())
}

fn state_of(source: &Source) -> String {
    state_name(source.stored.id(), "copy")
}

#[test]
fn a_download_is_moved_to_its_destination_and_served_from_there() {
    let many = [0, 200_000, 9, 8, 65_536];
    for source in [Source::file(200_000, 65_536), Source::tree(&many, 65_536)] {
        let directory = tempfile::tempdir().unwrap();
        let download = begin(&source, &directory).unwrap();
        assert_eq!(names(directory.path()), [state_of(&source)]);
        source.send_all(download.stored());
        let stored = finish(download).unwrap();
        assert_eq!(names(directory.path()), ["copy"]);
        assert_eq!(snapshot(&directory.path().join("copy")), snapshot(&source.path));
        assert_eq!(stored.path(), directory.path().join("copy"));
        source.assert_same(&stored);
    }
}

#[test]
fn an_interrupted_download_is_resumed() {
    let directory = tempfile::tempdir().unwrap();
    let source = Source::file(400_000, 65_536);
    let destination = directory.path().join("copy");
    let id = source.stored.id();
    assert!(OneShot::resume(&destination, id).unwrap().is_none());
    let download = begin(&source, &directory).unwrap();
    source.send(download.stored(), LinkKey(1), blob_piece(2)).unwrap();
    drop(download);
    let resumed = OneShot::resume(&destination, id).unwrap().unwrap();
    assert!(resumed.stored().has(blob_piece(2)));
    source.send_all(resumed.stored());
    finish(resumed).unwrap();
    assert_eq!(fs::read(&destination).unwrap(), fs::read(&source.path).unwrap());
}

#[test]
fn the_commands_about_another_version_are_quoted_for_a_shell() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("it's here");
    fs::create_dir(&place).unwrap();
    let destination = place.join("my copy");
    let (first, second) = (Source::file(400_000, 65_536), Source::file(300_000, 65_536));
    drop(OneShot::begin(&destination, first.metadata()).unwrap());
    let message = OneShot::begin(&destination, second.metadata()).err().unwrap().to_string();
    let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
    let state = place.join(state_name(first.stored.id(), "my copy"));
    let finish_it = format!("-o {}`", quoted(&destination));
    let discard_it = format!("rm -r {}`", quoted(&state));
    assert!(message.contains(&finish_it) && message.contains(&discard_it), "{message}");
}

#[test]
fn an_unfinished_download_of_another_version_to_the_same_destination_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let destination = directory.path().join("copy");
    let (first, second) = (Source::file(400_000, 65_536), Source::file(300_000, 65_536));
    let download = begin(&first, &directory).unwrap();
    source_sends_one(&first, &download);
    drop(download);
    let before = snapshot(directory.path());
    let message = begin(&second, &directory).err().unwrap().to_string();
    let id = first.stored.id();
    let finish_it = format!("shoal get {id} -o {}", destination.display());
    let discard_it = format!("rm -r {}", directory.path().join(state_of(&first)).display());
    assert!(message.contains(&finish_it) && message.contains(&discard_it), "{message}");
    let resumed = OneShot::resume(&destination, second.stored.id());
    assert!(matches!(resumed, Err(StoreError::OtherDownload { id: found, .. }) if found == id));
    assert_eq!(snapshot(directory.path()), before, "it is left alone");

    // Another name beside it, and the same name elsewhere, are free.
    OneShot::begin(&directory.path().join("other"), second.metadata()).unwrap();
    OneShot::begin(&tempfile::tempdir().unwrap().path().join("copy"), second.metadata()).unwrap();
    // The commands of the message work.
    let resumed = OneShot::resume(&destination, id).unwrap().unwrap();
    assert!(resumed.stored().has(blob_piece(0)));
    drop(resumed);
    fs::remove_dir_all(directory.path().join(state_of(&first))).unwrap();
    begin(&second, &directory).unwrap();
}

fn source_sends_one(source: &Source, download: &OneShot) {
    source.send(download.stored(), LinkKey(1), blob_piece(0)).unwrap();
}

#[test]
fn two_processes_cannot_download_to_one_destination() {
    let directory = tempfile::tempdir().unwrap();
    let source = Source::file(400_000, 65_536);
    let _first = begin(&source, &directory).unwrap();
    assert!(matches!(
        begin(&source, &directory),
        Err(StoreError::Directory(DirectoryError::InUse(_)))
    ));
}

#[test]
fn an_existing_destination_is_never_overwritten() {
    for source in [Source::file(100_000, 65_536), Source::tree(&[100_000, 5, 6], 65_536)] {
        let directory = tempfile::tempdir().unwrap();
        let destination = directory.path().join("copy");
        fs::write(&destination, b"mine").unwrap();
        assert!(matches!(begin(&source, &directory), Err(StoreError::Exists(_))));
        assert_eq!(names(directory.path()), ["copy"]);
        fs::remove_file(&destination).unwrap();
        let download = begin(&source, &directory).unwrap();
        source.send_all(download.stored());
        fs::write(&destination, b"mine").unwrap();
        assert!(matches!(finish(download), Err(StoreError::Exists(_))));
        assert_eq!(fs::read(&destination).unwrap(), b"mine");
        // Nothing is lost: after the file's removal, the download finishes at once.
        fs::remove_file(&destination).unwrap();
        finish(begin(&source, &directory).unwrap()).unwrap();
        assert_eq!(snapshot(&destination), snapshot(&source.path));
    }
}

#[test]
fn an_incomplete_download_cannot_be_finished() {
    let directory = tempfile::tempdir().unwrap();
    let download = begin(&Source::file(100_000, 65_536), &directory).unwrap();
    assert!(matches!(finish(download), Err(StoreError::Incomplete(_))));
}

/// Creates what a snapshot saw.
fn restore(at: &Path, seen: impl IntoIterator<Item = (PathBuf, Found)>) {
    for (inside, found) in seen {
        match found {
            Found::Directory => fs::create_dir(at.join(inside)).unwrap(),
            Found::File(bytes) => fs::write(at.join(inside), bytes).unwrap(),
            Found::Link(_) => panic!("there are no links in it"),
        }
    }
}

#[test]
fn the_state_of_a_download_killed_at_its_end_is_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let destination = directory.path().join("copy");
    let source = Source::tree(&[200_000, 5, 6], 65_536);
    let id = source.stored.id();
    let state = directory.path().join(state_of(&source));
    let download = begin(&source, &directory).unwrap();
    source.send_all(download.stored());
    let seen = snapshot(&state);
    finish(download).unwrap();
    // As if killed between moving the content and deleting the state.
    restore(&state, seen);
    OneShot::tidy(&destination, id).unwrap();
    assert_eq!(names(directory.path()), ["copy"]);
    OneShot::tidy(&destination, id).unwrap();

    // The state of another content stays.
    OneShot::tidy(&destination, ContentId::of_descriptor(b"other")).unwrap();
    fs::rename(&destination, directory.path().join("away")).unwrap();
    let other = Source::file(300_000, 65_536);
    drop(begin(&other, &directory).unwrap());
    fs::rename(directory.path().join("away"), &destination).unwrap();
    OneShot::tidy(&destination, id).unwrap();
    assert_eq!(names(directory.path()), [state_of(&other), "copy".to_owned()]);
}
