//! A manifest that is fetched in pieces, like the files, because it is long.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use shoal_core::{
    content::{BlobNumber, BlockRange, PieceIndex},
    swarm::{Attempt, LinkKey},
};
use shoal_peer::store::{Accepted, OneShot, Store, StoreError, Stored};
use tempfile::TempDir;

use crate::support::{Source, bytes_of, finish, options, snapshot};

/// Files with long names.
const FILES: usize = 3_000;

/// Pieces of its manifest. Those of the pack of the files follow, and then those of a sparse file.
const MANIFEST_PIECES: u32 = 3;

/// A content with such a manifest.
fn source() -> Source {
    let source = Source::made(&options(65_536), |path| {
        for number in 0..FILES {
            let name = format!("{number}-{}", "long-name-".repeat(13));
            let mut file = File::create(path.join(name)).unwrap();
            file.write_all(format!("the bytes of file {number}\n").as_bytes()).unwrap();
        }
        let sparse = File::create(path.join("sparse")).unwrap();
        sparse.set_len(10 * 65_536).unwrap();
        sparse.write_all_at(b"x", 5 * 65_536).unwrap();
    });
    let manifest = BlobNumber::MANIFEST;
    assert!(source.descriptor().manifest_bytes() > 320 << 10);
    assert_eq!(source.stored.layout().pieces_of(manifest).len() as u32, MANIFEST_PIECES);
    source
}

/// A store that downloads it.
struct Bench<'a> {
    source: &'a Source,
    directory: TempDir,
}

impl<'a> Bench<'a> {
    fn new(source: &'a Source) -> Self {
        Self { source, directory: tempfile::tempdir().unwrap() }
    }

    /// Opens the store as after a crash.
    fn open(&self) -> (Store, Arc<Stored>) {
        let store = Store::open(&self.directory.path().join("store"), None).unwrap();
        let stored = store.add(self.source.descriptor_only()).unwrap();
        (store, stored)
    }

    fn inside(&self, name: &str) -> PathBuf {
        let contents = self.directory.path().join("store/contents");
        contents.join(self.source.stored.id().to_string()).join(name)
    }

    fn expect_complete(&self, store: &Store, stored: &Stored) {
        self.source.assert_same(stored);
        let copy = self.directory.path().join("copy");
        store.export(stored, &copy).unwrap();
        assert!(snapshot(&copy) == snapshot(&self.source.path));
    }
}

fn send(source: &Source, to: &Stored, pieces: impl IntoIterator<Item = u32>) {
    for piece in pieces {
        let sent = source.send(to, LinkKey(1), PieceIndex::new(piece)).unwrap();
        assert!(matches!(sent, Accepted::Stored { .. }), "{piece}: {sent:?}");
    }
}

fn held(stored: &Stored) -> Vec<u32> {
    stored.held().iter().map(PieceIndex::get).collect()
}

#[test]
fn the_pieces_of_a_manifest_come_first_and_tell_where_the_others_are() {
    let source = source();
    let bench = Bench::new(&source);
    let (store, stored) = bench.open();
    assert!(stored.manifest().is_none() && held(&stored).is_empty());
    let (known, all) = (stored.layout().known_pieces(), stored.layout().piece_count());
    assert_eq!((known, all), (MANIFEST_PIECES, source.stored.layout().piece_count()));
    assert_eq!(stored.held().piece_count(), all);
    // The place of a piece of a blob is not known yet.
    let early = source.stored.layout().whole(PieceIndex::new(MANIFEST_PIECES));
    let refused = stored.accept(LinkKey(1), Attempt(1), early, source.bytes(early));
    assert!(matches!(refused, Err(StoreError::Layout(_))));

    send(&source, &stored, (0..MANIFEST_PIECES).rev());
    assert!(stored.manifest().is_none(), "nobody has read it yet");
    // It can be passed on already.
    let block = stored.layout().whole(PieceIndex::new(2));
    assert_eq!(bytes_of(&stored, block).unwrap(), source.bytes(block));
    assert_eq!(stored.held_bytes(), 0);

    let holes = stored.learn_manifest().unwrap();
    assert_eq!(holes.len(), 9);
    assert!(holes.iter().all(|piece| stored.has(*piece)));
    assert_eq!(stored.held_bytes(), 9 * 65_536);
    assert!(stored.manifest() == source.stored.manifest());
    assert_eq!(stored.learn_manifest().unwrap(), [], "it was read before");
    source.send_all(&stored);
    stored.checkpoint().unwrap();
    bench.expect_complete(&store, &stored);
}

#[test]
fn a_wrong_piece_of_a_manifest_is_discarded_and_its_sender_named() {
    let source = source();
    let bench = Bench::new(&source);
    let (_store, stored) = bench.open();
    for piece in [0, MANIFEST_PIECES - 1].map(PieceIndex::new) {
        let block = stored.layout().whole(piece);
        let mut bytes = source.bytes(block).to_vec();
        bytes[1000] ^= 1;
        let accepted = stored.accept(LinkKey(7), Attempt(1), block, bytes.into()).unwrap();
        assert_eq!(accepted, Accepted::Corrupt { contributors: vec![LinkKey(7)] });
    }
    // Blocks of several neighbours become a piece of the manifest, as of any other blob.
    let layout = stored.layout();
    let piece = PieceIndex::new(1);
    for offset in (0..layout.length_of(piece)).step_by(16 << 10) {
        let block = BlockRange { piece, offset, length: 16 << 10 };
        let link = LinkKey(u64::from(offset));
        stored.accept(link, Attempt(2), block, source.bytes(block)).unwrap();
    }
    assert_eq!(held(&stored), [1]);
}

#[test]
fn a_download_is_resumed_in_the_middle_of_its_manifest() {
    let source = source();
    let bench = Bench::new(&source);
    let (store, stored) = bench.open();
    send(&source, &stored, [1]);
    drop((store, stored));
    let (store, stored) = bench.open();
    assert_eq!(held(&stored), [1]);
    send(&source, &stored, [0]);
    stored.checkpoint().unwrap();
    send(&source, &stored, [2]);
    drop((store, stored));

    // After a power cut, which lost one of the last pieces.
    let manifest = File::options().write(true).open(bench.inside("manifest")).unwrap();
    manifest.write_all_at(&[0; 1000], 2 * (256 << 10)).unwrap();
    reboot(&bench.inside("held.log"));
    let (store, stored) = bench.open();
    assert_eq!(held(&stored), [0, 1]);
    assert!(stored.manifest().is_none());
    send(&source, &stored, [2]);
    drop((store, stored));

    // The process was killed before it read the manifest.
    let (store, stored) = bench.open();
    assert!(stored.manifest() == source.stored.manifest());
    assert_eq!(stored.held_pieces(), MANIFEST_PIECES + 9);
    send(&source, &stored, [MANIFEST_PIECES]);
    drop((store, stored));
    let (_store, stored) = bench.open();
    assert_eq!(stored.held_pieces(), MANIFEST_PIECES + 9 + 1);
    source.send_all(&stored);
    source.assert_same(&stored);
}

/// Changes the boot id in the log, as if the machine had been rebooted.
fn reboot(log: &Path) {
    File::options().write(true).open(log).unwrap().write_all_at(&[7; 16], 8).unwrap();
}

#[test]
fn a_manifest_that_is_lost_or_damaged_is_fetched_again() {
    type Damage = fn(&Path);
    let damages: [(Damage, u32); 3] = [
        (|path| fs::remove_file(path).unwrap(), 0),
        (|path| File::options().write(true).open(path).unwrap().set_len(300_000).unwrap(), 1),
        (
            |path| {
                let file = File::options().write(true).open(path).unwrap();
                file.write_all_at(b"damage", 300_000).unwrap();
            },
            MANIFEST_PIECES - 1,
        ),
    ];
    let source = source();
    for is_checkpointed in [false, true] {
        for (damage, left) in damages {
            let bench = Bench::new(&source);
            let (store, stored) = bench.open();
            send(&source, &stored, 0..MANIFEST_PIECES);
            stored.learn_manifest().unwrap();
            source.send_all(&stored);
            if is_checkpointed {
                stored.checkpoint().unwrap();
            }
            drop((store, stored));
            damage(&bench.inside("manifest"));
            for _ in 0..2 {
                let (_store, stored) = bench.open();
                assert!(stored.manifest().is_none());
                assert_eq!(stored.held_pieces(), left);
            }
            let (_store, stored) = bench.open();
            let missing = (0..MANIFEST_PIECES).filter(|piece| !held(&stored).contains(piece));
            send(&source, &stored, missing.collect::<Vec<_>>());
            stored.learn_manifest().unwrap();
            source.send_all(&stored);
            source.assert_same(&stored);
        }
    }
}

#[test]
fn a_download_to_a_destination_is_resumed_in_the_middle_of_its_manifest() {
    let source = source();
    let directory = tempfile::tempdir().unwrap();
    let destination = directory.path().join("copy");
    let download = OneShot::begin(&destination, source.descriptor_only()).unwrap();
    send(&source, download.stored(), [0, 2]);
    assert!(matches!(finish(download), Err(StoreError::Incomplete(_))));
    let resumed = OneShot::resume(&destination, source.stored.id()).unwrap().unwrap();
    assert_eq!(held(resumed.stored()), [0, 2]);
    send(&source, resumed.stored(), [1]);
    resumed.stored().learn_manifest().unwrap();
    send(&source, resumed.stored(), [MANIFEST_PIECES]);
    drop(resumed);
    // Another neighbour may send the manifest whole.
    let resumed = OneShot::begin(&destination, source.metadata()).unwrap();
    assert_eq!(resumed.stored().held_pieces(), MANIFEST_PIECES + 9 + 1);
    source.send_all(resumed.stored());
    source.assert_same(&finish(resumed).unwrap());
    assert!(snapshot(&destination) == snapshot(&source.path));
}
