//! Checks an encoded manifest, and finds its parts.
//!
//! What is checked here is what `docs/FORMAT.md` demands of a manifest. Beside the bytes it takes
//! memory only for blobs and entries that were found to be sound.

use std::ops::Range;

use prost::encoding::{decode_varint, encoded_len_varint};

use super::{
    BLOBS, BlobRecord, ENTRIES, Entry, EntryNumber, EntryRecord, Files, HOLES, Kind, MAX_ENTRIES,
    ManifestError, PIECE_HASHES, Part, ROOT, SIZE, hole_bytes,
};
use crate::content::{
    BlobNumber, Descriptor, Layout, MAX_PIECE_COUNT, PieceHash, PieceLength,
    file_name::{MAX_PATH_BYTES, check_name, check_target},
    root_of,
    wire::{self, Value, fields, numbers},
};

/// Bytes before a blob's root: those of the field's key and of the hash's length.
const BEFORE_HASH: usize = 2;

/// The parts of a sound manifest.
pub(super) struct Checked {
    pub(super) layout: Layout,
    pub(super) blobs: Vec<BlobRecord>,
    pub(super) entries: Vec<EntryRecord>,
}

impl Checked {
    /// Reads a manifest with this descriptor.
    pub(super) fn read(descriptor: &Descriptor, encoded: &[u8]) -> Result<Self, ManifestError> {
        let mut blobs = Blobs::new(descriptor.piece_length);
        let mut entries = Entries::new(encoded);
        // What comes after the elements that were read, and the canonical form of the next.
        let (mut rest, mut body, mut element) = (encoded, Vec::new(), Vec::new());
        for field in fields(encoded) {
            let at = encoded.len() - rest.len();
            body.clear();
            element.clear();
            match field? {
                (BLOBS, Value::Bytes(bytes)) if entries.records.is_empty() => {
                    let start = at + 1 + encoded_len_varint(bytes.len() as u64);
                    blobs.push(bytes, start, &mut body)?;
                    wire::put_element(BLOBS, &body, &mut element);
                }
                (ENTRIES, Value::Bytes(bytes)) => {
                    entries.push(bytes, at + 1, &mut blobs, &mut body)?;
                    wire::put_element(ENTRIES, &body, &mut element);
                }
                _ => return Err(ManifestError::NotCanonical),
            }
            rest = rest.strip_prefix(&element[..]).ok_or(ManifestError::NotCanonical)?;
        }
        if entries.records.is_empty() {
            return Err(ManifestError::Root);
        }
        blobs.check_all(descriptor)?;
        let sizes = blobs.found.iter().map(|blob| blob.size);
        let layout = Layout::new(descriptor.manifest_bytes, descriptor.piece_length, sizes)?;
        let blobs = blobs.found.into_iter().map(FoundBlob::into_record).collect();
        Ok(Self { layout, blobs, entries: entries.records })
    }
}

/// The bytes of the element whose length is at this offset.
pub(super) fn body_at(encoded: &[u8], at: u32) -> &[u8] {
    let mut rest = &encoded[at as usize..];
    let length = decode_varint(&mut rest).expect("a length was found there");
    &rest[..length as usize]
}

/// The blobs, which come first, and how far the files that name them fill them.
struct Blobs {
    piece_length: PieceLength,
    found: Vec<FoundBlob>,
    /// Blobs that a file has named.
    named: usize,
}

struct FoundBlob {
    size: u64,
    root: PieceHash,
    /// The offsets of its hashes in the manifest.
    root_at: u32,
    hashes_at: u32,
    holes: Box<[Range<u32>]>,
    files: Option<Files>,
    /// The bytes from its start that files have.
    filled: u64,
}

impl FoundBlob {
    fn into_record(self) -> BlobRecord {
        let files = self.files.expect("every blob was named");
        BlobRecord { root: self.root_at, hashes: self.hashes_at, holes: self.holes, files }
    }
}

impl Blobs {
    const fn new(piece_length: PieceLength) -> Self {
        Self { piece_length, found: Vec::new(), named: 0 }
    }

    /// Reads the next blob, which starts at `start`, and appends its canonical form to `out`.
    fn push(&mut self, bytes: &[u8], start: usize, out: &mut Vec<u8>) -> Result<(), ManifestError> {
        let number = BlobNumber::new(self.found.len() as u32 + 1);
        let (mut size, mut root, mut hashes, mut holes) = (0, &[][..], &[][..], Vec::new());
        for field in fields(bytes) {
            match field? {
                (SIZE, Value::Number(number)) => size = number,
                (ROOT, Value::Bytes(bytes)) => root = bytes,
                (PIECE_HASHES, Value::Bytes(bytes)) => hashes = bytes,
                (HOLES, Value::Bytes(bytes)) => {
                    holes = numbers(bytes)
                        .map(|number| wire::small(number?))
                        .collect::<Result<Vec<_>, _>>()?;
                }
                _ => return Err(ManifestError::NotCanonical),
            }
        }
        let refuse = |why| ManifestError::Blob(number, why);
        let root = wire::hash(root)?;
        let pieces = size.div_ceil(u64::from(self.piece_length.get()));
        if size == 0 {
            return Err(refuse("it is empty"));
        }
        if pieces + self.found.len() as u64 > u64::from(MAX_PIECE_COUNT) {
            return Err(refuse("it has too many pieces"));
        }
        let is_proven = match hashes.as_chunks::<32>() {
            ([], []) => pieces == 1,
            (hashes, []) => hashes.len() as u64 == pieces && pieces > 1 && root_of(hashes) == root,
            _ => false,
        };
        if !is_proven {
            return Err(refuse("its piece hashes do not lead to its root"));
        }
        let runs = runs_of(&holes, pieces as u32).ok_or_else(|| refuse("its holes are refused"))?;

        wire::put_number(SIZE, size, out);
        let root_at = start + out.len() + BEFORE_HASH;
        wire::put_bytes(ROOT, &root, out);
        wire::put_bytes(PIECE_HASHES, hashes, out);
        let hashes_at = if hashes.is_empty() { root_at } else { start + out.len() - hashes.len() };
        wire::put_numbers(HOLES, &holes, out);
        let (root_at, hashes_at) = (root_at as u32, hashes_at as u32);
        let (files, filled) = (None, 0);
        self.found.push(FoundBlob { size, root, root_at, hashes_at, holes: runs, files, filled });
        Ok(())
    }

    fn get(&self, number: BlobNumber) -> Option<&FoundBlob> {
        self.found.get((number.get() as usize).checked_sub(1)?)
    }

    /// Notes the bytes of a file, which are those of an earlier file, or those that follow in the
    /// blob after all earlier ones; false if they are neither.
    fn note(
        &mut self,
        file: EntryNumber,
        part: &Part,
        part_of: impl Fn(EntryNumber) -> Part,
    ) -> bool {
        let Some(number) = part.blob else { return true };
        let index = (number.get() as usize).saturating_sub(1);
        if index > self.named {
            return false;
        }
        let Some(blob) = self.found.get_mut(index) else { return false };
        self.named = self.named.max(index + 1);
        let is_whole = part.size == blob.size;
        let is_next = part.offset == blob.filled && part.size <= blob.size - blob.filled;
        match &mut blob.files {
            None if is_whole => blob.files = Some(Files::Whole(file)),
            None if is_next => blob.files = Some(Files::Pack(vec![file])),
            Some(Files::Whole(_)) if is_whole => return true,
            Some(Files::Pack(files)) if is_next => files.push(file),
            Some(Files::Pack(files)) if !is_whole => {
                let known = files.binary_search_by_key(&part.offset, |file| part_of(*file).offset);
                return known.is_ok_and(|known| part_of(files[known]) == *part);
            }
            _ => return false,
        }
        blob.filled += part.size;
        true
    }

    /// Every blob consists of the files that name it, no two files are blobs of the same bytes, and
    /// the sizes are those in the descriptor.
    fn check_all(&self, descriptor: &Descriptor) -> Result<(), ManifestError> {
        let (mut blob_bytes, mut holes, mut pieces) = (0_u64, 0_u64, 0_u64);
        for (index, blob) in self.found.iter().enumerate() {
            if blob.filled != blob.size {
                let number = BlobNumber::new(index as u32 + 1);
                return Err(ManifestError::Blob(number, "it has bytes that no file has"));
            }
            blob_bytes = blob_bytes.saturating_add(blob.size);
            holes = holes.saturating_add(hole_bytes(&blob.holes, blob.size, self.piece_length));
            pieces += blob.size.div_ceil(u64::from(self.piece_length.get()));
        }
        let expected =
            (descriptor.blob_bytes, descriptor.hole_bytes, u64::from(descriptor.blob_pieces));
        if (blob_bytes, holes, pieces) != expected {
            return Err(ManifestError::OtherDescriptor);
        }
        // A pack may happen to have the bytes of a file.
        let is_file = |index: &usize| matches!(self.found[*index].files, Some(Files::Whole(_)));
        let mut by_root: Vec<_> = (0..self.found.len()).filter(is_file).collect();
        by_root.sort_unstable_by_key(|index| self.found[*index].root);
        let equal =
            by_root.windows(2).find(|two| self.found[two[0]].root == self.found[two[1]].root);
        equal.map_or(Ok(()), |two| {
            let number = BlobNumber::new(two[1] as u32 + 1);
            Err(ManifestError::Blob(number, "it is there twice"))
        })
    }
}

/// The runs of holes that pairs of a first piece and a number of pieces stand for; none if they are
/// not within the blob, ascending, and apart.
fn runs_of(pairs: &[u32], pieces: u32) -> Option<Box<[Range<u32>]>> {
    let (pairs, []) = pairs.as_chunks::<2>() else { return None };
    let mut runs = Vec::with_capacity(pairs.len());
    let mut earliest = 0;
    for [first, count] in pairs {
        let end = first.checked_add(*count).filter(|end| *end <= pieces)?;
        if *first < earliest || *count == 0 {
            return None;
        }
        runs.push(*first..end);
        earliest = end + 1;
    }
    Some(runs.into())
}

/// The entries that were read, and the directories that the next may be in.
struct Entries<'a> {
    encoded: &'a [u8],
    records: Vec<EntryRecord>,
    open: Vec<OpenDirectory<'a>>,
}

struct OpenDirectory<'a> {
    number: EntryNumber,
    name: &'a [u8],
    /// Bytes of its path, with the slash that follows.
    path_bytes: usize,
    last_child: Option<&'a [u8]>,
}

impl<'a> Entries<'a> {
    const fn new(encoded: &'a [u8]) -> Self {
        Self { encoded, records: Vec::new(), open: Vec::new() }
    }

    /// Reads the next entry, whose length is at `at`, and appends its canonical form to `out`.
    fn push(
        &mut self,
        bytes: &'a [u8],
        at: usize,
        blobs: &mut Blobs,
        out: &mut Vec<u8>,
    ) -> Result<(), ManifestError> {
        if self.records.len() >= MAX_ENTRIES as usize {
            return Err(ManifestError::TooManyEntries);
        }
        let number = EntryNumber(self.records.len() as u32);
        let blob = |blob| blobs.get(blob).map(|blob| (blob.size, blob.root));
        let entry = Entry::read(bytes, blob)?;
        let (parent, path_bytes) = self.place(number, &entry)?;
        if let Kind::Link(target) = entry.kind {
            check_target(target, self.open.len())
                .map_err(|why| ManifestError::Target(self.path(entry.name), why))?;
        }
        if !entry.has_sound_mode() {
            return Err(ManifestError::Mode(self.path(entry.name)));
        }
        if let Some(part) = entry.part() {
            let part_of = |file: EntryNumber| {
                let bytes = body_at(self.encoded, self.records[file.0 as usize].at);
                let part = Entry::read(bytes, |_| None).ok().and_then(|entry| entry.part());
                part.expect("files of a pack were read, and are not whole blobs")
            };
            if !blobs.note(number, &part, part_of) {
                return Err(ManifestError::Part(self.path(entry.name)));
            }
        }
        entry.encode(|blob| blobs.get(blob).map(|blob| blob.size), out);
        self.records.push(EntryRecord { at: at as u32, parent });
        if entry.kind == Kind::Directory {
            let name = entry.name;
            self.open.push(OpenDirectory { number, name, path_bytes, last_child: None });
        }
        Ok(())
    }

    /// Closes the directories that an entry is not in. Returns the one that it is in, and the bytes
    /// of its path with a slash behind it.
    fn place(
        &mut self,
        number: EntryNumber,
        entry: &Entry<'a>,
    ) -> Result<(EntryNumber, usize), ManifestError> {
        if number == EntryNumber::ROOT {
            let is_root =
                entry.depth == 0 && entry.name.is_empty() && !matches!(entry.kind, Kind::Link(_));
            return if is_root { Ok((number, 0)) } else { Err(ManifestError::Root) };
        }
        let depth = entry.depth as usize;
        if depth == 0 || depth > self.open.len() {
            return Err(ManifestError::Depth(number));
        }
        self.open.truncate(depth);
        let directory = self.open.last().expect("the depth is at least 1");
        let path_bytes = directory.path_bytes + entry.name.len() + 1;
        let is_short = if path_bytes > MAX_PATH_BYTES + 1 {
            Err("it is longer than 4095 bytes")
        } else {
            Ok(())
        };
        check_name(entry.name)
            .and(is_short)
            .map_err(|why| ManifestError::Path(self.path(entry.name), why))?;
        if directory.last_child.is_some_and(|last| last >= entry.name) {
            return Err(ManifestError::Order(self.path(entry.name)));
        }
        let directory = self.open.last_mut().expect("the depth is at least 1");
        directory.last_child = Some(entry.name);
        Ok((directory.number, path_bytes))
    }

    /// A path in the directory that is open, for errors: at most its first 200 bytes.
    fn path(&self, name: &[u8]) -> Vec<u8> {
        let above = self.open.iter().skip(1).map(|directory| directory.name);
        let mut path = above.chain([name]).collect::<Vec<_>>().join(&b'/');
        path.truncate(200);
        path
    }
}
