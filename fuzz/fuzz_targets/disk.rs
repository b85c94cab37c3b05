//! Data on the disk, intact or damaged: the log of held pieces, and the rows of the databases of
//! peers and ring nodes.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use shoal_core::content::{
    BlobNumber, Entry, Kind, Layout, MAX_MANIFEST_BYTES, Manifest, NewBlob, Part, PieceHash,
    PieceIndex, PieceLength, root_of,
};
use shoal_dht_node::fuzzing::{end, keep_configurations, kept_configurations, row, row_key};
use shoal_fuzz::{
    content::{Edit, pb},
    frugally,
    ring::id,
};
use shoal_peer::fuzzing::{
    check_columns, fingerprints, held_log, read_columns, read_held_log, read_rows,
};

const BOOT: [u8; 16] = [7; 16];

#[derive(Arbitrary, Debug)]
enum Found<'a> {
    HeldLog { boot: bool, values: Vec<u32>, rest: &'a [u8], pieces: u16 },
    HeldBytes { bytes: &'a [u8], pieces: u16 },
    Rows { descriptor: &'a [u8], hashes: &'a [u8] },
    SoundRows { manifest: Vec<u8>, edit: Option<Edit> },
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
        Found::Rows { descriptor, hashes } => {
            frugally(descriptor.len() + hashes.len(), || read_rows(descriptor, hashes));
        }
        Found::SoundRows { manifest, edit } => {
            let hashes: Vec<_> = manifest.iter().map(|byte| [*byte; 32]).collect();
            let bytes = Layout::MANIFEST_PIECE.get() as usize * hashes.len();
            let is_sound = (1..=MAX_MANIFEST_BYTES).contains(&(bytes as u64));
            let (descriptor, hashes) = (descriptor(bytes, &hashes), hashes.concat());
            assert_eq!(read_rows(&descriptor, &hashes), is_sound);
            let mut edited = hashes.clone();
            edit.into_iter().for_each(|edit| edit.make(&mut edited));
            assert!(edited == hashes || !read_rows(&descriptor, &edited), "damage is not noticed");
        }
        Found::Fingerprints { bytes, files } => {
            let manifest = manifest(files);
            if let Some(again) = frugally(bytes.len(), || fingerprints(&manifest, bytes)) {
                assert_eq!(again, bytes);
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

/// The descriptor of a content without blobs, whose manifest has pieces with these hashes.
fn descriptor(manifest_bytes: usize, hashes: &[PieceHash]) -> Vec<u8> {
    let descriptor = pb::Descriptor {
        format_version: 2,
        name: b"tree".to_vec(),
        piece_length: PieceLength::MIN.get().into(),
        manifest_bytes: manifest_bytes as u64,
        manifest_root: root_of(hashes).to_vec(),
        ..Default::default()
    };
    descriptor.encode_to_vec()
}

/// A directory with this many files: every third equals the one before, every fifth is empty.
fn manifest(files: u8) -> Manifest {
    let (mut blobs, mut parts): (Vec<NewBlob>, Vec<Part>) = (Vec::new(), Vec::new());
    for number in 0..files {
        let last = parts.last().copied();
        parts.push(match (number, last) {
            (_, Some(last)) if number % 3 == 2 => last,
            _ if number % 5 == 4 => Part::empty(),
            _ => {
                let blob = NewBlob { size: 1, hashes: vec![[number; 32]], holes: Vec::new() };
                let root = blob.root();
                blobs.push(blob);
                let blob = BlobNumber::new(blobs.len() as u32);
                Part { blob: Some(blob), offset: 0, size: 1, root }
            }
        });
    }
    let names: Vec<_> = (0..files).map(|number| format!("{number:03}")).collect();
    let files = names
        .iter()
        .zip(parts)
        .map(|(name, part)| (1, name.as_bytes(), Kind::File { part, executable: false }));
    let entries = [(0, &b""[..], Kind::Directory)].into_iter().chain(files);
    let entries = entries.map(|(depth, name, kind)| Entry {
        depth,
        name,
        kind,
        private: false,
        attributes: None,
    });
    Manifest::new(b"tree", PieceLength::MIN, &blobs, entries).expect("a sound manifest")
}

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
