//! One entry of a manifest: a file, a directory, or a link.

use crate::content::{
    BlobNumber, PieceHash,
    wire::{self, Malformed, Value, fields},
};

const DEPTH: u32 = 1;
const NAME: u32 = 2;
const DIRECTORY: u32 = 3;
const BLOB: u32 = 4;
const OFFSET: u32 = 5;
const SIZE: u32 = 6;
const ROOT: u32 = 7;
const TARGET: u32 = 8;
const EXECUTABLE: u32 = 9;
const PRIVATE: u32 = 10;
const MODE: u32 = 11;
const MODIFIED: u32 = 12;

/// The mode bits of those who are neither the owner nor in the group.
const OTHERS: u32 = 0o007;

/// Added to a mode, so that mode 0 differs from none.
const HAS_MODE: u32 = 0o10000;

/// One entry of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Directories above it: 0 for the content itself.
    pub depth: u32,
    /// The last component of its path; empty for the content itself.
    pub name: &'a [u8],
    /// What it is.
    pub kind: Kind<'a>,
    /// Nobody but its owner, and maybe its group, has a permission; false for a link.
    pub private: bool,
    /// More of its attributes, if they are preserved.
    pub attributes: Option<Attributes>,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A directory.
    Directory,
    /// A symbolic link with this target.
    Link(&'a [u8]),
    /// A file.
    File {
        /// Its bytes.
        part: Part,
        /// Some execute bit is set.
        executable: bool,
    },
}

/// The bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Their blob; none if the file is empty.
    pub blob: Option<BlobNumber>,
    /// The first of them in the blob.
    pub offset: u64,
    /// How many.
    pub size: u64,
    /// Their BLAKE3 hash: what `b3sum` prints.
    pub root: PieceHash,
}

/// Attributes that are preserved on request only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// The mode bits: at most 0o7777.
    pub mode: u32,
    /// Nanoseconds from 1970 to the last modification.
    pub modified_ns: i64,
}

impl Part {
    /// The bytes of an empty file.
    pub fn empty() -> Self {
        Self { blob: None, offset: 0, size: 0, root: *blake3::hash(&[]).as_bytes() }
    }
}

impl<'a> Entry<'a> {
    /// The bytes of a file; none for a directory or link.
    pub const fn part(&self) -> Option<Part> {
        match self.kind {
            Kind::File { part, .. } => Some(part),
            Kind::Directory | Kind::Link(_) => None,
        }
    }

    /// The kind, `private` and the attributes do not contradict each other.
    pub(super) const fn has_sound_mode(&self) -> bool {
        let Some(Attributes { mode, .. }) = self.attributes else {
            return !(self.private && matches!(self.kind, Kind::Link(_)));
        };
        let is_private = mode & OTHERS == 0;
        mode <= 0o7777
            && match self.kind {
                Kind::Link(_) => !self.private,
                Kind::Directory => self.private == is_private,
                Kind::File { executable, .. } => {
                    self.private == is_private && executable == (mode & 0o111 != 0)
                }
            }
    }

    /// Parses an entry; `blob` tells the size and root of a blob of the manifest.
    pub(super) fn read(
        bytes: &'a [u8],
        blob: impl FnOnce(BlobNumber) -> Option<(u64, PieceHash)>,
    ) -> Result<Self, Malformed> {
        RawEntry::read(bytes)?.into_entry(blob)
    }

    /// Appends the canonical encoding; `size_of` tells the size of a blob.
    pub(super) fn encode(
        &self,
        size_of: impl FnOnce(BlobNumber) -> Option<u64>,
        out: &mut Vec<u8>,
    ) {
        wire::put_number(DEPTH, u64::from(self.depth), out);
        wire::put_bytes(NAME, self.name, out);
        wire::put_number(DIRECTORY, u64::from(matches!(self.kind, Kind::Directory)), out);
        if let Kind::File { part: Part { blob: Some(blob), offset, size, root }, .. } = &self.kind {
            wire::put_number(BLOB, u64::from(blob.get()), out);
            if Some(*size) != size_of(*blob) {
                wire::put_number(OFFSET, *offset, out);
                wire::put_number(SIZE, *size, out);
                wire::put_bytes(ROOT, root, out);
            }
        }
        if let Kind::Link(target) = self.kind {
            wire::put_bytes(TARGET, target, out);
        }
        let executable = matches!(self.kind, Kind::File { executable: true, .. });
        wire::put_number(EXECUTABLE, u64::from(executable), out);
        wire::put_number(PRIVATE, u64::from(self.private), out);
        if let Some(Attributes { mode, modified_ns }) = self.attributes {
            wire::put_number(MODE, u64::from(mode | HAS_MODE), out);
            wire::put_signed(MODIFIED, modified_ns, out);
        }
    }
}

/// The fields of an entry.
#[derive(Default)]
struct RawEntry<'a> {
    depth: u32,
    name: &'a [u8],
    directory: bool,
    blob: u32,
    offset: u64,
    size: u64,
    root: &'a [u8],
    target: &'a [u8],
    executable: bool,
    private: bool,
    mode: u32,
    modified_ns: i64,
}

impl<'a> RawEntry<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut raw = Self::default();
        for field in fields(bytes) {
            match field? {
                (DEPTH, Value::Number(number)) => raw.depth = wire::small(number)?,
                (NAME, Value::Bytes(bytes)) => raw.name = bytes,
                (DIRECTORY, Value::Number(number)) => raw.directory = number != 0,
                (BLOB, Value::Number(number)) => raw.blob = wire::small(number)?,
                (OFFSET, Value::Number(number)) => raw.offset = number,
                (SIZE, Value::Number(number)) => raw.size = number,
                (ROOT, Value::Bytes(bytes)) => raw.root = bytes,
                (TARGET, Value::Bytes(bytes)) => raw.target = bytes,
                (EXECUTABLE, Value::Number(number)) => raw.executable = number != 0,
                (PRIVATE, Value::Number(number)) => raw.private = number != 0,
                (MODE, Value::Number(number)) => raw.mode = wire::small(number)?,
                (MODIFIED, Value::Number(number)) => raw.modified_ns = wire::signed(number),
                // The bytes will differ from those made of the known fields.
                _ => {}
            }
        }
        Ok(raw)
    }

    fn into_entry(
        self,
        blob: impl FnOnce(BlobNumber) -> Option<(u64, PieceHash)>,
    ) -> Result<Entry<'a>, Malformed> {
        let kind = if self.directory {
            Kind::Directory
        } else if !self.target.is_empty() {
            Kind::Link(self.target)
        } else {
            Kind::File { part: self.part(blob)?, executable: self.executable }
        };
        let attributes = (self.mode & HAS_MODE != 0)
            .then_some(Attributes { mode: self.mode ^ HAS_MODE, modified_ns: self.modified_ns });
        let Self { depth, name, private, .. } = self;
        Ok(Entry { depth, name, kind, private, attributes })
    }

    fn part(
        &self,
        blob: impl FnOnce(BlobNumber) -> Option<(u64, PieceHash)>,
    ) -> Result<Part, Malformed> {
        if self.blob == 0 {
            return Ok(Part::empty());
        }
        let number = BlobNumber::new(self.blob);
        if self.size == 0 {
            let (size, root) = blob(number).ok_or_else(|| Malformed::new("a file has no blob"))?;
            return Ok(Part { blob: Some(number), offset: 0, size, root });
        }
        let root = wire::hash(self.root)?;
        Ok(Part { blob: Some(number), offset: self.offset, size: self.size, root })
    }
}
