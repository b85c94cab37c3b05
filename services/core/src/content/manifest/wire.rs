//! `shoal/content/v1/manifest.proto`, encoded and decoded by hand, because this crate uses no
//! protobuf library.
//!
//! Decoding by hand also bounds memory: prost would turn an entry of 2 bytes into 150, a million
//! times over, before they could be counted.

use prost::encoding::{self, WireType};

use super::{FileEntry, ManifestError};

/// The least bytes of a file's entry: a root of 32 bytes and a path of one, with two bytes before
/// the root and before the path.
const MIN_FILE_BYTES: usize = 2 + 32 + 2 + 1;

const FORMAT_VERSION: u32 = 1;
const NAME: u32 = 2;
const PIECE_LENGTH: u32 = 3;
const FILES: u32 = 4;
const EMPTY_DIRECTORIES: u32 = 5;
const DIRECTORY: u32 = 6;

const PATH: u32 = 1;
const SIZE: u32 = 2;
const EXECUTABLE: u32 = 3;
const ROOT: u32 = 4;

/// A manifest as received, not checked.
#[derive(Debug, Default)]
pub(super) struct Wire<'a> {
    pub(super) format_version: u32,
    pub(super) name: &'a str,
    pub(super) piece_length: u64,
    pub(super) files: Vec<FileEntry>,
    pub(super) empty_directories: Vec<String>,
    pub(super) directory: bool,
    /// There are unknown fields.
    pub(super) has_unknown: bool,
}

impl<'a> Wire<'a> {
    /// Decodes a manifest, after its entries were counted and each was found to be possible.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, ManifestError> {
        let mut wire = Self::default();
        let (mut files, mut empty_directories) = (0, 0);
        for field in fields(bytes) {
            match field? {
                (FORMAT_VERSION, Value::Number(number)) => wire.format_version = number as u32,
                (NAME, Value::Bytes(bytes)) => wire.name = text(bytes)?,
                (PIECE_LENGTH, Value::Number(number)) => wire.piece_length = number,
                (FILES, Value::Bytes(bytes)) if bytes.len() < MIN_FILE_BYTES => {
                    return Err(malformed("a file's entry lacks a path or a root"));
                }
                (FILES, Value::Bytes(_)) => files += 1,
                (EMPTY_DIRECTORIES, Value::Bytes([])) => {
                    return Err(malformed("an empty directory has no path"));
                }
                (EMPTY_DIRECTORIES, Value::Bytes(_)) => empty_directories += 1,
                (DIRECTORY, Value::Number(number)) => wire.directory = number != 0,
                _ => wire.has_unknown = true,
            }
        }
        wire.files.reserve_exact(files);
        wire.empty_directories.reserve_exact(empty_directories);
        for field in fields(bytes) {
            match field? {
                (FILES, Value::Bytes(bytes)) => wire.files.push(read_file(bytes)?),
                (EMPTY_DIRECTORIES, Value::Bytes(bytes)) => {
                    wire.empty_directories.push(text(bytes)?.to_owned());
                }
                _ => {}
            }
        }
        Ok(wire)
    }
}

fn read_file(bytes: &[u8]) -> Result<FileEntry, ManifestError> {
    let (mut path, mut size, mut executable, mut root) = ("", 0, false, &[][..]);
    for field in fields(bytes) {
        match field? {
            (PATH, Value::Bytes(bytes)) => path = text(bytes)?,
            (SIZE, Value::Number(number)) => size = number,
            (EXECUTABLE, Value::Number(number)) => executable = number != 0,
            (ROOT, Value::Bytes(bytes)) => root = bytes,
            // The bytes will differ from those made of the known fields.
            _ => {}
        }
    }
    let root = root.try_into().map_err(|_| ManifestError::Root(path.chars().take(80).collect()))?;
    Ok(FileEntry { path: path.to_owned(), size, executable, root })
}

/// Writes the canonical bytes to `sink`, part by part: fields in order, none with its default
/// value.
pub(super) fn write(
    (format_version, name, piece_length): (u32, &str, u64),
    files: &[FileEntry],
    empty_directories: &[String],
    directory: bool,
    mut sink: impl FnMut(&[u8]),
) {
    let mut part = Vec::new();
    number(FORMAT_VERSION, u64::from(format_version), &mut part);
    bytes(NAME, name.as_bytes(), &mut part);
    number(PIECE_LENGTH, piece_length, &mut part);
    sink(&part);
    let mut entry = Vec::new();
    for file in files {
        entry.clear();
        part.clear();
        bytes(PATH, file.path.as_bytes(), &mut entry);
        number(SIZE, file.size, &mut entry);
        number(EXECUTABLE, u64::from(file.executable), &mut entry);
        bytes(ROOT, &file.root, &mut entry);
        element(FILES, &entry, &mut part);
        sink(&part);
    }
    for path in empty_directories {
        part.clear();
        element(EMPTY_DIRECTORIES, path.as_bytes(), &mut part);
        sink(&part);
    }
    part.clear();
    number(DIRECTORY, u64::from(directory), &mut part);
    sink(&part);
}

fn number(tag: u32, number: u64, out: &mut Vec<u8>) {
    if number != 0 {
        encoding::uint64::encode(tag, &number, out);
    }
}

fn bytes(tag: u32, bytes: &[u8], out: &mut Vec<u8>) {
    if !bytes.is_empty() {
        element(tag, bytes, out);
    }
}

fn element(tag: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encoding::encode_key(tag, WireType::LengthDelimited, out);
    encoding::encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a type that no field has here.
    Other,
}

/// The fields of a message, one after another, until the end or an error.
fn fields(mut rest: &[u8]) -> impl Iterator<Item = Result<(u32, Value<'_>), ManifestError>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = field(&mut rest);
        if field.is_err() {
            rest = &[];
        }
        Some(field)
    })
}

fn field<'a>(rest: &mut &'a [u8]) -> Result<(u32, Value<'a>), ManifestError> {
    let cut = || malformed("it is cut short");
    let (tag, wire_type) =
        encoding::decode_key(rest).map_err(|error| ManifestError::Encoding(error.to_string()))?;
    let mut number = || {
        encoding::decode_varint(rest).map_err(|error| ManifestError::Encoding(error.to_string()))
    };
    let (skipped, is_known) = match wire_type {
        WireType::Varint => return Ok((tag, Value::Number(number()?))),
        WireType::LengthDelimited => {
            (usize::try_from(number()?).map_err(|_| malformed("a length is too large"))?, true)
        }
        WireType::SixtyFourBit => (8, false),
        WireType::ThirtyTwoBit => (4, false),
        WireType::StartGroup | WireType::EndGroup => return Err(malformed("it has groups")),
    };
    let (value, after) = rest.split_at_checked(skipped).ok_or_else(cut)?;
    *rest = after;
    Ok((tag, if is_known { Value::Bytes(value) } else { Value::Other }))
}

fn text(bytes: &[u8]) -> Result<&str, ManifestError> {
    str::from_utf8(bytes).map_err(|error| ManifestError::Encoding(error.to_string()))
}

fn malformed(why: &str) -> ManifestError {
    ManifestError::Encoding(why.to_owned())
}
