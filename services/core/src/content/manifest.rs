//! The manifest: the files of a content, and the blobs that hold their bytes.
//!
//! It stays as it was encoded, because it can have millions of entries: what is kept beside the
//! bytes are two numbers per entry. Every value is valid, whatever its source.

mod check;
mod entry;
#[cfg(test)]
mod tests;

use std::ops::Range;

use self::check::Checked;
pub use self::entry::{Attributes, Entry, Kind, Part};
use super::{
    BlobNumber, ContentId, Descriptor, DescriptorError, Layout, LayoutError, PieceHash, PieceIndex,
    PieceLength,
    descriptor::MAX_MANIFEST_BYTES,
    file_name::Escaped,
    root_of,
    wire::{self, Malformed},
};

/// Files, directories and links of a content, at most.
pub const MAX_ENTRIES: u32 = 4 << 20;

const BLOBS: u32 = 1;
const ENTRIES: u32 = 2;

const SIZE: u32 = 1;
const ROOT: u32 = 2;
const PIECE_HASHES: u32 = 3;
const HOLES: u32 = 4;

/// The number of an entry in its manifest, from 0: the content itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryNumber(u32);

impl EntryNumber {
    /// The file or directory itself.
    pub const ROOT: Self = Self(0);

    /// The entry with this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// A file or a directory tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    descriptor: Descriptor,
    id: ContentId,
    layout: Layout,
    encoded: Vec<u8>,
    blobs: Vec<BlobRecord>,
    entries: Vec<EntryRecord>,
}

/// A blob that a manifest is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBlob {
    /// Bytes.
    pub size: u64,
    /// The hashes of its pieces, in order.
    pub hashes: Vec<PieceHash>,
    /// The pieces, counted in the blob, whose bytes are all zero.
    pub holes: Vec<Range<u32>>,
}

/// Where the parts of a blob are in the encoded manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
struct BlobRecord {
    /// The offset of its root.
    root: u32,
    /// The offset of its piece hashes, or of the root if it has one piece.
    hashes: u32,
    holes: Box<[Range<u32>]>,
    files: Files,
}

/// The files that a blob is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Files {
    /// One file, and maybe others that are equal. This is the first.
    Whole(EntryNumber),
    /// Several, in the order of their bytes: the first of those that are equal.
    Pack(Vec<EntryNumber>),
}

/// Where an entry is in the encoded manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct EntryRecord {
    /// The offset of its length, which its bytes follow.
    at: u32,
    parent: EntryNumber,
}

/// The manifest is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not a message.
    #[error("the manifest cannot be decoded: {0}")]
    Encoding(#[from] Malformed),
    /// It does not encode back to the same bytes.
    #[error("the manifest is not in canonical form")]
    NotCanonical,
    /// Its length, hash, sizes or number of pieces differ from those in the descriptor.
    #[error("the manifest is not that of the descriptor")]
    OtherDescriptor,
    /// More than [`MAX_ENTRIES`].
    #[error("more than {MAX_ENTRIES} files and directories")]
    TooManyEntries,
    /// The encoded manifest would be longer than [`MAX_MANIFEST_BYTES`].
    #[error("a manifest of {0} bytes is longer than the {MAX_MANIFEST_BYTES} allowed")]
    TooLong(u64),
    /// Not at a place where it can be, such as below a file.
    #[error("entry {number} is not below a directory", number = .0.get())]
    Depth(EntryNumber),
    /// The content itself is a link, or has a name.
    #[error("the first entry is neither a file nor a directory without a name")]
    Root,
    /// Not a name that a file can have, or a path that is too long.
    #[error("the path \"{path}\" is refused: {why}", path = Escaped(.0), why = .1)]
    Path(Vec<u8>, &'static str),
    /// Out of order, or twice in its directory.
    #[error("the path \"{path}\" is there twice or out of order", path = Escaped(.0))]
    Order(Vec<u8>),
    /// Absolute, or out of the content.
    #[error("the target of the link \"{path}\" is refused: {why}", path = Escaped(.0), why = .1)]
    Target(Vec<u8>, &'static str),
    /// The attributes of an entry contradict each other.
    #[error("the mode of \"{path}\" is refused", path = Escaped(.0))]
    Mode(Vec<u8>),
    /// There is no such blob, or the file's bytes are not where the next are expected.
    #[error("the bytes of \"{path}\" are not in order in their blob", path = Escaped(.0))]
    Part(Vec<u8>),
    /// Empty, with holes or hashes that it cannot have, or not made of the files that name it.
    #[error("blob {number} is refused: {why}", number = .0.get(), why = .1)]
    Blob(BlobNumber, &'static str),
    /// The content has no valid descriptor.
    #[error(transparent)]
    Descriptor(#[from] DescriptorError),
    /// The blobs cannot be cut into pieces this way.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

impl Manifest {
    /// Makes a manifest. The entries come in its order, and the blobs in the order in which the
    /// entries first name them.
    pub fn new<'a>(
        name: &[u8],
        piece_length: PieceLength,
        blobs: &[NewBlob],
        entries: impl IntoIterator<Item = Entry<'a>>,
    ) -> Result<Self, ManifestError> {
        let (mut encoded, mut message) = (Vec::new(), Vec::new());
        let (mut blob_bytes, mut hole_bytes, mut blob_pieces) = (0, 0, 0);
        for blob in blobs {
            message.clear();
            blob.encode(&mut message);
            wire::put_element(BLOBS, &message, &mut encoded);
            blob_bytes += blob.size;
            blob_pieces += blob.hashes.len() as u32;
            hole_bytes += blob.hole_bytes(piece_length);
        }
        let size_of = |blob: BlobNumber| {
            let index = (blob.get() as usize).checked_sub(1);
            index.and_then(|index| blobs.get(index)).map(|blob| blob.size)
        };
        for entry in entries {
            message.clear();
            entry.encode(size_of, &mut message);
            wire::put_element(ENTRIES, &message, &mut encoded);
        }
        if encoded.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLong(encoded.len() as u64));
        }
        let descriptor = Descriptor {
            name: name.to_vec(),
            piece_length,
            blob_bytes,
            hole_bytes,
            blob_pieces,
            manifest_bytes: encoded.len() as u64,
            manifest_root: *blake3::hash(&encoded).as_bytes(),
        };
        Self::checked(descriptor.checked()?, encoded)
    }

    /// Parses an encoded manifest, and refuses it if it is not that of the descriptor.
    pub fn decode(descriptor: Descriptor, encoded: Vec<u8>) -> Result<Self, ManifestError> {
        if encoded.len() as u64 != descriptor.manifest_bytes
            || blake3::hash(&encoded) != descriptor.manifest_root
        {
            return Err(ManifestError::OtherDescriptor);
        }
        Self::checked(descriptor, encoded)
    }

    fn checked(descriptor: Descriptor, encoded: Vec<u8>) -> Result<Self, ManifestError> {
        let Checked { layout, blobs, entries } = Checked::read(&descriptor, &encoded)?;
        Ok(Self { id: descriptor.id(), descriptor, layout, encoded, blobs, entries })
    }

    /// The id of the content.
    pub const fn id(&self) -> ContentId {
        self.id
    }

    /// Its descriptor.
    pub const fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The canonical bytes, as `shoal/content/v2/manifest.proto` defines them.
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// How the manifest and the blobs are cut into pieces.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Name of the file or directory.
    pub fn name(&self) -> &[u8] {
        &self.descriptor.name
    }

    /// A directory tree, not one file.
    pub fn is_directory(&self) -> bool {
        matches!(self.entry(EntryNumber::ROOT).kind, Kind::Directory)
    }

    /// Entries, the content itself among them.
    pub fn entry_count(&self) -> usize {
        self.entries.len()
    }

    /// An entry of this manifest.
    pub fn entry(&self, number: EntryNumber) -> Entry<'_> {
        let blob = |number| Some((self.layout.size_of(number), *self.root_of(number)));
        Entry::read(check::body_at(&self.encoded, self.entries[number.0 as usize].at), blob)
            .expect("every entry was read when the manifest was checked")
    }

    /// All entries in order, each directory before what it contains.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = (EntryNumber, Entry<'_>)> {
        let numbers = (0..self.entries.len() as u32).map(EntryNumber);
        numbers.map(|number| (number, self.entry(number)))
    }

    /// The files, with their numbers.
    pub fn files(&self) -> impl Iterator<Item = (EntryNumber, Part)> + '_ {
        self.entries().filter_map(|(number, entry)| Some((number, entry.part()?)))
    }

    /// The path of an entry below the content, `/`-separated; empty for the content itself.
    pub fn path_of(&self, number: EntryNumber) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = number;
        while at != EntryNumber::ROOT {
            names.push(self.entry(at).name);
            at = self.entries[at.0 as usize].parent;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// The directory of an entry; that of the content itself is the content.
    pub fn parent_of(&self, number: EntryNumber) -> EntryNumber {
        self.entries[number.0 as usize].parent
    }

    /// The BLAKE3 hash of a blob.
    pub fn root_of(&self, blob: BlobNumber) -> &PieceHash {
        match self.record(blob) {
            None => &self.descriptor.manifest_root,
            Some(record) => self.hash_at(record.root),
        }
    }

    /// The hash of a piece of a blob.
    pub fn hash_of(&self, piece: PieceIndex) -> &PieceHash {
        let blob = self.layout.span(piece).blob;
        let record = self.record(blob).expect("the manifest's own hashes are not in it");
        let first = self.layout.pieces_of(blob).next().map_or(0, PieceIndex::get);
        self.hash_at(record.hashes + 32 * (piece.get() - first))
    }

    /// The pieces whose bytes are all zero.
    pub fn holes(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        self.layout.blobs().skip(1).flat_map(|blob| {
            let first = self.layout.pieces_of(blob).next().map_or(0, PieceIndex::get);
            let holes = self.record(blob).into_iter().flat_map(|record| record.holes.iter());
            holes.cloned().flatten().map(move |piece| PieceIndex::new(first + piece))
        })
    }

    /// The files that a blob is made of, in the order of their bytes. Of equal ones, the first.
    pub fn files_of(&self, blob: BlobNumber) -> &[EntryNumber] {
        match self.record(blob).map(|record| &record.files) {
            None => &[],
            Some(Files::Whole(file)) => std::slice::from_ref(file),
            Some(Files::Pack(files)) => files,
        }
    }

    /// The files with bytes in a range of a blob, as [`Manifest::files_of`] has them.
    pub fn files_within(
        &self,
        blob: BlobNumber,
        range: Range<u64>,
    ) -> impl Iterator<Item = (EntryNumber, Part)> + '_ {
        let part = |file: &EntryNumber| self.entry(*file).part().expect("a blob is made of files");
        let files = self.files_of(blob);
        let first = files.partition_point(|file| {
            let part = part(file);
            part.offset + part.size <= range.start
        });
        let within = files[first..].iter().map(move |file| (*file, part(file)));
        within.take_while(move |(_, part)| part.offset < range.end)
    }

    fn record(&self, blob: BlobNumber) -> Option<&BlobRecord> {
        self.blobs.get((blob.get() as usize).checked_sub(1)?)
    }

    fn hash_at(&self, offset: u32) -> &PieceHash {
        let bytes = self.encoded[offset as usize..].first_chunk();
        bytes.expect("every hash was found when the manifest was checked")
    }
}

impl NewBlob {
    /// The BLAKE3 hash of its bytes.
    pub fn root(&self) -> PieceHash {
        root_of(&self.hashes)
    }

    fn hole_bytes(&self, piece_length: PieceLength) -> u64 {
        hole_bytes(&self.holes, self.size, piece_length)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        wire::put_number(SIZE, self.size, out);
        wire::put_bytes(ROOT, &self.root(), out);
        if self.hashes.len() > 1 {
            wire::put_bytes(PIECE_HASHES, self.hashes.as_flattened(), out);
        }
        let holes = self.holes.iter().flat_map(|run| [run.start, run.end - run.start]);
        wire::put_numbers(HOLES, &holes.collect::<Vec<_>>(), out);
    }
}

/// Bytes of the holes of a blob, whose last piece may be shorter than the others.
fn hole_bytes(holes: &[Range<u32>], size: u64, piece_length: PieceLength) -> u64 {
    let whole = u64::from(piece_length.get());
    let bytes = |piece: u32| (u64::from(piece) * whole).min(size);
    holes.iter().map(|run| bytes(run.end) - bytes(run.start)).sum()
}
