//! Descriptors and manifests as a stranger may make them: nearly sound ones, so that most are read
//! to their end.

use arbitrary::Arbitrary;
use prost::Message as _;
use shoal_core::content::{PieceHash, root_of};

/// The messages of `shoal/content/v2/manifest.proto`, as prost reads and writes them.
pub mod pb {
    #![expect(missing_docs, reason = "as in the proto file")]

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Descriptor {
        #[prost(uint32, tag = "1")]
        pub format_version: u32,
        #[prost(bytes = "vec", tag = "2")]
        pub name: Vec<u8>,
        #[prost(uint64, tag = "3")]
        pub piece_length: u64,
        #[prost(uint64, tag = "4")]
        pub blob_bytes: u64,
        #[prost(uint64, tag = "5")]
        pub hole_bytes: u64,
        #[prost(uint32, tag = "6")]
        pub piece_count: u32,
        #[prost(uint64, tag = "7")]
        pub manifest_bytes: u64,
        #[prost(bytes = "vec", tag = "8")]
        pub manifest_root: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Manifest {
        #[prost(message, repeated, tag = "1")]
        pub blobs: Vec<Blob>,
        #[prost(message, repeated, tag = "2")]
        pub entries: Vec<Entry>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Blob {
        #[prost(uint64, tag = "1")]
        pub size: u64,
        #[prost(bytes = "vec", tag = "2")]
        pub root: Vec<u8>,
        #[prost(bytes = "vec", tag = "3")]
        pub piece_hashes: Vec<u8>,
        #[prost(uint32, repeated, tag = "4")]
        pub holes: Vec<u32>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Entry {
        #[prost(uint32, tag = "1")]
        pub depth: u32,
        #[prost(bytes = "vec", tag = "2")]
        pub name: Vec<u8>,
        #[prost(bool, tag = "3")]
        pub directory: bool,
        #[prost(uint32, tag = "4")]
        pub blob: u32,
        #[prost(uint64, tag = "5")]
        pub offset: u64,
        #[prost(uint64, tag = "6")]
        pub size: u64,
        #[prost(bytes = "vec", tag = "7")]
        pub root: Vec<u8>,
        #[prost(bytes = "vec", tag = "8")]
        pub target: Vec<u8>,
        #[prost(bool, tag = "9")]
        pub executable: bool,
        #[prost(bool, tag = "10")]
        pub private: bool,
        #[prost(uint32, tag = "11")]
        pub mode: u32,
        #[prost(sint64, tag = "12")]
        pub modified_ns: i64,
    }
}

/// What a descriptor says beside the numbers of its manifest.
#[derive(Arbitrary, Clone, Debug)]
pub struct Described<'a> {
    name: Option<&'a [u8]>,
    /// The smallest for 0, as a power of two above it.
    piece_length: u8,
}

impl Described<'_> {
    fn piece_length(&self) -> u64 {
        (64 << 10) << (self.piece_length % 10)
    }

    /// The descriptor that fits a manifest, as far as prost can read that.
    pub fn of(&self, manifest: &[u8]) -> pb::Descriptor {
        let piece_length = self.piece_length();
        let pb::Manifest { blobs, .. } = pb::Manifest::decode(manifest).unwrap_or_default();
        let mut descriptor = pb::Descriptor {
            format_version: 2,
            name: self.name.unwrap_or(b"tree").to_vec(),
            piece_length,
            manifest_bytes: manifest.len() as u64,
            manifest_root: root_of(&[hash_of(manifest)]).to_vec(),
            ..Default::default()
        };
        for blob in &blobs {
            let up_to = |piece: u32| (u64::from(piece) * piece_length).min(blob.size);
            let hole = |run: &[u32; 2]| up_to(run[0].saturating_add(run[1])) - up_to(run[0]);
            let holes: u64 = blob.holes.as_chunks().0.iter().map(hole).fold(0, u64::wrapping_add);
            let pieces = blob.size.div_ceil(piece_length) as u32;
            descriptor.blob_bytes = descriptor.blob_bytes.wrapping_add(blob.size);
            descriptor.hole_bytes = descriptor.hole_bytes.wrapping_add(holes);
            descriptor.piece_count = descriptor.piece_count.wrapping_add(pieces);
        }
        descriptor
    }
}

fn hash_of(bytes: &[u8]) -> PieceHash {
    *blake3::hash(bytes).as_bytes()
}

/// A number of a descriptor that is wrong.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Lie {
    /// It is a sum of bytes.
    BlobBytes(i8),
    /// It is a sum of bytes.
    HoleBytes(i8),
    /// It is a number of pieces.
    Pieces(i8),
    /// It is a length.
    ManifestBytes(i8),
    /// It is a hash.
    ManifestRoot(u8),
}

impl Lie {
    /// Puts it in the place of the truth.
    pub fn tell(self, descriptor: &mut pb::Descriptor) {
        let add = |number: &mut u64, by: i8| *number = number.wrapping_add_signed(by.into());
        match self {
            Self::BlobBytes(by) => add(&mut descriptor.blob_bytes, by),
            Self::HoleBytes(by) => add(&mut descriptor.hole_bytes, by),
            Self::Pieces(by) => {
                descriptor.piece_count = descriptor.piece_count.wrapping_add_signed(by.into());
            }
            Self::ManifestBytes(by) => add(&mut descriptor.manifest_bytes, by),
            Self::ManifestRoot(bits) => descriptor.manifest_root[0] ^= bits,
        }
    }
}

/// A file or a tree, as it is walked.
#[derive(Arbitrary, Debug)]
pub struct Tree<'a> {
    is_file: bool,
    /// 128 more than the links with long targets at the end, for a manifest of several pieces.
    long_links: u8,
    entries: Vec<Entry<'a>>,
}

#[derive(Arbitrary, Debug)]
struct Entry<'a> {
    /// Directories to leave first.
    leave: u8,
    name: Name<'a>,
    what: What<'a>,
    private: bool,
    attributes: Option<(u16, i64)>,
}

#[derive(Arbitrary, Debug)]
enum Name<'a> {
    InOrder,
    /// In order, and of this many bytes more.
    Long(u8),
    /// That of the entry before.
    Again,
    Other(&'a [u8]),
}

#[derive(Arbitrary, Debug)]
enum What<'a> {
    Directory,
    Link {
        ups: u8,
        rest: &'a [u8],
    },
    Empty {
        executable: bool,
    },
    /// A blob of its own.
    Whole {
        pieces: u8,
        less: u16,
        content: u8,
        /// Pieces between two holes, and pieces of a hole.
        holes: Vec<(u8, u8)>,
    },
    /// A part of the pack.
    Part {
        size: u16,
        content: u8,
        executable: bool,
    },
    /// The bytes of an earlier file.
    Again(u8),
    /// A blob that may come later.
    Blob(u8),
    /// Any entry.
    Other(Other<'a>),
}

#[derive(Arbitrary, Debug)]
struct Other<'a> {
    directory: bool,
    blob: u8,
    offset: u32,
    size: u32,
    root: [u8; 32],
    target: &'a [u8],
}

/// The directories that are open, and the messages so far.
struct Walk {
    piece_length: u64,
    open: u32,
    names: u32,
    /// The number of the pack among the blobs.
    pack: Option<usize>,
    manifest: pb::Manifest,
}

impl Tree<'_> {
    /// The encoded manifest.
    pub fn encode(&self, described: &Described) -> Vec<u8> {
        let manifest = pb::Manifest::default();
        let piece_length = described.piece_length();
        let mut walk = Walk { piece_length, open: 0, names: 0, pack: None, manifest };
        if !self.is_file {
            walk.manifest.entries.push(pb::Entry { directory: true, ..pb::Entry::default() });
            walk.open = 1;
        }
        for entry in &self.entries {
            walk.enter(entry);
        }
        for number in 0..self.long_links.saturating_sub(0x80) {
            let name = [b"\xff", format!("{number:03}").as_bytes()].concat();
            let target = vec![b'x'; 4095];
            walk.manifest.entries.push(pb::Entry { depth: 1, name, target, ..Default::default() });
        }
        walk.close_pack();
        walk.manifest.encode_to_vec()
    }
}

impl Walk {
    fn enter(&mut self, entry: &Entry) {
        self.open = self.open.saturating_sub(entry.leave.into()).max(self.open.min(1));
        self.names += 1;
        let in_order = format!("{:05}", self.names).into_bytes();
        let name = match &entry.name {
            _ if self.open == 0 => Vec::new(),
            Name::InOrder => in_order,
            Name::Long(more) => [in_order, vec![b'n'; usize::from(*more)]].concat(),
            Name::Again => self.manifest.entries.last().map_or(in_order, |last| last.name.clone()),
            Name::Other(name) => name.to_vec(),
        };
        let private = entry.private && !matches!(entry.what, What::Link { .. });
        let mut made = pb::Entry { depth: self.open, name, private, ..self.what(&entry.what) };
        if let Some((mode, modified_ns)) = entry.attributes {
            made.mode = u32::from(mode) | 0o10000;
            made.modified_ns = modified_ns;
            if mode & 1 == 0 {
                // What agrees with the other attributes.
                made.mode = 0o14640 | u32::from(made.executable) << 6;
                made.mode |= u32::from(!made.private) << 2;
            }
        }
        self.open += u32::from(made.directory);
        self.manifest.entries.push(made);
    }

    fn what(&mut self, what: &What) -> pb::Entry {
        let entry = pb::Entry::default();
        match what {
            What::Directory => pb::Entry { directory: true, ..entry },
            What::Link { ups, rest } => {
                let ups = usize::from(*ups) % (self.open as usize + 1);
                let rest = if rest.is_empty() { b"x" } else { *rest };
                pb::Entry { target: [&b"../".repeat(ups), rest].concat(), ..entry }
            }
            What::Empty { executable } => pb::Entry { executable: *executable, ..entry },
            What::Whole { pieces, less, content, holes } => {
                let size = (u64::from(pieces % 16) + 1) * self.piece_length - u64::from(*less);
                let mut end = 0;
                let holes = holes.iter().flat_map(|(between, count)| {
                    let (first, count) = (end + u32::from(between % 4), u32::from(count % 4));
                    end = first + count;
                    [first, count]
                });
                let blob = pb::Blob { holes: holes.collect(), ..self.blob(size, *content) };
                pb::Entry { blob: self.push(blob), ..entry }
            }
            What::Part { size, content, executable } => {
                let number = self.pack.unwrap_or_else(|| self.push(pb::Blob::default()) as usize);
                self.pack = Some(number);
                let pack = &mut self.manifest.blobs[number - 1];
                let (offset, size) = (pack.size, u64::from(*size) + 1);
                pack.size += size;
                let root = vec![*content; 32];
                let executable = *executable;
                pb::Entry { blob: number as u32, offset, size, root, executable, ..entry }
            }
            What::Again(number) => {
                let files = self.manifest.entries.iter().filter(|entry| entry.blob > 0);
                let files: Vec<_> = files.collect();
                let Some(number) = usize::from(*number).checked_rem(files.len()) else {
                    return entry;
                };
                let pb::Entry { blob, offset, size, ref root, .. } = *files[number];
                pb::Entry { blob, offset, size, root: root.clone(), ..entry }
            }
            What::Blob(number) => pb::Entry { blob: (*number).into(), ..entry },
            What::Other(Other { directory, blob, offset, size, root, target }) => pb::Entry {
                directory: *directory,
                blob: (*blob).into(),
                offset: (*offset).into(),
                size: (*size).into(),
                root: if *size == 0 { Vec::new() } else { root.to_vec() },
                target: target.to_vec(),
                ..entry
            },
        }
    }

    /// A blob with this size, and with hashes that differ from those of other content.
    fn blob(&self, size: u64, content: u8) -> pb::Blob {
        let pieces = size.div_ceil(self.piece_length) as usize;
        let hashes: Vec<_> = (0..pieces).map(|piece| hash_of(&[content, piece as u8])).collect();
        let root = root_of(&hashes).to_vec();
        let piece_hashes = if pieces > 1 { hashes.concat() } else { Vec::new() };
        pb::Blob { size, root, piece_hashes, holes: Vec::new() }
    }

    /// Adds a blob. Returns its number.
    fn push(&mut self, blob: pb::Blob) -> u32 {
        self.manifest.blobs.push(blob);
        self.manifest.blobs.len() as u32
    }

    /// The size of the pack is known once all of its parts are. One part alone is a whole blob.
    fn close_pack(&mut self) {
        let Some(number) = self.pack else { return };
        let size = self.manifest.blobs[number - 1].size;
        self.manifest.blobs[number - 1] = self.blob(size, 0);
        let of_pack = |entry: &&mut pb::Entry| entry.blob as usize == number && entry.size == size;
        for part in self.manifest.entries.iter_mut().filter(of_pack) {
            part.size = 0;
            part.root.clear();
        }
    }
}

/// A change of encoded bytes.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Edit {
    /// Of the bits of a byte.
    Flip(u16, u8),
    /// One more byte.
    Insert(u16, u8),
    /// One byte fewer.
    Remove(u16),
    /// The end is missing.
    Cut(u16),
}

impl Edit {
    /// Makes the change, if there is such a place.
    pub fn make(self, bytes: &mut Vec<u8>) {
        let (Self::Flip(at, _) | Self::Insert(at, _) | Self::Remove(at) | Self::Cut(at)) = self;
        let at = usize::from(at);
        if at >= bytes.len() {
            return;
        }
        match self {
            Self::Flip(_, bits) => bytes[at] ^= bits,
            Self::Insert(_, byte) => bytes.insert(at, byte),
            Self::Remove(_) => drop(bytes.remove(at)),
            Self::Cut(_) => bytes.truncate(at),
        }
    }
}
