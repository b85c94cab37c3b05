use std::{collections::BTreeSet, fs, thread};

use bytes::Bytes;
use proptest::prelude::*;
use shoal_common::lock::Mutex;
use shoal_core::{
    content::{BlockRange, PieceIndex},
    swarm::{Attempt, LinkKey},
};
use shoal_peer::store::{Accepted, OneShot, Store, StoreError};

use crate::support::{MIB, Source, blob_piece, finish, options, snapshot};

const ALICE: LinkKey = LinkKey(1);
const MALLORY: LinkKey = LinkKey(2);
const PIECE: PieceIndex = blob_piece(0);
const FIRST: Attempt = Attempt(1);
const SECOND: Attempt = Attempt(2);

/// A piece that stays in memory until it is complete, and one that is written as it arrives.
const BOTH_WAYS: [usize; 2] = [256 << 10, 2 * MIB];

fn garbled(bytes: &Bytes) -> Bytes {
    bytes.iter().map(|byte| byte ^ 1).collect()
}

fn stored(piece: PieceIndex) -> Accepted {
    Accepted::Stored { pieces: vec![piece], liars: Vec::new() }
}

#[test]
fn duplicate_blocks_are_reported() {
    for length in BOTH_WAYS {
        let source = Source::file(length, length as u64);
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), None).unwrap();
        let download = source.add_to(&store);
        let blocks = source.blocks(PIECE, length as u32 / 4);
        let send = |(block, bytes): &(BlockRange, Bytes)| {
            download.accept(ALICE, FIRST, *block, bytes.clone()).unwrap()
        };
        for block in &blocks[..3] {
            assert_eq!(send(block), Accepted::Partial);
            assert_eq!(send(block), Accepted::Duplicate);
        }
        assert_eq!(download.held_bytes(), 0);
        assert_eq!(send(&blocks[3]), stored(PIECE));
        assert_eq!(send(&blocks[3]), Accepted::Duplicate);
        assert_eq!(download.held_bytes(), length as u64);
    }
}

#[test]
fn the_only_contributor_to_a_corrupt_piece_is_named() {
    for length in BOTH_WAYS {
        let source = Source::file(length, length as u64);
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), None).unwrap();
        let download = source.add_to(&store);
        let whole = source.stored.layout().whole(PIECE);
        let bytes = source.bytes(whole);
        assert_eq!(
            download.accept(MALLORY, FIRST, whole, garbled(&bytes)).unwrap(),
            Accepted::Corrupt { contributors: vec![MALLORY] }
        );
        assert!(!download.has(PIECE));
        assert!(matches!(
            download.read(whole, &mut vec![0; length]),
            Err(StoreError::NotHeld(PIECE))
        ));
        assert_eq!(source.send(&download, ALICE, PIECE).unwrap(), stored(PIECE));
    }
}

#[test]
fn a_liar_among_several_contributors_is_found_once_the_piece_is_correct() {
    for length in BOTH_WAYS {
        let source = Source::file(length, length as u64);
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), None).unwrap();
        let download = source.add_to(&store);
        let blocks = source.blocks(PIECE, 64 << 10);
        let last = blocks.len() - 1;
        for (number, (block, bytes)) in blocks.iter().enumerate().rev() {
            let lies = number % 3 == 1;
            let (from, bytes) =
                if lies { (MALLORY, garbled(bytes)) } else { (ALICE, bytes.clone()) };
            let accepted = download.accept(from, FIRST, *block, bytes).unwrap();
            match number {
                0 => assert_eq!(accepted, Accepted::Corrupt { contributors: vec![ALICE, MALLORY] }),
                _ => assert_eq!(accepted, Accepted::Partial),
            }
        }
        for (block, bytes) in &blocks[..last] {
            let accepted = download.accept(ALICE, SECOND, *block, bytes.clone()).unwrap();
            assert_eq!(accepted, Accepted::Partial);
        }
        let (block, bytes) = blocks[last].clone();
        assert_eq!(
            download.accept(ALICE, SECOND, block, bytes).unwrap(),
            Accepted::Stored { pieces: vec![PIECE], liars: vec![MALLORY] }
        );
    }
}

#[test]
fn blocks_of_two_attempts_are_never_mixed() {
    for length in BOTH_WAYS {
        let source = Source::file(length, length as u64);
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), None).unwrap();
        let download = source.add_to(&store);
        let blocks = source.blocks(PIECE, length as u32 / 4);
        let send = |from, attempt, number: usize, lies: bool| {
            let (block, bytes) = &blocks[number];
            let bytes = if lies { garbled(bytes) } else { bytes.clone() };
            download.accept(from, attempt, *block, bytes).unwrap()
        };
        assert_eq!(send(MALLORY, FIRST, 0, true), Accepted::Partial);
        assert_eq!(send(ALICE, SECOND, 0, false), Accepted::Partial, "not a duplicate");
        assert_eq!(send(MALLORY, FIRST, 1, true), Accepted::Stale);
        for number in [1, 2] {
            assert_eq!(send(ALICE, SECOND, number, false), Accepted::Partial);
        }
        assert_eq!(send(ALICE, SECOND, 3, false), stored(PIECE));
        assert_eq!(send(MALLORY, FIRST, 1, true), Accepted::Duplicate);
    }
}

#[test]
fn an_attempt_that_failed_or_was_abandoned_accepts_no_more_blocks() {
    for length in BOTH_WAYS {
        let source = Source::file(length, length as u64);
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path(), None).unwrap();
        let download = source.add_to(&store);
        let blocks = source.blocks(PIECE, length as u32 / 2);
        let send = |attempt, number: usize| {
            let (block, bytes) = &blocks[number];
            download.accept(ALICE, attempt, *block, bytes.clone()).unwrap()
        };
        let whole = source.stored.layout().whole(PIECE);
        let garbage = garbled(&source.bytes(whole));
        let corrupt = Accepted::Corrupt { contributors: vec![MALLORY] };
        assert_eq!(download.accept(MALLORY, FIRST, whole, garbage).unwrap(), corrupt);
        assert_eq!(send(FIRST, 0), Accepted::Stale);
        assert_eq!(send(SECOND, 0), Accepted::Partial);
        download.abandon(PIECE, FIRST);
        assert_eq!(send(SECOND, 0), Accepted::Duplicate, "another attempt was abandoned");
        download.abandon(PIECE, SECOND);
        assert_eq!(send(SECOND, 1), Accepted::Stale);
        assert_eq!(send(Attempt(3), 1), Accepted::Partial);
        assert_eq!(send(Attempt(3), 0), stored(PIECE));
        download.abandon(PIECE, Attempt(9));
        assert!(download.has(PIECE));
    }
}

#[test]
fn blocks_that_do_not_fit_the_content_are_refused() {
    let source = Source::file(100_000, 65_536);
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), None).unwrap();
    let download = source.add_to(&store);
    let accept = |piece, offset, length, bytes| {
        let block = BlockRange { piece: PieceIndex::new(piece), offset, length };
        download.accept(ALICE, FIRST, block, Bytes::from(vec![0; bytes]))
    };
    assert!(matches!(accept(3, 0, 10, 10), Err(StoreError::Layout(_))));
    assert!(matches!(accept(2, 34_000, 1000, 1000), Err(StoreError::Layout(_))));
    assert!(matches!(accept(1, u32::MAX, 10, 10), Err(StoreError::Layout(_))));
    assert!(matches!(accept(1, 0, 10, 11), Err(StoreError::WrongLength { actual: 11, .. })));
    assert!(matches!(accept(1, 0, 0, 0), Err(StoreError::WrongLength { actual: 0, .. })));
}

#[test]
fn a_download_by_many_threads_reports_each_piece_once() {
    let source = Source::file(16 * MIB + 3, 64 << 10);
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), None).unwrap();
    let download = source.add_to(&store);
    let reported = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for neighbour in 0..4_u32 {
            let (source, download, reported) = (&source, &download, &reported);
            scope.spawn(move || {
                let count = source.stored.layout().piece_count();
                for number in 0..count {
                    let piece = PieceIndex::new((number + neighbour * count / 4) % count);
                    for (block, bytes) in source.blocks(piece, 16 << 10) {
                        let link = LinkKey(neighbour.into());
                        match download.accept(link, FIRST, block, bytes).unwrap() {
                            Accepted::Stored { pieces, .. } => reported.lock().extend(pieces),
                            Accepted::Corrupt { .. } => panic!("a correct piece was corrupt"),
                            Accepted::Partial | Accepted::Duplicate => {}
                            Accepted::Stale => panic!("there is one attempt"),
                        }
                    }
                }
            });
        }
    });
    let reported = reported.into_inner();
    assert_eq!(reported.len() as u32 + 1, download.layout().piece_count(), "all but the manifest");
    assert_eq!(reported.iter().collect::<BTreeSet<_>>().len(), reported.len());
    source.assert_same(&download);
}

#[test]
fn more_begun_pieces_than_the_memory_limit_are_completed() {
    let source = Source::file(70 * MIB, MIB as u64);
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), None).unwrap();
    let download = source.add_to(&store);
    for half in [1, 0] {
        for piece in source.stored.layout().pieces().skip(1) {
            let (block, bytes) = source.blocks(piece, MIB as u32 / 2).swap_remove(half);
            download.accept(ALICE, FIRST, block, bytes).unwrap();
        }
    }
    source.assert_same(&download);
}

#[test]
fn a_download_of_a_thousand_files_keeps_less_than_300_open() {
    // Distinct, and as long as a piece: each becomes a file of the store.
    let source = Source::made(&options(64 << 10), |path| {
        for number in 0..1000_u32 {
            let mut bytes = vec![7; 64 << 10];
            bytes[..4].copy_from_slice(&number.to_le_bytes());
            fs::write(path.join(number.to_string()), bytes).unwrap();
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), None).unwrap();
    let download = source.add_to(&store);
    source.send_all(&download);
    let open = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .filter(|file| file.starts_with(directory.path()))
        .count();
    assert!(open < 300, "{open} files are open");
    source.assert_same(&download);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn blocks_in_any_order_and_of_any_size_become_the_same_files(
        lengths in prop::collection::vec(0_usize..3 * MIB, 1..4),
        piece_length in prop::sample::select(vec![64_u64 << 10, 2 << 20]),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<u32>(), 1_u32..300_000, 1..4_u64), 0..60),
        order in any::<u64>(),
    ) {
        let source = Source::tree(&lengths, piece_length);
        let layout = source.stored.layout();
        // Some random and overlapping blocks, and then all blocks.
        let mut blocks: Vec<_> = cuts
            .into_iter()
            .map(|(piece, offset, length, from)| {
                let piece = PieceIndex::new(piece.index(layout.piece_count() as usize) as u32);
                let whole = layout.length_of(piece);
                let offset = offset % whole;
                (LinkKey(from), BlockRange { piece, offset, length: length.min(whole - offset) })
            })
            .collect();
        let mut rest: Vec<_> = layout
            .pieces()
            .flat_map(|piece| source.blocks(piece, 100_000))
            .map(|(block, _)| (LinkKey(9), block))
            .collect();
        rest.sort_by_key(|(_, block)| blake3::hash(&[order.to_le_bytes(), (u64::from(block.piece.get()) << 32 | u64::from(block.offset)).to_le_bytes()].concat()).to_hex());
        blocks.extend(rest);

        let directory = tempfile::tempdir().unwrap();
        let destination = directory.path().join("copy");
        let download = OneShot::begin(&destination, source.metadata()).unwrap();
        for (from, block) in blocks {
            let accepted = download.stored().accept(from, FIRST, block, source.bytes(block)).unwrap();
            let is_corrupt = matches!(accepted, Accepted::Corrupt { .. });
            prop_assert!(!is_corrupt);
        }
        finish(download).unwrap();
        prop_assert_eq!(snapshot(&destination), snapshot(&source.path));
    }
}
