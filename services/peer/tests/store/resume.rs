use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use shoal_core::{content::ContentId, swarm::LinkKey};
use shoal_peer::store::{Store, Stored};
use tempfile::TempDir;

use crate::support::{Source, blob_piece, held_blob_pieces};

const PIECE_LENGTH: u64 = 65_536;

/// A store with a download of ten pieces.
struct Begun {
    directory: TempDir,
    source: Source,
}

impl Begun {
    fn new() -> Self {
        let source = Source::file(10 * PIECE_LENGTH as usize, PIECE_LENGTH);
        Self { directory: tempfile::tempdir().unwrap(), source }
    }

    fn id(&self) -> ContentId {
        self.source.stored.id()
    }

    fn inside(&self, name: &str) -> PathBuf {
        self.directory.path().join("contents").join(self.id().to_string()).join(name)
    }

    /// Opens the store as after a crash: nothing was flushed or closed explicitly.
    fn open(&self) -> (Store, Arc<Stored>) {
        let store = Store::open(self.directory.path(), None).unwrap();
        let download = self.source.add_to(&store);
        (store, download)
    }

    fn send(&self, to: &Stored, pieces: impl IntoIterator<Item = u32>) {
        for piece in pieces {
            self.source.send(to, LinkKey(1), blob_piece(piece)).unwrap();
        }
    }

    fn held(&self) -> Vec<u32> {
        let (_store, download) = self.open();
        held_blob_pieces(&download)
    }

    fn complete(&self) {
        let (_store, download) = self.open();
        self.source.send_all(&download);
        self.source.assert_same(&download);
    }
}

/// Changes the boot id in the log, as if the machine had been rebooted.
fn reboot(log: &Path) {
    File::options().write(true).open(log).unwrap().write_all_at(&[7; 16], 8).unwrap();
}

/// Zeroes a piece, as if its data had not reached the disk.
fn lose(data: &Path, piece: u64) {
    let file = File::options().write(true).open(data).unwrap();
    file.write_all_at(&vec![0; PIECE_LENGTH as usize], piece * PIECE_LENGTH).unwrap();
}

#[test]
fn a_killed_process_loses_no_piece() {
    let begun = Begun::new();
    let (store, download) = begun.open();
    begun.send(&download, [7, 0, 3]);
    drop((store, download));
    assert_eq!(begun.held(), [0, 3, 7]);
    begun.complete();
}

#[test]
fn a_torn_record_at_the_end_of_the_log_is_ignored() {
    for torn in [&[1, 0, 0][..], &[0; 8], &[9, 0, 0, 0, 1, 2, 3, 4], &[0xff; 50]] {
        let begun = Begun::new();
        let (store, download) = begun.open();
        begun.send(&download, [2, 5]);
        drop((store, download));
        let log = begun.inside("held.log");
        File::options().append(true).open(&log).unwrap().write_all(torn).unwrap();
        assert_eq!(begun.held(), [2, 5], "{torn:?}");
        let (store, download) = begun.open();
        begun.send(&download, [6]);
        drop((store, download));
        assert_eq!(begun.held(), [2, 5, 6], "{torn:?}");
    }
}

#[test]
fn a_log_truncated_anywhere_lists_only_stored_pieces() {
    let begun = Begun::new();
    let (store, download) = begun.open();
    begun.send(&download, [4, 1, 8]);
    drop((store, download));
    let log = begun.inside("held.log");
    let bytes = fs::read(&log).unwrap();
    for end in (0..bytes.len()).rev() {
        fs::write(&log, &bytes[..end]).unwrap();
        let held = begun.held();
        assert!(held.iter().all(|piece| [1, 4, 8].contains(piece)), "{end}: {held:?}");
    }
    begun.complete();
}

#[test]
fn after_a_reboot_only_pieces_since_the_checkpoint_are_hashed_again() {
    let begun = Begun::new();
    let (store, download) = begun.open();
    begun.send(&download, [0, 1, 2]);
    download.checkpoint().unwrap();
    begun.send(&download, [3, 4, 5]);
    drop((store, download));
    // Piece 1 is lost unnoticed: pieces before the checkpoint are not hashed again.
    lose(&begun.inside("blobs/1"), 1);
    lose(&begun.inside("blobs/1"), 4);
    assert_eq!(begun.held(), [0, 1, 2, 3, 4, 5]);
    reboot(&begun.inside("held.log"));
    assert_eq!(begun.held(), [0, 1, 2, 3, 5]);
    // The pieces that were hashed again now count as before the checkpoint.
    lose(&begun.inside("blobs/1"), 5);
    reboot(&begun.inside("held.log"));
    assert_eq!(begun.held(), [0, 1, 2, 3, 5]);
}

#[test]
fn files_that_a_reboot_lost_are_fetched_again() {
    let begun = Begun::new();
    let (store, download) = begun.open();
    begun.send(&download, [0, 1, 2]);
    drop((store, download));
    fs::remove_file(begun.inside("blobs/1")).unwrap();
    reboot(&begun.inside("held.log"));
    assert!(begun.held().is_empty());
    begun.complete();
}

#[test]
fn deleted_or_truncated_pieces_are_fetched_again_and_never_served() {
    let cut = |data: &Path, bytes| {
        File::options().write(true).open(data).unwrap().set_len(bytes).unwrap();
    };
    for pieces in [vec![0, 1, 2, 3], (0..10).collect()] {
        let begun = Begun::new();
        let (store, download) = begun.open();
        begun.send(&download, pieces);
        download.checkpoint().unwrap();
        drop((store, download));
        cut(&begun.inside("blobs/1"), 2 * PIECE_LENGTH + 1);
        for _ in 0..2 {
            assert_eq!(begun.held(), [0, 1], "the remaining pieces are kept, and logged");
        }
        fs::remove_file(begun.inside("blobs/1")).unwrap();
        for _ in 0..2 {
            assert!(begun.held().is_empty());
        }
        begun.complete();
    }
}

#[test]
fn a_checkpoint_is_due_after_64_mib() {
    let source = Source::file(65 << 20, 1 << 20);
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), None).unwrap();
    let download = source.add_to(&store);
    assert!(!download.is_checkpoint_due());
    for piece in 0..64 {
        source.send(&download, LinkKey(1), blob_piece(piece)).unwrap();
    }
    assert!(download.is_checkpoint_due());
    download.checkpoint().unwrap();
    assert!(!download.is_checkpoint_due());
}
