//! The id of a content: the hash of its descriptor.

use std::{fmt, str::FromStr};

/// The BLAKE3 hash of a descriptor. Written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentId([u8; 32]);

impl ContentId {
    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The id of the content with this encoded descriptor.
    pub fn of_descriptor(encoded: &[u8]) -> Self {
        Self(*blake3::hash(encoded).as_bytes())
    }

    /// Its 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentId({self})")
    }
}

/// The text is not a content id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a content id is 64 lower-case hex digits, not {0:?}")]
pub struct ContentIdError(String);

impl FromStr for ContentId {
    type Err = ContentIdError;

    fn from_str(text: &str) -> Result<Self, ContentIdError> {
        // At most 80 characters of a stranger's text are repeated.
        let refuse = || ContentIdError(text.chars().take(80).collect());
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(refuse());
        }
        let hash = blake3::Hash::from_hex(text).map_err(|_| refuse())?;
        Ok(Self(*hash.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_as_it_is_written() {
        let id = ContentId::of_descriptor(b"descriptor");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn upper_case_short_and_strange_texts_are_refused() {
        let good = ContentId::of_descriptor(b"descriptor").to_string();
        for bad in [good.to_uppercase(), good[1..].to_owned(), String::new(), "g".repeat(64)] {
            assert!(bad.parse::<ContentId>().is_err(), "{bad}");
        }
    }
}
