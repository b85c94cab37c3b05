//! Data on the disk, intact or damaged: the log of held pieces, and the rows of the databases of
//! peers and ring nodes.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use shoal_core::content::PieceIndex;
use shoal_dht_node::fuzzing::{end, keep_configurations, kept_configurations, row, row_key};
use shoal_fuzz::{frugally, ring::id};
use shoal_peer::fuzzing::{
    check_columns, fingerprints, held_log, read_columns, read_held_log, read_rows,
};

const BOOT: [u8; 16] = [7; 16];

#[derive(Arbitrary, Debug)]
enum Found<'a> {
    HeldLog { boot: bool, values: Vec<u32>, rest: &'a [u8], pieces: u16 },
    HeldBytes { bytes: &'a [u8], pieces: u16 },
    Rows { manifest: &'a [u8], hashes: &'a [u8], fingerprints: Option<&'a [u8]> },
    Fingerprints { bytes: &'a [u8], files: u8 },
    Columns(&'a [u8]),
    Record(&'a [u8]),
    RowKey(&'a [u8]),
    End(&'a [u8]),
    Configurations(&'a [u8]),
}

fuzz_target!(|found: Found| {
    match found {
        Found::HeldLog { boot, values, rest, pieces } => {
            let boot = if boot { BOOT } else { [8; 16] };
            let mut bytes = held_log(boot, &values);
            check_held(&bytes, pieces.into());
            bytes.extend(rest);
            check_held(&bytes, pieces.into());
        }
        Found::HeldBytes { bytes, pieces } => check_held(bytes, pieces.into()),
        Found::Rows { manifest, hashes, fingerprints } => {
            let bytes = manifest.len() + hashes.len() + fingerprints.map_or(0, <[u8]>::len);
            frugally(bytes, || read_rows(manifest, hashes, fingerprints));
        }
        Found::Fingerprints { bytes, files } => {
            let files = usize::from(files);
            if let Some(again) = frugally(bytes.len(), || fingerprints(bytes, files)) {
                assert_eq!(fingerprints(&again, files).as_ref(), Some(&again));
            }
        }
        Found::Columns(bytes) => {
            frugally(bytes.len(), || read_columns(bytes));
            check_columns(bytes);
        }
        Found::Record(bytes) => assert_same(bytes, row),
        Found::RowKey(bytes) => assert_same(bytes, row_key),
        Found::End(bytes) => assert_same(bytes, end),
        Found::Configurations(bytes) => {
            let Some(kept) = kept_configurations(bytes, id(7)) else { return };
            assert_eq!(kept_configurations(&keep_configurations(&kept), id(7)), Some(kept));
        }
    }
});

/// A row that is read is written back unchanged.
fn assert_same(bytes: &[u8], read: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    if let Some(again) = frugally(bytes.len(), || read(bytes)) {
        assert_eq!(again, bytes);
    }
}

/// A piece is held or doubtful, not both, and belongs to the content.
fn check_held(bytes: &[u8], pieces: u32) {
    // A bitfield takes one bit for each piece.
    let log = frugally(bytes.len() + pieces as usize, || read_held_log(bytes, pieces, BOOT));
    assert!(log.doubtful.iter().all(|piece| piece.get() < pieces && !log.held.has(*piece)));
    assert!(log.unsynced.iter().all(|piece| log.held.has(*piece)));
    assert!(log.doubtful.is_empty() || log.unsynced.is_empty());
    let held: Vec<u32> = log.held.iter().map(PieceIndex::get).collect();
    assert!(held.iter().all(|piece| *piece < pieces));
    // A log of these pieces, from the same boot, reads the same.
    let again = read_held_log(&held_log(BOOT, &held), pieces, BOOT);
    assert_eq!(again.held, log.held);
}
