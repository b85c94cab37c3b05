//! Descriptors and manifests, as any peer may send them. Whatever is accepted is sound: it has one
//! encoding, all of its parts are found, and nothing leads out of the content.

#![no_main]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Range,
};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use shoal_core::content::{
    BlobNumber, ContentId, Descriptor, EntryNumber, Escaped, Kind, Layout, MAX_DESCRIPTOR_BYTES,
    Manifest, ManifestHashes, NewBlob, Part, PieceIndex, root_of,
};
use shoal_fuzz::{
    content::{Described, Edit, Lie, Tree, pb},
    frugally,
};

/// Links that are followed on the way to a target: as many as Linux follows.
const MAX_LINKS: usize = 40;

#[derive(Arbitrary, Debug)]
enum Sent<'a> {
    Descriptor { descriptor: &'a [u8], hashes: &'a [u8] },
    Manifest { manifest: &'a [u8], described: Described<'a> },
    Tree { described: Described<'a>, lie: Option<Lie>, tree: Tree<'a>, edits: Vec<Edit> },
}

fuzz_target!(|sent: Sent| {
    match sent {
        Sent::Descriptor { descriptor, hashes } => {
            let Some(descriptor) = decode_descriptor(descriptor) else { return };
            let _ = frugally(hashes.len(), || ManifestHashes::verify(&descriptor, hashes));
        }
        Sent::Manifest { manifest, described } => decode(manifest.to_vec(), &described, None),
        Sent::Tree { described, lie, tree, edits } => {
            let mut manifest = tree.encode(&described);
            edits.into_iter().for_each(|edit| edit.make(&mut manifest));
            decode(manifest, &described, lie);
        }
    }
});

/// Reads a descriptor, which has one encoding, and whose numbers agree.
fn decode_descriptor(bytes: &[u8]) -> Option<Descriptor> {
    let descriptor = frugally(bytes.len(), || Descriptor::decode(bytes)).ok()?;
    assert!(bytes.len() <= MAX_DESCRIPTOR_BYTES);
    assert_eq!(descriptor.encode(), bytes, "two descriptors with one id");
    let read = pb::Descriptor::decode(bytes).expect("prost reads it");
    assert_eq!(read.encode_to_vec(), bytes, "prost writes it as it is");
    assert_eq!(descriptor.id(), ContentId::of_descriptor(bytes));
    assert_name(descriptor.name());
    assert_eq!(descriptor.stored_bytes() + read.hole_bytes, descriptor.blob_bytes());
    let layout = descriptor.layout().expect("it was checked");
    assert_eq!(layout.piece_count(), descriptor.piece_count());
    assert_eq!(layout.piece_count() - layout.known_pieces(), read.piece_count);
    assert_eq!(bytes_of(&layout, BlobNumber::MANIFEST), descriptor.manifest_bytes());
    Some(descriptor)
}

/// Reads a manifest with a descriptor that is made to fit, except for a lie.
fn decode(manifest: Vec<u8>, described: &Described, lie: Option<Lie>) {
    let truth = described.of(&manifest);
    let mut told = truth.clone();
    lie.into_iter().for_each(|lie| lie.tell(&mut told));
    let Some(descriptor) = decode_descriptor(&told.encode_to_vec()) else { return };
    let bytes = manifest.clone();
    let Ok(read) = frugally(bytes.len(), || Manifest::decode(descriptor, bytes)) else { return };
    assert_eq!(told, truth, "the numbers of another manifest");
    assert_eq!(read.encoded(), manifest);
    let messages = pb::Manifest::decode(&*manifest).expect("prost reads it");
    assert_eq!(messages.encode_to_vec(), manifest, "two manifests with one meaning");
    check_entries(&read);
    check_layout(&read);
    check_blobs(&read);
    check_holes(&read);
    check_made_again(&read);
    check_manifest_hashes(&read);
}

fn assert_name(name: &[u8]) {
    assert!((1..=255).contains(&name.len()) && name != b"." && name != b"..", "{name:?}");
    assert!(!name.contains(&b'/') && !name.contains(&0), "{name:?}");
}

/// The tree: each entry is in a directory, in order, and its path and target stay in the content.
fn check_entries(manifest: &Manifest) {
    assert_eq!(manifest.entries().len(), manifest.entry_count());
    let mut paths: Vec<Vec<u8>> = Vec::new();
    let mut links = BTreeMap::new();
    let mut last_names = BTreeMap::new();
    for (number, entry) in manifest.entries() {
        assert_eq!(manifest.entry(number), entry);
        let path = manifest.path_of(number);
        let parent = manifest.parent_of(number);
        if number == EntryNumber::ROOT {
            assert_eq!((entry.depth, entry.name, &*path, parent), (0, &b""[..], &b""[..], number));
            assert!(matches!(entry.kind, Kind::Directory) == manifest.is_directory());
            assert!(!matches!(entry.kind, Kind::Link(_)));
        } else {
            assert!(parent < number);
            let above = manifest.entry(parent);
            assert_eq!((above.kind, above.depth + 1), (Kind::Directory, entry.depth));
            assert_name(entry.name);
            let last = last_names.insert(parent, entry.name);
            assert!(last.is_none_or(|last| last < entry.name), "out of order");
            let above = &paths[parent.get() as usize];
            let slash = if above.is_empty() { &b""[..] } else { b"/" };
            assert_eq!(path, [above, slash, entry.name].concat());
            assert!(path.len() <= 4095);
        }
        if let Kind::Link(target) = entry.kind {
            assert!((1..=4095).contains(&target.len()) && !target.contains(&0));
            let names = target.split(|byte| *byte == b'/');
            let mut names = names.skip_while(|name| matches!(*name, b"" | b"." | b".."));
            assert!(!names.any(|name| name == b".."), "a .. after a name");
            links.insert(path.clone(), target);
        }
        let is_link = matches!(entry.kind, Kind::Link(_));
        assert!(!(is_link && entry.private));
        if let Some(attributes) = entry.attributes {
            assert!(attributes.mode <= 0o7777);
            assert!(is_link || entry.private == (attributes.mode & 0o007 == 0));
        }
        assert!(!Escaped(&path).to_string().chars().any(char::is_control));
        paths.push(path);
    }
    assert_eq!(paths.iter().collect::<BTreeSet<_>>().len(), paths.len(), "a path is there twice");
    for link in links.keys() {
        assert!(stays_inside(&links, link), "{} leads out", Escaped(link));
    }
}

/// Follows a link as the kernel does, and all links on its way.
fn stays_inside(links: &BTreeMap<Vec<u8>, &[u8]>, link: &[u8]) -> bool {
    let mut at: Vec<&[u8]> = link.split(|byte| *byte == b'/').collect();
    let mut ahead: VecDeque<&[u8]> = VecDeque::new();
    let mut followed = 0;
    loop {
        if let Some(target) = links.get(&at.join(&b'/')) {
            followed += 1;
            if followed > MAX_LINKS {
                return true;
            }
            if target.starts_with(b"/") {
                return false;
            }
            at.pop();
            target.rsplit(|byte| *byte == b'/').for_each(|name| ahead.push_front(name));
        }
        match ahead.pop_front() {
            None => return true,
            Some(b"" | b".") => {}
            Some(b"..") if at.is_empty() => return false,
            Some(b"..") => drop(at.pop()),
            Some(name) => at.push(name),
        }
    }
}

/// The bytes of all pieces of a blob, which follow each other.
fn bytes_of(layout: &Layout, blob: BlobNumber) -> u64 {
    let mut end = 0;
    for piece in layout.pieces_of(blob) {
        let span = layout.span(piece);
        assert_eq!((span.blob, span.offset), (blob, end));
        assert!(span.length > 0 && span.length == layout.length_of(piece));
        let whole = layout.whole(piece);
        assert_eq!(layout.range(piece.get(), 0, 0), Ok(whole));
        assert_eq!(layout.range(piece.get(), 0, span.length), Ok(whole));
        assert!(layout.range(piece.get(), span.length, 0).is_err());
        assert!(layout.range(piece.get(), 0, span.length + 1).is_err());
        end += u64::from(span.length);
        let within: Vec<_> = layout.pieces_within(blob, &(span.offset..end)).collect();
        assert_eq!(within, [piece]);
    }
    assert_eq!(end, layout.size_of(blob));
    let all = layout.pieces_within(blob, &(0..end));
    assert!(all.eq(layout.pieces_of(blob)), "the pieces of all bytes");
    end
}

/// The pieces are those of the manifest, and then those of its blobs.
fn check_layout(manifest: &Manifest) {
    let (layout, descriptor) = (manifest.layout(), manifest.descriptor());
    assert!(layout.is_known());
    assert_eq!(layout.piece_count(), descriptor.piece_count());
    assert_eq!(layout.piece_length(), descriptor.piece_length());
    let pieces: Vec<_> = layout.blobs().flat_map(|blob| layout.pieces_of(blob)).collect();
    assert!(layout.pieces().eq(pieces), "the pieces of all blobs");
    assert!(layout.range(layout.piece_count(), 0, 0).is_err());
    let sizes: u64 = layout.blobs().map(|blob| bytes_of(layout, blob)).sum();
    assert_eq!(sizes, descriptor.manifest_bytes() + descriptor.blob_bytes());
    let partial = descriptor.layout().expect("it was checked");
    for piece in partial.pieces() {
        assert_eq!(partial.span(piece), layout.span(piece), "a place that changes");
    }
}

/// Each blob is as its hashes say, and is tiled by its files; no two files are blobs of the same bytes.
fn check_blobs(manifest: &Manifest) {
    let layout = manifest.layout();
    let mut parts = BTreeMap::new();
    let mut roots = BTreeSet::new();
    assert!(manifest.files_of(BlobNumber::MANIFEST).is_empty());
    for blob in layout.blobs().skip(1) {
        let hashes: Vec<_> = layout.pieces_of(blob).map(|piece| *manifest.hash_of(piece)).collect();
        assert_eq!(root_of(&hashes), *manifest.root_of(blob));
        let mut end = 0;
        let files = manifest.files_of(blob);
        let is_file = files.len() == 1;
        assert!(!is_file || roots.insert(manifest.root_of(blob)), "a file is there twice");
        for file in files {
            let part = manifest.entry(*file).part().expect("a blob is made of files");
            assert_eq!((part.blob, part.offset), (Some(blob), end));
            assert!(part.size > 0);
            end += part.size;
            parts.insert((blob, part.offset), (*file, part));
        }
        assert_eq!(end, layout.size_of(blob), "the files do not tile a blob");
        for piece in layout.pieces_of(blob) {
            let span = layout.span(piece);
            check_within(manifest, blob, span.offset..span.offset + u64::from(span.length));
        }
        for range in [0..0, 0..1, end - 1..end, end..end, 0..end, 0..u64::MAX, end..u64::MAX] {
            check_within(manifest, blob, range);
        }
    }
    let mut named = 0;
    for (number, part) in manifest.files() {
        let Some(blob) = part.blob else {
            assert_eq!(part, Part::empty());
            continue;
        };
        let (first, first_part) = parts[&(blob, part.offset)];
        assert!(first <= number && first_part == part, "not the bytes of the first such file");
        assert!((1..=named + 1).contains(&blob.get()), "a blob is named too early");
        named = named.max(blob.get());
        if part.size == layout.size_of(blob) {
            assert_eq!(part.root, *manifest.root_of(blob));
        }
    }
    assert_eq!(named as usize + 1, layout.blobs().len(), "a blob that no file names");
}

/// The files of a range of a blob are those with bytes in it.
fn check_within(manifest: &Manifest, blob: BlobNumber, range: Range<u64>) {
    let part = |file: &EntryNumber| manifest.entry(*file).part().expect("a file");
    let files = manifest.files_of(blob).iter().map(|file| (*file, part(file)));
    let expected = files.filter(|(_, part)| {
        part.offset.max(range.start) < (part.offset + part.size).min(range.end)
    });
    let expected: Vec<_> = expected.collect();
    let found: Vec<_> = manifest.files_within(blob, range.clone()).collect();
    if range.is_empty() {
        // Nothing is asked for, and at most the file around it is found.
        assert!(found.len() <= 1);
    } else {
        assert_eq!(found, expected, "{range:?}");
    }
}

/// The holes are pieces of blobs, in order, and their bytes are what the descriptor says.
fn check_holes(manifest: &Manifest) {
    let layout = manifest.layout();
    let holes: Vec<_> = manifest.holes().collect();
    assert!(holes.is_sorted_by(|a, b| a < b));
    assert!(holes.iter().all(|piece| layout.span(*piece).blob != BlobNumber::MANIFEST));
    let bytes: u64 = holes.iter().map(|piece| u64::from(layout.length_of(*piece))).sum();
    let descriptor = manifest.descriptor();
    assert_eq!(bytes, descriptor.blob_bytes() - descriptor.stored_bytes());
}

/// What was read makes the same manifest.
fn check_made_again(manifest: &Manifest) {
    let layout = manifest.layout();
    let holes: BTreeSet<_> = manifest.holes().collect();
    let blobs = layout.blobs().skip(1).map(|blob| {
        let hashes = layout.pieces_of(blob).map(|piece| *manifest.hash_of(piece)).collect();
        let mut runs: Vec<Range<u32>> = Vec::new();
        let numbered = (0..).zip(layout.pieces_of(blob));
        for (number, _) in numbered.filter(|(_, piece)| holes.contains(piece)) {
            match runs.last_mut() {
                Some(run) if run.end == number => run.end += 1,
                _ => runs.push(number..number + 1),
            }
        }
        NewBlob { size: layout.size_of(blob), hashes, holes: runs }
    });
    let blobs: Vec<_> = blobs.collect();
    let entries = manifest.entries().map(|(_, entry)| entry);
    let again = Manifest::new(manifest.name(), layout.piece_length(), &blobs, entries);
    assert_eq!(again.as_ref(), Ok(manifest));
}

/// The manifest's own pieces are proven by its descriptor.
fn check_manifest_hashes(manifest: &Manifest) {
    let hashes = ManifestHashes::of(manifest);
    let mut bytes = hashes.as_bytes().to_vec();
    assert_eq!(ManifestHashes::verify(manifest.descriptor(), &bytes), Ok(hashes.clone()));
    for piece in manifest.layout().pieces().map(PieceIndex::get) {
        let is_own = manifest.layout().span(PieceIndex::new(piece)).blob == BlobNumber::MANIFEST;
        assert_eq!(hashes.get(piece).is_some(), is_own);
    }
    bytes[0] ^= 1;
    assert!(ManifestHashes::verify(manifest.descriptor(), &bytes).is_err());
}
