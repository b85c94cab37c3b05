#![expect(clippy::single_range_in_vec_init, reason = "runs of holes are ranges")]

use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::content::{MAX_PIECE_COUNT, file_name::check_name};

/// The messages as prost would define them, for comparison.
mod pb {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Manifest {
        #[prost(message, repeated, tag = "1")]
        pub(super) blobs: Vec<Blob>,
        #[prost(message, repeated, tag = "2")]
        pub(super) entries: Vec<Entry>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Blob {
        #[prost(uint64, tag = "1")]
        pub(super) size: u64,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) root: Vec<u8>,
        #[prost(bytes = "vec", tag = "3")]
        pub(super) piece_hashes: Vec<u8>,
        #[prost(uint32, repeated, tag = "4")]
        pub(super) holes: Vec<u32>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Entry {
        #[prost(uint32, tag = "1")]
        pub(super) depth: u32,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) name: Vec<u8>,
        #[prost(bool, tag = "3")]
        pub(super) directory: bool,
        #[prost(uint32, tag = "4")]
        pub(super) blob: u32,
        #[prost(uint64, tag = "5")]
        pub(super) offset: u64,
        #[prost(uint64, tag = "6")]
        pub(super) size: u64,
        #[prost(bytes = "vec", tag = "7")]
        pub(super) root: Vec<u8>,
        #[prost(bytes = "vec", tag = "8")]
        pub(super) target: Vec<u8>,
        #[prost(bool, tag = "9")]
        pub(super) executable: bool,
        #[prost(bool, tag = "10")]
        pub(super) private: bool,
        #[prost(uint32, tag = "11")]
        pub(super) mode: u32,
        #[prost(sint64, tag = "12")]
        pub(super) modified_ns: i64,
    }
}

const PIECE: u64 = 65_536;

/// A blob whose pieces all have the same hash.
fn blob(size: u64) -> NewBlob {
    NewBlob { size, hashes: vec![[size as u8; 32]; size.div_ceil(PIECE) as usize], holes: vec![] }
}

fn whole(number: u32, blob: &NewBlob) -> Part {
    let blob_number = Some(BlobNumber::new(number));
    Part { blob: blob_number, offset: 0, size: blob.size, root: blob.root() }
}

fn part(number: u32, offset: u64, size: u64) -> Part {
    Part { blob: Some(BlobNumber::new(number)), offset, size, root: [size as u8; 32] }
}

fn entry<'a>(depth: u32, name: &'a str, kind: Kind<'a>) -> Entry<'a> {
    Entry { depth, name: name.as_bytes(), kind, private: false, attributes: None }
}

fn directory(depth: u32, name: &str) -> Entry<'_> {
    entry(depth, name, Kind::Directory)
}

fn file(depth: u32, name: &str, part: Part) -> Entry<'_> {
    entry(depth, name, Kind::File { part, executable: false })
}

fn link<'a>(depth: u32, name: &'a str, target: &'a str) -> Entry<'a> {
    entry(depth, name, Kind::Link(target.as_bytes()))
}

fn manifest(blobs: &[NewBlob], entries: &[Entry<'_>]) -> Result<Manifest, ManifestError> {
    Manifest::new(b"tree", PieceLength::MIN, blobs, entries.iter().copied())
}

/// A tree with everything: equal files, a pack with equal parts, a hole, links, empty files.
fn everything() -> Manifest {
    let (long, pack) = (blob(3 * PIECE + 5), blob(70_000));
    let long = NewBlob { holes: vec![1..3], ..long };
    let entries = [
        directory(0, ""),
        file(1, "a", whole(1, &long)),
        directory(1, "b"),
        directory(2, "c"),
        file(3, "1", part(2, 0, 10)),
        file(3, "2", part(2, 10, 69_990)),
        file(2, "d", Part::empty()),
        link(2, "up", "../a"),
        file(1, "e", part(2, 0, 10)),
        file(1, "f", whole(1, &long)),
        link(1, "g", "b/c"),
    ];
    manifest(&[long, pack], &entries).unwrap()
}

#[test]
fn a_manifest_reads_as_it_is_written() {
    let manifest = everything();
    let again = Manifest::decode(manifest.descriptor.clone(), manifest.encoded.clone());
    assert_eq!(again, Ok(manifest.clone()));
    let paths = manifest.entries().map(|(number, _)| manifest.path_of(number));
    let paths: Vec<_> = paths.map(|path| Escaped(&path).to_string()).collect();
    assert_eq!(paths, ["", "a", "b", "b/c", "b/c/1", "b/c/2", "b/d", "b/up", "e", "f", "g"]);
    assert_eq!(manifest.descriptor.stored_bytes(), PIECE + 5 + 70_000);
    let holes: Vec<_> = manifest.holes().map(PieceIndex::get).collect();
    assert_eq!(holes, [2, 3]);
}

#[test]
fn a_content_may_be_one_file() {
    let blob = blob(1);
    let manifest = manifest(std::slice::from_ref(&blob), &[file(0, "", whole(1, &blob))]).unwrap();
    assert!(!manifest.is_directory());
    assert_eq!(*manifest.hash_of(PieceIndex::new(1)), blob.root());
}

#[test]
fn the_files_of_a_range_of_a_blob_are_found() {
    let manifest = everything();
    let within = |blob, range| -> Vec<_> {
        let files = manifest.files_within(BlobNumber::new(blob), range);
        files.map(|(file, _)| manifest.path_of(file)).collect()
    };
    assert_eq!(within(1, 0..1), [b"a"]);
    assert_eq!(within(2, 9..11), [b"b/c/1", b"b/c/2"]);
    assert_eq!(within(2, 10..11), [b"b/c/2"]);
    assert_eq!(within(2, 0..10), [b"b/c/1"]);
}

#[test]
fn each_piece_has_the_hash_of_its_blob() {
    let (long, pack) = (blob(3 * PIECE + 5), blob(70_000));
    let manifest = everything();
    let hashes: Vec<_> =
        manifest.layout.pieces().skip(1).map(|piece| *manifest.hash_of(piece)).collect();
    assert_eq!(hashes, [long.hashes, pack.hashes].concat());
}

/// Checks that the entries below a directory are refused.
fn refused(entries: &[Entry<'_>]) -> ManifestError {
    let entries = [&[directory(0, "")], entries].concat();
    manifest(&[], &entries).unwrap_err()
}

#[test]
fn paths_that_leave_the_directory_are_refused() {
    let long = "x".repeat(256);
    for name in ["", ".", "..", "a/b", "/etc", "a\0b", &long] {
        let error = refused(&[directory(1, name)]);
        assert!(matches!(error, ManifestError::Path(..)), "{name}: {error}");
    }
    let name = "x".repeat(255);
    let deep: Vec<_> = (1..=17).map(|depth| directory(depth, &name)).collect();
    assert!(matches!(refused(&deep), ManifestError::Path(..)));
}

#[test]
fn entries_are_in_order_and_in_directories() {
    let empty = |depth, name| file(depth, name, Part::empty());
    let order = |entries: &[_]| assert!(matches!(refused(entries), ManifestError::Order(_)));
    order(&[empty(1, "a"), empty(1, "a")]);
    order(&[empty(1, "b"), empty(1, "a")]);
    order(&[directory(1, "a"), empty(2, "x"), empty(1, "a")]);
    // By names and not by paths: `a-b` is after `a`, and after everything in `a`.
    order(&[empty(1, "a-b"), directory(1, "a"), empty(2, "x")]);
    assert_eq!(refused(&[empty(1, "a"), empty(2, "b")]), ManifestError::Depth(EntryNumber(2)));
    assert_eq!(refused(&[empty(3, "a")]), ManifestError::Depth(EntryNumber(1)));
    assert_eq!(refused(&[empty(0, "")]), ManifestError::Depth(EntryNumber(1)));
    for root in [directory(1, ""), directory(0, "a"), link(0, "", "a")] {
        assert_eq!(manifest(&[], &[root]), Err(ManifestError::Root), "{root:?}");
    }
    assert_eq!(
        manifest(&[], &[]),
        Err(ManifestError::Descriptor(DescriptorError::ManifestLength(0)))
    );
}

#[test]
fn links_that_lead_out_of_the_content_are_refused() {
    let out = |entries: &[_]| assert!(matches!(refused(entries), ManifestError::Target(..)));
    out(&[link(1, "a", "/etc/passwd")]);
    out(&[link(1, "a", "../x")]);
    out(&[directory(1, "a"), link(2, "b", "../../x")]);
    out(&[directory(1, "a"), link(2, "b", "c/../../x")]);
}

#[test]
fn a_blob_consists_of_its_files_in_order() {
    let pack = blob(100);
    let check = |parts: &[(u32, u64, u64)]| {
        let names: Vec<_> = (0..parts.len()).map(|number| format!("{number:02}")).collect();
        let files = parts
            .iter()
            .zip(&names)
            .map(|((number, offset, size), name)| file(1, name, part(*number, *offset, *size)));
        let entries: Vec<_> = [directory(0, "")].into_iter().chain(files).collect();
        manifest(std::slice::from_ref(&pack), &entries).map(drop)
    };
    assert_eq!(check(&[(1, 0, 40), (1, 40, 60), (1, 0, 40), (1, 40, 60)]), Ok(()));
    for parts in [
        // A gap, an overlap, out of order, past the end, of another size, of no blob.
        &[(1, 0, 40), (1, 50, 50)][..],
        &[(1, 0, 40), (1, 30, 70)],
        &[(1, 40, 60), (1, 0, 40)],
        &[(1, 0, 40), (1, 40, 61)],
        &[(1, 0, 40), (1, 40, 60), (1, 0, 41)],
        &[(1, 0, 40), (1, 40, u64::MAX)],
        &[(2, 0, 40)],
        &[(1, 0, 40), (1, 40, 60), (2, 0, 1)],
    ] {
        assert!(matches!(check(parts), Err(ManifestError::Part(_))), "{parts:?}");
    }
    assert!(matches!(check(&[(1, 0, 40)]), Err(ManifestError::Blob(..))));
    let of_none = [file(0, "", Part { size: 0, ..part(2, 0, 0) })];
    let refused = manifest(std::slice::from_ref(&pack), &of_none);
    assert!(matches!(refused, Err(ManifestError::Encoding(_))));
}

#[test]
fn blobs_are_different_and_in_order() {
    let (a, b) = (blob(1), blob(2));
    let two = |first: &NewBlob, second: &NewBlob, entries: &[Entry<'_>]| {
        let entries = [&[directory(0, "")], entries].concat();
        manifest(&[first.clone(), second.clone()], &entries).map(drop)
    };
    assert_eq!(two(&a, &b, &[file(1, "a", whole(1, &a)), file(1, "b", whole(2, &b))]), Ok(()));
    let reversed = two(&a, &b, &[file(1, "a", whole(2, &b)), file(1, "b", whole(1, &a))]);
    assert!(matches!(reversed, Err(ManifestError::Part(_))));
    let unused = two(&a, &b, &[file(1, "a", whole(1, &a))]);
    assert!(matches!(unused, Err(ManifestError::Blob(..))));
    let equal = two(&a, &a, &[file(1, "a", whole(1, &a)), file(1, "b", whole(2, &a))]);
    assert!(matches!(equal, Err(ManifestError::Blob(..))));
}

#[test]
fn holes_are_runs_within_their_blob() {
    let check = |holes: &[Range<u32>]| {
        let blob = NewBlob { holes: holes.to_vec(), ..blob(5 * PIECE) };
        manifest(std::slice::from_ref(&blob), &[file(0, "", whole(1, &blob))]).map(drop)
    };
    assert_eq!(check(&[0..1, 2..3, 4..5]), Ok(()));
    assert_eq!(check(&[0..5]), Ok(()));
    for holes in [&[0..6][..], &[0..1, 1..2], &[2..3, 0..1], &[1..1], &[4..5, 5..6]] {
        assert!(matches!(check(holes), Err(ManifestError::Blob(..))), "{holes:?}");
    }
}

#[test]
fn a_mode_agrees_with_the_other_attributes() {
    let check = |mode, private, executable| {
        let attributes = Some(Attributes { mode, modified_ns: -1 });
        let kind = Kind::File { part: Part::empty(), executable };
        manifest(&[], &[Entry { private, attributes, ..entry(0, "", kind) }]).map(drop)
    };
    assert_eq!(check(0o4755, false, true), Ok(()));
    assert_eq!(check(0o640, true, false), Ok(()));
    assert_eq!(check(0, true, false), Ok(()));
    for (mode, private, executable) in
        [(0o644, true, false), (0o644, false, true), (0o600, false, false), (0o20644, false, false)]
    {
        assert!(check(mode, private, executable).is_err(), "{mode:o} {private} {executable}");
    }
}

/// Reads the messages as a manifest with a descriptor that fits.
fn read(messages: &pb::Manifest) -> Result<Manifest, ManifestError> {
    let encoded = messages.encode_to_vec();
    let sizes = messages.blobs.iter().map(|blob| blob.size);
    let descriptor = Descriptor {
        name: b"tree".to_vec(),
        piece_length: PieceLength::MIN,
        blob_bytes: sizes.clone().sum(),
        hole_bytes: 0,
        blob_pieces: sizes.map(|size| size.div_ceil(PIECE) as u32).sum(),
        manifest_bytes: encoded.len() as u64,
        manifest_root: *blake3::hash(&encoded).as_bytes(),
    };
    Manifest::decode(descriptor, encoded)
}

#[test]
fn bytes_that_are_not_canonical_are_refused() {
    let blob = pb::Blob { size: 5, root: vec![7; 32], ..pb::Blob::default() };
    let good = pb::Manifest {
        blobs: vec![blob],
        entries: vec![pb::Entry { blob: 1, ..pb::Entry::default() }],
    };
    assert!(read(&good).is_ok());
    let entry = |entry| read(&pb::Manifest { entries: vec![entry], ..good.clone() });
    let root = pb::Entry { blob: 1, ..pb::Entry::default() };
    // A whole blob as a part, a directory with bytes, a time without a mode.
    for bad in [
        pb::Entry { size: 5, root: vec![7; 32], ..root.clone() },
        pb::Entry { directory: true, ..root.clone() },
        pb::Entry { modified_ns: 1, ..root.clone() },
        pb::Entry { offset: 1, ..root },
    ] {
        assert_eq!(entry(bad.clone()), Err(ManifestError::NotCanonical), "{bad:?}");
    }
    // An unknown field, a boolean of 2, a length of two bytes, blobs after entries.
    let encoded = good.encode_to_vec();
    let (blobs, entries) = encoded.split_at(encoded.len() - 4);
    for bad in [
        [&encoded[..], &[0xf8, 0x07, 1]].concat(),
        [blobs, &[0x12, 4, 0x20, 1, 0x48, 2]].concat(),
        [blobs, &[0x12, 0x82, 0, 0x20, 1]].concat(),
        [entries, blobs].concat(),
    ] {
        let descriptor = Descriptor {
            manifest_bytes: bad.len() as u64,
            manifest_root: *blake3::hash(&bad).as_bytes(),
            ..read(&good).unwrap().descriptor
        };
        let refused = Manifest::decode(descriptor, bad.clone());
        assert!(refused.is_err(), "{bad:?}");
    }
}

#[test]
fn a_manifest_is_that_of_its_descriptor() {
    let good = everything();
    let decode = |descriptor: Descriptor| Manifest::decode(descriptor, good.encoded.clone());
    let descriptor = || good.descriptor.clone();
    for other in [
        Descriptor { manifest_root: [7; 32], ..descriptor() },
        Descriptor { manifest_bytes: 9, ..descriptor() },
        Descriptor { blob_bytes: descriptor().blob_bytes - 1, ..descriptor() },
        Descriptor { hole_bytes: 0, ..descriptor() },
        Descriptor { blob_pieces: 7, ..descriptor() },
    ] {
        assert_eq!(decode(other.clone()), Err(ManifestError::OtherDescriptor), "{other:?}");
    }
    let longer = Descriptor { piece_length: PieceLength::TEXTBOOK, ..descriptor() };
    assert!(decode(longer).is_err());
}

#[test]
fn too_many_pieces_are_refused_before_there_is_memory_for_them() {
    let blob = pb::Blob {
        size: u64::from(MAX_PIECE_COUNT) * PIECE + 1,
        root: vec![7; 32],
        ..pb::Blob::default()
    };
    let mut encoded = pb::Manifest { blobs: vec![blob], entries: vec![] }.encode_to_vec();
    encoded.extend([0x12, 0]);
    let descriptor = Descriptor {
        manifest_bytes: encoded.len() as u64,
        manifest_root: *blake3::hash(&encoded).as_bytes(),
        ..everything().descriptor
    };
    assert!(matches!(Manifest::decode(descriptor, encoded), Err(ManifestError::Blob(..))));
}

#[test]
fn a_manifest_cut_within_an_entry_is_refused() {
    let manifest = everything();
    let ends = manifest.entries.iter().skip(1).map(|entry| entry.at as usize - 1);
    let ends: Vec<_> = ends.collect();
    for end in 0..manifest.encoded.len() {
        let cut = manifest.encoded[..end].to_vec();
        let descriptor = Descriptor {
            manifest_bytes: end as u64,
            manifest_root: *blake3::hash(&cut).as_bytes(),
            ..manifest.descriptor.clone()
        };
        let is_whole = ends.contains(&end);
        let read = Manifest::decode(descriptor, cut);
        assert!(read.is_err() || is_whole, "{end}");
    }
}

/// Names of files at depths, as a random tree in canonical order.
fn tree() -> impl Strategy<Value = Vec<(u32, Vec<u8>, u8)>> {
    let name = prop::collection::vec(1..=255_u8, 1..9)
        .prop_filter("a name", |name| check_name(name).is_ok());
    let path = prop::collection::vec(name, 1..4);
    prop::collection::btree_map(path, any::<u8>(), 0..20).prop_map(|files| {
        let mut open: Vec<Vec<u8>> = Vec::new();
        let mut entries = Vec::new();
        for (path, kind) in files {
            let shared = open.iter().zip(&path).take_while(|(a, b)| a == b).count();
            // A path that is the start of another is a directory.
            if shared == path.len() {
                continue;
            }
            open.truncate(shared);
            for (depth, name) in path.iter().enumerate().skip(shared) {
                let is_last = depth + 1 == path.len();
                entries.push((depth as u32 + 1, name.clone(), if is_last { kind } else { 255 }));
                open.push(name.clone());
            }
        }
        entries
    })
}

proptest! {
    #[test]
    fn it_is_written_as_prost_writes_it(tree in tree(), attributes: Option<(u16, i64)>) {
        let blobs = [blob(PIECE + 1), blob(3)];
        let mut is_packed = false;
        let mut named = 0;
        let mut entries = vec![directory(0, "")];
        for (depth, name, kind) in &tree {
            let (kind, private) = match kind {
                0..50 if named == 0 || named == 2 => {
                    named = 2;
                    is_packed = true;
                    (Kind::File { part: whole(1, &blobs[0]), executable: *kind < 20 }, *kind > 10)
                }
                50..100 => (Kind::Link(b"x"), false),
                100..150 => (Kind::File { part: Part::empty(), executable: *kind < 120 }, *kind > 110),
                _ => (Kind::Directory, *kind < 200),
            };
            let attributes = attributes.map(|(mode, modified_ns)| {
                let executable = matches!(kind, Kind::File { executable: true, .. });
                let mode = u32::from(mode) & 0o7660
                    | if executable { 0o100 } else { 0 }
                    | if private { 0 } else { 4 };
                Attributes { mode, modified_ns }
            });
            entries.push(Entry { depth: *depth, name, kind, private, attributes });
        }
        let blobs = if is_packed { &blobs[..1] } else { &[] };
        let manifest = match manifest(blobs, &entries) {
            Ok(manifest) => manifest,
            // A file in the place of a directory.
            Err(ManifestError::Depth(_)) => return Ok(()),
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        let read: Vec<_> = manifest.entries().map(|(_, entry)| entry).collect();
        prop_assert_eq!(&read, &entries);
        let messages = pb::Manifest {
            blobs: blobs.iter().map(|blob| pb::Blob {
                size: blob.size,
                root: blob.root().to_vec(),
                piece_hashes: blob.hashes.concat(),
                holes: vec![],
            }).collect(),
            entries: entries.iter().map(|entry| pb::Entry {
                depth: entry.depth,
                name: entry.name.to_vec(),
                directory: entry.kind == Kind::Directory,
                blob: entry.part().and_then(|part| part.blob).map_or(0, BlobNumber::get),
                target: match entry.kind { Kind::Link(target) => target.to_vec(), _ => vec![] },
                executable: matches!(entry.kind, Kind::File { executable: true, .. }),
                private: entry.private,
                mode: entry.attributes.map_or(0, |attributes| attributes.mode | 0o10000),
                modified_ns: entry.attributes.map_or(0, |attributes| attributes.modified_ns),
                ..pb::Entry::default()
            }).collect(),
        };
        prop_assert_eq!(manifest.encoded(), messages.encode_to_vec());
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 1..200)) {
        let descriptor = Descriptor {
            manifest_bytes: bytes.len() as u64,
            manifest_root: *blake3::hash(&bytes).as_bytes(),
            ..everything().descriptor
        };
        let _ = Manifest::decode(descriptor, bytes);
    }
}
