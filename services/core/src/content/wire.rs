//! The encoding of `shoal/content/v2/manifest.proto`, by hand (ADR 3): this crate uses no protobuf
//! library, and a decoder that counts entries before there is memory for them bounds memory.

use prost::encoding::{self, WireType};

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a type that no field has here.
    Other,
}

/// The bytes are not a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

impl Malformed {
    pub(super) fn new(why: &(impl ToString + ?Sized)) -> Self {
        Self(why.to_string())
    }
}

/// The fields of a message, one after another, until the end or an error.
pub(super) fn fields(mut rest: &[u8]) -> impl Iterator<Item = Result<(u32, Value<'_>), Malformed>> {
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

fn field<'a>(rest: &mut &'a [u8]) -> Result<(u32, Value<'a>), Malformed> {
    let (tag, wire_type) = encoding::decode_key(rest).map_err(|error| Malformed::new(&error))?;
    let mut number = || encoding::decode_varint(rest).map_err(|error| Malformed::new(&error));
    let (length, is_known) = match wire_type {
        WireType::Varint => return Ok((tag, Value::Number(number()?))),
        WireType::LengthDelimited => {
            let length = usize::try_from(number()?);
            (length.map_err(|_| Malformed::new("a length is too large"))?, true)
        }
        WireType::SixtyFourBit => (8, false),
        WireType::ThirtyTwoBit => (4, false),
        WireType::StartGroup | WireType::EndGroup => return Err(Malformed::new("it has groups")),
    };
    let (value, after) =
        rest.split_at_checked(length).ok_or_else(|| Malformed::new("it is cut short"))?;
    *rest = after;
    Ok((tag, if is_known { Value::Bytes(value) } else { Value::Other }))
}

/// The numbers of a packed field.
pub(super) fn numbers(mut rest: &[u8]) -> impl Iterator<Item = Result<u64, Malformed>> {
    std::iter::from_fn(move || {
        let next = |rest: &mut &[u8]| {
            encoding::decode_varint(rest).map_err(|error| Malformed::new(&error))
        };
        (!rest.is_empty()).then(|| next(&mut rest).inspect_err(|_| rest = &[]))
    })
}

/// A hash: exactly 32 bytes.
pub(super) fn hash(bytes: &[u8]) -> Result<[u8; 32], Malformed> {
    bytes.try_into().map_err(|_| Malformed::new("a hash is not 32 bytes long"))
}

/// A number that is at most `u32::MAX`.
pub(super) fn small(number: u64) -> Result<u32, Malformed> {
    u32::try_from(number).map_err(|_| Malformed::new("a number is too large"))
}

/// Appends fields; one with its default value is left out.
pub(super) fn put_number(tag: u32, number: u64, out: &mut Vec<u8>) {
    if number != 0 {
        encoding::uint64::encode(tag, &number, out);
    }
}

pub(super) fn put_signed(tag: u32, number: i64, out: &mut Vec<u8>) {
    if number != 0 {
        encoding::sint64::encode(tag, &number, out);
    }
}

pub(super) fn put_bytes(tag: u32, bytes: &[u8], out: &mut Vec<u8>) {
    if !bytes.is_empty() {
        put_element(tag, bytes, out);
    }
}

pub(super) fn put_numbers(tag: u32, numbers: &[u32], out: &mut Vec<u8>) {
    if !numbers.is_empty() {
        encoding::uint32::encode_packed(tag, numbers, out);
    }
}

/// An element of a repeated field, which may be empty.
pub(super) fn put_element(tag: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encoding::encode_key(tag, WireType::LengthDelimited, out);
    encoding::encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// The number that zigzag-encoding stands for, as protobuf's sint64.
pub(super) const fn signed(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}
