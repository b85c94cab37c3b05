//! Files that share a blob: equal ones, and short ones in a pack.

use std::{
    ffi::OsStr,
    fs::{self, File, Permissions},
    mem::MaybeUninit,
    os::unix::{ffi::OsStrExt as _, fs::FileExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use proptest::prelude::*;
use shoal_core::content::{
    BlobNumber, BlockRange, Entry, Kind, Manifest, Metadata, NewBlob, Part, PieceLength,
};
use shoal_peer::store::{OneShot, Store, StoreError, Stored};
use tempfile::TempDir;

use crate::support::{
    Source, blob_piece, bytes_of, finish, hashed, mode, names, noise, options, snapshot, umask,
};

const PIECE: usize = 65_536;

/// The first blob of a content.
const PACK: BlobNumber = BlobNumber::new(1);

/// A store with a complete copy.
fn copied(source: &Source) -> (TempDir, Store, Arc<Stored>) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store"), None).unwrap();
    let copy = source.add_to(&store);
    source.send_all(&copy);
    (directory, store, copy)
}

/// Files of these lengths, shorter than a piece and different, in several directories.
fn short_files(lengths: &[usize]) -> Source {
    Source::made(&options(PIECE as u64), |path| {
        for (number, length) in lengths.iter().enumerate() {
            let directory = path.join(format!("directory-{}", number % 3));
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join(number.to_string()), noise(*length, number as u8)).unwrap();
        }
    })
}

/// The bytes of the first blob: those of its files, one after the other.
fn pack_of(source: &Source) -> Vec<u8> {
    let manifest = source.manifest();
    let files = manifest.files_of(PACK).iter();
    let paths = files.map(|file| PathBuf::from(OsStr::from_bytes(&manifest.path_of(*file))));
    paths.flat_map(|path| fs::read(source.path.join(path)).unwrap()).collect()
}

#[test]
fn equal_files_are_stored_and_sent_once() {
    let (long, short) = (noise(100_000, 1), noise(5, 2));
    let source = Source::made(&options(PIECE as u64), |path| {
        fs::create_dir(path.join("sub")).unwrap();
        for name in ["a", "b", "sub/program"] {
            fs::write(path.join(name), &long).unwrap();
        }
        for name in ["c", "sub/d"] {
            fs::write(path.join(name), &short).unwrap();
        }
        fs::write(path.join("e"), noise(7, 3)).unwrap();
        fs::set_permissions(path.join("sub/program"), Permissions::from_mode(0o755)).unwrap();
    });
    assert_eq!(source.descriptor().blob_bytes(), 100_000 + 5 + 7);
    assert_eq!(source.descriptor().piece_count(), 1 + 2 + 1);
    let (directory, store, copy) = copied(&source);
    assert_eq!(names(&copy.path().join("blobs")), ["1", "2"]);
    source.assert_same(&copy);

    let (exported, moved) = (directory.path().join("exported"), directory.path().join("moved"));
    store.export(&copy, &exported).unwrap();
    let download = OneShot::begin(&moved, source.metadata()).unwrap();
    source.send_all(download.stored());
    finish(download).unwrap();
    for path in [&exported, &moved] {
        assert_eq!(snapshot(path), snapshot(&source.path));
        let modes = ["a", "sub/program"].map(|name| mode(&path.join(name)));
        assert_eq!(modes, [0o644, 0o755].map(|mode| mode & !umask()));
        // They are files of their own there: an edit of one changes no other.
        for name in ["a", "c"] {
            let file = File::options().write(true).open(path.join(name)).unwrap();
            file.write_all_at(b"edit", 0).unwrap();
        }
        for (name, bytes) in [("b", &long), ("sub/program", &long), ("sub/d", &short)] {
            assert!(fs::read(path.join(name)).unwrap() == *bytes, "{name}");
        }
    }
}

#[test]
fn an_equal_file_is_served_from_the_first_which_is_watched_for_changes() {
    let source = Source::made(&options(PIECE as u64), |path| {
        for name in ["first", "second"] {
            fs::write(path.join(name), noise(100_000, 1)).unwrap();
        }
    });
    let read = || bytes_of(&source.stored, source.stored.layout().whole(blob_piece(0)));
    fs::write(source.path.join("second"), "another").unwrap();
    read().unwrap();
    fs::write(source.path.join("first"), "another").unwrap();
    let first = source.path.join("first");
    assert!(matches!(read(), Err(StoreError::SourceChanged(path)) if path == first));
}

#[test]
fn a_changed_file_of_a_pack_spoils_only_its_own_pieces() {
    // Five pieces, of which the third has bytes of the files 3 and 4.
    let source = short_files(&[PIECE - 1, 60_000, 3, 1, 2, PIECE - 1, 60_000, 50_000]);
    let layout = source.stored.layout();
    let files = source.manifest().files_of(PACK).to_vec();
    let last = files[files.len() - 1];
    let path = source.path.join(OsStr::from_bytes(&source.manifest().path_of(last)));
    fs::write(&path, "another").unwrap();
    let pieces: Vec<_> = layout.pieces_of(PACK).collect();
    let part = source.manifest().entry(last).part().unwrap();
    let spoilt: Vec<_> =
        layout.pieces_within(PACK, &(part.offset..part.offset + part.size)).collect();
    assert!(!spoilt.is_empty() && spoilt.len() < pieces.len());
    for piece in pieces {
        let outcome = bytes_of(&source.stored, layout.whole(piece));
        if spoilt.contains(&piece) {
            assert!(matches!(outcome, Err(StoreError::SourceChanged(changed)) if changed == path));
        } else {
            outcome.unwrap();
        }
    }
}

#[test]
fn a_pack_in_place_is_served_after_a_restart_if_no_file_of_it_changed() {
    let source = short_files(&[100, 200, 300]);
    let directory = tempfile::tempdir().unwrap();
    let open = || Store::open(directory.path(), None).unwrap();
    let id = open().add_in_place(hashed(&source.path, PIECE as u64)).unwrap().id();
    source.assert_same(&open().load(id).unwrap());
    let second = source.path.join("directory-1/1");
    fs::write(&second, noise(200, 77)).unwrap();
    let refused = open().load(id).err().unwrap();
    assert!(matches!(&refused, StoreError::SourceChanged(path) if *path == second), "{refused}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_pack_is_read_byte_for_byte_in_place_and_from_a_directory(
        lengths in prop::collection::vec(prop_oneof![1..20_usize, 1..PIECE], 2..20),
        blocks in prop::collection::vec((any::<u32>(), any::<u32>(), 1_u32..PIECE as u32), 20),
    ) {
        let source = short_files(&lengths);
        let pack = pack_of(&source);
        prop_assume!(source.manifest().files_of(PACK).len() > 1);
        let (_directory, _store, copy) = copied(&source);
        let layout = source.stored.layout();
        let whole = layout.pieces_of(PACK).map(|piece| layout.whole(piece));
        let some = blocks.into_iter().map(|(piece, offset, length)| {
            let piece = blob_piece(piece % layout.pieces_of(PACK).len() as u32);
            let offset = offset % layout.length_of(piece);
            let length = length.min(layout.length_of(piece) - offset);
            BlockRange { piece, offset, length }
        });
        for block in whole.chain(some) {
            let start = layout.span(block.piece).offset as usize + block.offset as usize;
            let expected = &pack[start..start + block.length as usize];
            for stored in [&source.stored, &copy] {
                prop_assert!(bytes_of(stored, block).unwrap() == expected);
                let mut buffer = vec![MaybeUninit::new(0); block.length as usize];
                stored.read_uninit(block, &mut buffer).unwrap();
                // SAFETY: it was initialised before it was filled.
                let read: Vec<u8> =
                    buffer.iter().map(|byte| unsafe { byte.assume_init() }).collect();
                prop_assert!(read == expected);
            }
        }
    }
}

/// The manifest of a publisher that is wrong about the hash of each file in its pack.
fn with_wrong_roots(manifest: &Manifest) -> Manifest {
    let layout = manifest.layout();
    let blobs = layout.blobs().skip(1).map(|blob| NewBlob {
        size: layout.size_of(blob),
        hashes: layout.pieces_of(blob).map(|piece| *manifest.hash_of(piece)).collect(),
        holes: Vec::new(),
    });
    let entries = manifest.entries().map(|(_, entry)| match entry.kind {
        Kind::File { part, executable } => {
            let kind = Kind::File { part: Part { root: [7; 32], ..part }, executable };
            Entry { kind, ..entry }
        }
        _ => entry,
    });
    Manifest::new(b"model", PieceLength::MIN, &blobs.collect::<Vec<_>>(), entries).unwrap()
}

#[test]
fn a_file_of_a_pack_with_another_hash_than_the_manifest_says_is_not_delivered() {
    let source = short_files(&[100]);
    fs::write(source.path.join("other"), "other").unwrap();
    let source_of_two = hashed(&source.path, PIECE as u64);
    let wrong = Metadata::Manifest(with_wrong_roots(&source_of_two.manifest));
    let right = Stored::in_place(source_of_two);
    let piece = right.layout().whole(blob_piece(0));
    let bytes = bytes_of(&right, piece).unwrap();
    let send = |to: &Stored| {
        let (link, attempt) = (shoal_core::swarm::LinkKey(1), shoal_core::swarm::Attempt(1));
        to.accept(link, attempt, piece, bytes.clone().into()).unwrap();
        assert!(to.is_complete());
    };
    let here = tempfile::tempdir().unwrap();
    let place = |name: &str| here.path().join(name);
    let store = Store::open(&place("store"), None).unwrap();
    let stored = store.add(wrong.clone()).unwrap();
    send(&stored);
    let is_wrong = |error: &StoreError, shown: &Path| matches!(error, StoreError::WrongRoot(path) if path.starts_with(shown));
    let refused = store.export(&stored, &place("copy")).err().unwrap();
    assert!(is_wrong(&refused, &place("copy")), "{refused}");
    assert_eq!(names(here.path()), ["store"]);
    let download = OneShot::begin(&place("copy"), wrong).unwrap();
    send(download.stored());
    let refused = finish(download).err().unwrap();
    assert!(is_wrong(&refused, here.path()), "{refused}");
    assert!(!place("copy").exists());
}
