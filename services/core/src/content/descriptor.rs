//! The descriptor: the few numbers that a content id is the hash of.

use super::{
    ContentId, Layout, LayoutError, PieceLength,
    file_name::{Escaped, check_name},
    wire::{self, Malformed, Value, fields, put_bytes, put_number},
};

/// The version that this module reads and writes.
const FORMAT_VERSION: u32 = 2;

/// Bytes of an encoded descriptor: a name, a hash and six numbers.
pub const MAX_DESCRIPTOR_BYTES: usize = 512;

/// Bytes of an encoded manifest: room for a few million files.
pub const MAX_MANIFEST_BYTES: u64 = 256 << 20;

const VERSION: u32 = 1;
const NAME: u32 = 2;
const PIECE_LENGTH: u32 = 3;
const BLOB_BYTES: u32 = 4;
const HOLE_BYTES: u32 = 5;
const PIECE_COUNT: u32 = 6;
const MANIFEST_BYTES: u32 = 7;
const MANIFEST_ROOT: u32 = 8;

/// A content: its name, its sizes, and the hash of its manifest. Every value is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub(super) name: Vec<u8>,
    pub(super) piece_length: PieceLength,
    pub(super) blob_bytes: u64,
    pub(super) hole_bytes: u64,
    pub(super) blob_pieces: u32,
    pub(super) manifest_bytes: u64,
    pub(super) manifest_root: [u8; 32],
}

/// The descriptor is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescriptorError {
    /// Longer than [`MAX_DESCRIPTOR_BYTES`], or not a message.
    #[error("the descriptor cannot be decoded: {0}")]
    Encoding(#[from] Malformed),
    /// It does not encode back to the same bytes.
    #[error("the descriptor is not in canonical form")]
    NotCanonical,
    /// Format 1 had a manifest in its place.
    #[error("the content has format {0}, and this is format {FORMAT_VERSION}: {hint}", hint = hint(*.0))]
    Version(u32),
    /// Not a name that a file can have.
    #[error("the name \"{name}\" is refused: {why}", name = Escaped(.0), why = .1)]
    Name(Vec<u8>, &'static str),
    /// Empty, or longer than [`MAX_MANIFEST_BYTES`].
    #[error("a manifest of {0} bytes is refused: it has 1 to {MAX_MANIFEST_BYTES}")]
    ManifestLength(u64),
    /// More bytes in holes than in all, or pieces without bytes.
    #[error("the sizes in the descriptor contradict each other")]
    Sizes,
    /// The content cannot be cut into pieces this way.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

const fn hint(version: u32) -> &'static str {
    if version < FORMAT_VERSION { "publish it again" } else { "upgrade shoal" }
}

impl Descriptor {
    pub(super) fn checked(self) -> Result<Self, DescriptorError> {
        check_name(&self.name).map_err(|why| {
            let start = self.name.iter().copied().take(80).collect();
            DescriptorError::Name(start, why)
        })?;
        if !(1..=MAX_MANIFEST_BYTES).contains(&self.manifest_bytes) {
            return Err(DescriptorError::ManifestLength(self.manifest_bytes));
        }
        self.layout()?;
        let most = u64::from(self.blob_pieces) * u64::from(self.piece_length.get());
        if self.hole_bytes > self.blob_bytes
            || !(u64::from(self.blob_pieces)..=most).contains(&self.blob_bytes)
        {
            return Err(DescriptorError::Sizes);
        }
        Ok(self)
    }

    /// Parses what [`Descriptor::encode`] wrote, and refuses everything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, DescriptorError> {
        if bytes.len() > MAX_DESCRIPTOR_BYTES {
            return Err(Malformed::new("it is too long").into());
        }
        let (mut version, mut name, mut piece_length, mut root) = (0, &[][..], 0, &[][..]);
        let (mut blob_bytes, mut hole_bytes, mut blob_pieces, mut manifest_bytes) = (0, 0, 0, 0);
        for field in fields(bytes) {
            match field? {
                (VERSION, Value::Number(number)) => version = wire::small(number)?,
                (NAME, Value::Bytes(bytes)) => name = bytes,
                (PIECE_LENGTH, Value::Number(number)) => piece_length = number,
                (BLOB_BYTES, Value::Number(number)) => blob_bytes = number,
                (HOLE_BYTES, Value::Number(number)) => hole_bytes = number,
                (PIECE_COUNT, Value::Number(number)) => blob_pieces = wire::small(number)?,
                (MANIFEST_BYTES, Value::Number(number)) => manifest_bytes = number,
                (MANIFEST_ROOT, Value::Bytes(bytes)) => root = bytes,
                // Of another version, or the bytes will differ from those made of the known ones.
                _ => {}
            }
        }
        if version != FORMAT_VERSION {
            return Err(DescriptorError::Version(version));
        }
        let descriptor = Self {
            name: name.to_vec(),
            piece_length: PieceLength::new(piece_length)?,
            blob_bytes,
            hole_bytes,
            blob_pieces,
            manifest_bytes,
            manifest_root: wire::hash(root)?,
        };
        let descriptor = descriptor.checked()?;
        if descriptor.encode() != bytes {
            return Err(DescriptorError::NotCanonical);
        }
        Ok(descriptor)
    }

    /// The canonical bytes, as `shoal/content/v2/manifest.proto` defines them.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_number(VERSION, u64::from(FORMAT_VERSION), &mut out);
        put_bytes(NAME, &self.name, &mut out);
        put_number(PIECE_LENGTH, u64::from(self.piece_length.get()), &mut out);
        put_number(BLOB_BYTES, self.blob_bytes, &mut out);
        put_number(HOLE_BYTES, self.hole_bytes, &mut out);
        put_number(PIECE_COUNT, u64::from(self.blob_pieces), &mut out);
        put_number(MANIFEST_BYTES, self.manifest_bytes, &mut out);
        put_bytes(MANIFEST_ROOT, &self.manifest_root, &mut out);
        out
    }

    /// The id of the content.
    pub fn id(&self) -> ContentId {
        ContentId::of_descriptor(&self.encode())
    }

    /// Name of the file or directory.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Bytes in a piece of a blob.
    pub const fn piece_length(&self) -> PieceLength {
        self.piece_length
    }

    /// Bytes of all blobs.
    pub const fn blob_bytes(&self) -> u64 {
        self.blob_bytes
    }

    /// Bytes of the blobs that are not in holes: what is sent beside the manifest.
    pub const fn stored_bytes(&self) -> u64 {
        self.blob_bytes - self.hole_bytes
    }

    /// Bytes on the disk of a receiver: those of the blobs that are not in holes, and the manifest.
    pub const fn disk_bytes(&self) -> u64 {
        self.stored_bytes() + self.manifest_bytes
    }

    /// Pieces of the manifest and of all blobs.
    pub const fn piece_count(&self) -> u32 {
        let manifest = self.manifest_bytes.div_ceil(Layout::MANIFEST_PIECE.get() as u64);
        manifest as u32 + self.blob_pieces
    }

    /// Bytes of the encoded manifest.
    pub const fn manifest_bytes(&self) -> u64 {
        self.manifest_bytes
    }

    /// The BLAKE3 hash of the encoded manifest.
    pub const fn manifest_root(&self) -> &[u8; 32] {
        &self.manifest_root
    }

    /// The layout of the content as far as it is known without the manifest.
    pub fn layout(&self) -> Result<Layout, LayoutError> {
        Layout::of_manifest(self.manifest_bytes, self.piece_length, self.blob_pieces)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn descriptor() -> Descriptor {
        Descriptor {
            name: b"tree".to_vec(),
            piece_length: PieceLength::MIN,
            blob_bytes: 100_000,
            hole_bytes: 65_536,
            blob_pieces: 2,
            manifest_bytes: 300_000,
            manifest_root: [7; 32],
        }
    }

    #[test]
    fn a_descriptor_reads_as_it_is_written() {
        let descriptor = descriptor();
        assert_eq!(Descriptor::decode(&descriptor.encode()), Ok(descriptor.clone()));
        assert_eq!((descriptor.stored_bytes(), descriptor.disk_bytes()), (34_464, 334_464));
        assert_eq!(descriptor.layout().unwrap().piece_count(), 4);
    }

    #[test]
    fn sizes_that_contradict_each_other_are_refused() {
        let good = descriptor();
        for bad in [
            Descriptor { hole_bytes: 100_001, ..good.clone() },
            Descriptor { blob_bytes: 131_073, ..good.clone() },
            Descriptor { blob_bytes: 1, ..good.clone() },
            Descriptor { blob_pieces: 0, ..good.clone() },
        ] {
            assert_eq!(Descriptor::decode(&bad.encode()), Err(DescriptorError::Sizes), "{bad:?}");
        }
        for length in [0, MAX_MANIFEST_BYTES + 1] {
            let bad = Descriptor { manifest_bytes: length, ..good.clone() };
            let refused = Descriptor::decode(&bad.encode());
            assert_eq!(refused, Err(DescriptorError::ManifestLength(length)));
        }
    }

    #[test]
    fn the_manifest_of_format_1_is_refused_with_what_to_do() {
        #[derive(Clone, PartialEq, prost::Message)]
        struct Manifest {
            #[prost(uint32, tag = "1")]
            format_version: u32,
            #[prost(string, tag = "2")]
            name: String,
            #[prost(uint64, tag = "3")]
            piece_length: u64,
            #[prost(string, repeated, tag = "4")]
            files: Vec<String>,
        }
        let old = Manifest {
            format_version: 1,
            name: "file".to_owned(),
            piece_length: 65_536,
            files: vec!["file".to_owned()],
        };
        let refused = Descriptor::decode(&old.encode_to_vec()).unwrap_err();
        let message = "the content has format 1, and this is format 2: publish it again";
        assert_eq!(refused.to_string(), message);
        let later = Manifest { format_version: 3, ..old };
        let refused = Descriptor::decode(&later.encode_to_vec()).unwrap_err();
        assert!(refused.to_string().ends_with("upgrade shoal"), "{refused}");
    }

    #[test]
    fn a_truncated_or_extended_descriptor_is_refused() {
        let bytes = descriptor().encode();
        for end in 0..bytes.len() {
            assert!(Descriptor::decode(&bytes[..end]).is_err(), "{end}");
        }
        let extended = [&bytes[..], &[0xf8, 0x07, 1]].concat();
        assert_eq!(Descriptor::decode(&extended), Err(DescriptorError::NotCanonical));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(descriptor) = Descriptor::decode(&bytes) {
                prop_assert_eq!(descriptor.encode(), bytes);
            }
        }
    }
}
