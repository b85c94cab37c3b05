//! The test vectors of `docs/FORMAT.md`: contents that are made here of the same bytes.

use super::{
    Attributes, BlobNumber, ContentId, Descriptor, Entry, Kind, Layout, Manifest, NewBlob, Part,
    PieceHasher, PieceIndex, PieceLength,
};

const PAGE: &str = include_str!("../../../../docs/FORMAT.md");

/// What the page has for a content.
#[derive(Debug, Default, PartialEq)]
struct Vector {
    descriptor: Vec<u8>,
    manifest: Vec<u8>,
    id: Vec<u8>,
}

impl Vector {
    /// The blocks of the page that begin with a descriptor.
    fn all() -> Vec<Self> {
        PAGE.split("```text\ndescriptor ").skip(1).map(Self::read).collect()
    }

    fn read(block: &str) -> Self {
        let (block, _) = block.split_once("```").unwrap();
        let mut vector = Self::default();
        let mut field = &mut vector.descriptor;
        for word in block.split_whitespace() {
            match word {
                "manifest" => field = &mut vector.manifest,
                "id" => field = &mut vector.id,
                hex => {
                    let (digits, []) = hex.as_bytes().as_chunks::<2>() else { panic!("{hex}") };
                    let digits = digits.iter().map(|two| str::from_utf8(two).unwrap());
                    field.extend(digits.map(|two| u8::from_str_radix(two, 16).unwrap()));
                }
            }
        }
        vector
    }

    fn of(manifest: &Manifest) -> Self {
        Self {
            descriptor: manifest.descriptor().encode(),
            manifest: manifest.encoded().to_vec(),
            id: manifest.id().as_bytes().to_vec(),
        }
    }
}

/// The first bytes that `yes` prints.
fn yes(word: &str, length: usize) -> Vec<u8> {
    format!("{word}\n").bytes().cycle().take(length).collect()
}

fn blob(bytes: &[u8]) -> NewBlob {
    let layout = Layout::new(0, PieceLength::MIN, [bytes.len() as u64]).unwrap();
    let (mut hashes, mut holes) = (Vec::new(), Vec::new());
    for piece in layout.pieces_of(BlobNumber::new(1)) {
        let span = layout.span(piece);
        let bytes = &bytes[span.offset as usize..][..span.length as usize];
        let mut hasher = PieceHasher::new(&layout, span);
        hasher.update(bytes);
        hashes.push(hasher.finish());
        if bytes.iter().all(|byte| *byte == 0) {
            holes.push(piece.get()..piece.get() + 1);
        }
    }
    NewBlob { size: bytes.len() as u64, hashes, holes }
}

/// A file with these bytes, at an offset of a blob.
fn file(blob: u32, offset: u64, bytes: &[u8]) -> Kind<'static> {
    let part = Part {
        blob: Some(BlobNumber::new(blob)),
        offset,
        size: bytes.len() as u64,
        root: *blake3::hash(bytes).as_bytes(),
    };
    Kind::File { part, executable: false }
}

fn entry<'a>(depth: u32, name: &'a [u8], kind: Kind<'a>) -> Entry<'a> {
    Entry { depth, name, kind, private: false, attributes: None }
}

fn manifest(name: &[u8], blobs: &[&[u8]], entries: &[Entry<'_>]) -> Manifest {
    let blobs: Vec<_> = blobs.iter().map(|bytes| blob(bytes)).collect();
    Manifest::new(name, PieceLength::MIN, &blobs, entries.iter().copied()).unwrap()
}

fn empty() -> Manifest {
    let kind = Kind::File { part: Part::empty(), executable: false };
    manifest(b"empty", &[], &[entry(0, b"", kind)])
}

fn three() -> Manifest {
    let bytes = [yes("shoal", 65_536), vec![0; 65_536], yes("tail", 1000)].concat();
    manifest(b"three", &[&bytes], &[entry(0, b"", file(1, 0, &bytes))])
}

fn tree() -> Manifest {
    let long = yes("shoal", 70_000);
    let (a, b, run) = (b"one\n", b"two\n", b"echo run\n");
    let Kind::File { part, .. } = file(1, 8, run) else { unreachable!("it is a file") };
    let entries = [
        entry(0, b"", Kind::Directory),
        entry(1, b"a", file(1, 0, a)),
        Entry { private: true, ..entry(1, b"b", file(1, 4, b)) },
        entry(1, b"bin", Kind::Directory),
        entry(2, b"a", file(1, 0, a)),
        entry(2, b"link", Kind::Link(b"../long")),
        entry(2, b"run", Kind::File { part, executable: true }),
        entry(1, b"empty", Kind::Directory),
        entry(1, b"long", file(2, 0, &long)),
        entry(1, b"long-too", file(2, 0, &long)),
    ];
    manifest(b"tree", &[&[&a[..], b, run].concat(), &long], &entries)
}

fn odd() -> Manifest {
    let attributes = Some(Attributes { mode: 0o640, modified_ns: -500_000_000 });
    let entry = Entry { private: true, attributes, ..entry(0, b"", file(1, 0, b"x")) };
    manifest(b"odd\\\xff", &[b"x"], &[entry])
}

#[test]
fn the_test_vectors_are_encoded_as_the_page_says() {
    let contents = [empty(), three(), tree(), odd()];
    assert_eq!(Vector::all(), contents.each_ref().map(Vector::of));
}

#[test]
fn the_test_vectors_are_accepted() {
    let vectors = Vector::all();
    assert!(!vectors.is_empty());
    for Vector { descriptor, manifest, id } in vectors {
        let descriptor = Descriptor::decode(&descriptor).unwrap();
        assert_eq!(descriptor.id(), ContentId::from_bytes(*id.first_chunk().unwrap()));
        Manifest::decode(descriptor, manifest).unwrap();
    }
}

#[test]
fn the_pieces_of_a_test_vector_are_numbered_as_the_page_says() {
    let manifest = three();
    let spans = manifest.layout().pieces().map(|piece| manifest.layout().span(piece));
    let spans: Vec<_> = spans.map(|span| (span.blob.get(), span.offset, span.length)).collect();
    let length = manifest.encoded().len() as u32;
    assert_eq!(spans, [(0, 0, length), (1, 0, 65_536), (1, 65_536, 65_536), (1, 131_072, 1000)]);
    assert_eq!(manifest.holes().collect::<Vec<_>>(), [PieceIndex::new(2)]);
}
