//! Keys, values and records.

use bytes::Bytes;
use shoal_core::ring::{Position, Stamp};

/// Bytes of a key, at most.
pub const MAX_KEY_BYTES: usize = 256;

/// Bytes of a value, at most.
pub const MAX_VALUE_BYTES: usize = 64 << 10;

/// A key or a value is empty or too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// The key.
    #[error("a key has from 1 to {MAX_KEY_BYTES} bytes, not {0}")]
    Key(usize),
    /// The value.
    #[error("a value has up to {MAX_VALUE_BYTES} bytes, not {0}")]
    Value(usize),
}

/// The key of a value: from 1 to [`MAX_KEY_BYTES`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

impl Key {
    /// Its position on the ring. Hashes the key.
    pub fn position(&self) -> Position {
        Position::of_key(&self.0)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl TryFrom<Bytes> for Key {
    type Error = SizeError;

    fn try_from(bytes: Bytes) -> Result<Self, SizeError> {
        match bytes.len() {
            1..=MAX_KEY_BYTES => Ok(Self(bytes)),
            length => Err(SizeError::Key(length)),
        }
    }
}

/// The value of a key: up to [`MAX_VALUE_BYTES`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value(pub(super) Bytes);

impl Value {
    /// Its bytes.
    pub const fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl TryFrom<Bytes> for Value {
    type Error = SizeError;

    fn try_from(bytes: Bytes) -> Result<Self, SizeError> {
        match bytes.len() {
            0..=MAX_VALUE_BYTES => Ok(Self(bytes)),
            length => Err(SizeError::Value(length)),
        }
    }
}

/// The last write of a key, to a node's knowledge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The key.
    pub key: Key,
    /// The version of this write, and which of two records of the key is the newer.
    pub stamp: Stamp,
    /// The value; none if the key was removed: a tombstone, which prevents older values from
    /// returning.
    pub value: Option<Value>,
    /// Milliseconds since the Unix epoch at which the value expires, if it does.
    pub expires_ms: Option<u64>,
}

impl Record {
    /// There is a value, and it has not expired.
    pub fn is_live(&self, now_ms: u64) -> bool {
        self.value.is_some() && self.expires_ms.is_none_or(|expires_ms| now_ms < expires_ms)
    }

    /// The key was removed.
    pub const fn is_tombstone(&self) -> bool {
        self.value.is_none()
    }

    /// Bytes of its key and value.
    pub fn size(&self) -> usize {
        self.key.0.len() + self.value.as_ref().map_or(0, |value| value.0.len())
    }
}

#[cfg(test)]
mod tests {
    use shoal_core::ring::{NodeId, Version};
    use uuid::Uuid;

    use super::*;

    fn key(bytes: &[u8]) -> Key {
        Bytes::copy_from_slice(bytes).try_into().unwrap()
    }

    #[test]
    fn keys_and_values_beyond_their_limits_are_refused_with_a_message() {
        let refused = |length: usize| Key::try_from(Bytes::from(vec![1; length])).unwrap_err();
        assert_eq!(refused(0).to_string(), "a key has from 1 to 256 bytes, not 0");
        assert_eq!(refused(257).to_string(), "a key has from 1 to 256 bytes, not 257");
        assert_eq!(key(&[1; 256]).as_bytes().len(), 256);
        let refused = Value::try_from(Bytes::from(vec![1; 65_537])).unwrap_err();
        assert_eq!(refused.to_string(), "a value has up to 65536 bytes, not 65537");
        assert!(Value::try_from(Bytes::from(vec![1; 65_536])).is_ok());
        assert!(Value::try_from(Bytes::new()).is_ok());
    }

    #[test]
    fn a_record_lives_until_it_expires_or_is_deleted() {
        let node = NodeId::new(Uuid::from_u128(1));
        let stamp = Stamp::of(Version { epoch: 1, wall_ms: 5, counter: 0, node });
        let value = Some(Value(Bytes::new()));
        let forever = Record { key: key(b"a"), stamp, value, expires_ms: None };
        assert!(forever.is_live(u64::MAX));
        let passing = Record { expires_ms: Some(10), ..forever.clone() };
        assert!(passing.is_live(9) && !passing.is_live(10));
        assert!(!Record { value: None, ..forever }.is_live(0));
    }
}
