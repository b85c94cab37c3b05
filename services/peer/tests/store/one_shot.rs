use std::fs;

use shoal_common::durable_files::DirectoryError;
use shoal_core::{
    content::{ContentId, PieceIndex},
    swarm::LinkKey,
};
use shoal_peer::store::{OneShot, StoreError};
use tempfile::TempDir;

use crate::support::{Source, names, snapshot};

fn begin(source: &Source, directory: &TempDir) -> Result<OneShot, StoreError> {
    let (manifest, hashes) = (source.stored.manifest().clone(), source.stored.hashes().clone());
    OneShot::begin(&directory.path().join("copy"), manifest, hashes)
}

#[test]
fn a_download_is_moved_to_its_destination_and_served_from_there() {
    for source in [Source::file(200_000, 65_536), Source::tree(&[0, 200_000, 9], 65_536)] {
        let directory = tempfile::tempdir().unwrap();
        let download = begin(&source, &directory).unwrap();
        assert_eq!(names(directory.path()), [".copy.shoal"]);
        source.send_all(download.stored());
        let stored = download.finish().unwrap();
        assert_eq!(names(directory.path()), ["copy"]);
        assert_eq!(snapshot(&directory.path().join("copy")), snapshot(&source.path));
        for piece in stored.layout().pieces() {
            let block = stored.layout().whole(piece);
            let mut bytes = vec![0; block.length as usize];
            stored.read(block, &mut bytes).unwrap();
            assert_eq!(source.bytes(block), bytes);
        }
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
    source.send(download.stored(), LinkKey(1), PieceIndex::new(2)).unwrap();
    drop(download);
    let resumed = OneShot::resume(&destination, id).unwrap().unwrap();
    assert!(resumed.stored().has(PieceIndex::new(2)));
    source.send_all(resumed.stored());
    resumed.finish().unwrap();
    assert_eq!(fs::read(&destination).unwrap(), fs::read(&source.path).unwrap());
}

#[test]
fn the_state_of_another_download_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    drop(begin(&Source::file(400_000, 65_536), &directory).unwrap());
    let other = Source::file(300_000, 65_536);
    let refused = begin(&other, &directory).err().unwrap();
    assert!(matches!(refused, StoreError::OtherDownload { .. }), "{refused}");
    let resumed = OneShot::resume(&directory.path().join("copy"), ContentId::of_manifest(b"no"));
    assert!(matches!(resumed, Err(StoreError::OtherDownload { .. })));
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
    let directory = tempfile::tempdir().unwrap();
    let destination = directory.path().join("copy");
    let source = Source::file(100_000, 65_536);
    fs::write(&destination, b"mine").unwrap();
    assert!(matches!(begin(&source, &directory), Err(StoreError::Exists(_))));
    assert_eq!(names(directory.path()), ["copy"]);
    fs::remove_file(&destination).unwrap();
    let download = begin(&source, &directory).unwrap();
    source.send_all(download.stored());
    fs::write(&destination, b"mine").unwrap();
    assert!(matches!(download.finish(), Err(StoreError::Exists(_))));
    assert_eq!(fs::read(&destination).unwrap(), b"mine");
    // Nothing is lost: after the file's removal, the download finishes at once.
    fs::remove_file(&destination).unwrap();
    begin(&source, &directory).unwrap().finish().unwrap();
}

#[test]
fn an_incomplete_download_cannot_be_finished() {
    let directory = tempfile::tempdir().unwrap();
    let download = begin(&Source::file(100_000, 65_536), &directory).unwrap();
    assert!(matches!(download.finish(), Err(StoreError::Incomplete(_))));
}

#[test]
fn the_state_of_a_download_killed_at_its_end_is_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let (destination, state) =
        (directory.path().join("copy"), directory.path().join(".copy.shoal"));
    let source = Source::file(200_000, 65_536);
    let id = source.stored.id();
    let download = begin(&source, &directory).unwrap();
    source.send_all(download.stored());
    let manifest = fs::read(state.join("manifest")).unwrap();
    download.finish().unwrap();
    // As if killed between moving the content and deleting the state.
    fs::create_dir(&state).unwrap();
    fs::write(state.join("manifest"), manifest).unwrap();
    OneShot::tidy(&destination, id).unwrap();
    assert_eq!(names(directory.path()), ["copy"]);

    // The state of an incomplete download stays.
    fs::remove_file(&destination).unwrap();
    drop(begin(&source, &directory).unwrap());
    OneShot::tidy(&destination, id).unwrap();
    assert_eq!(names(directory.path()), [".copy.shoal"]);
}
