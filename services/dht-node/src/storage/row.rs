//! The format of records in the database.

use bytes::Bytes;
use shoal_core::ring::{Position, Stamp, Version};

use super::record::{Key, MAX_VALUE_BYTES, Record, Value};

/// The first byte of a row, so that rows of several formats can be stored side by side.
const ENCODING: u8 = 1;

/// Bytes of a position.
pub(super) const POSITION_BYTES: usize = size_of::<u128>();

/// Bytes of a row before its epoch, expiry or value: the format, the version, the flags.
const HEAD_BYTES: usize = 2 + Version::BYTES;

/// Bytes that redb and the index of ends use for each record in addition to its row and twice its
/// row key.
const ENTRY_BYTES: usize = 64;

const HAS_VALUE: u8 = 1;
const HAS_EXPIRY: u8 = 2;
/// It was written again, under a later epoch than that of its version.
const HAS_EPOCH: u8 = 4;

/// Approximate bytes of a key and a row on disk: redb gives a large row a page of a power of two,
/// and small rows share pages that are half full on average.
pub(super) const fn footprint(key: usize, row: usize) -> u64 {
    (2 * (POSITION_BYTES + key) + row + ENTRY_BYTES).next_power_of_two() as u64
}

impl Record {
    /// Approximate bytes on disk.
    pub fn footprint(&self) -> u64 {
        footprint(self.key.as_bytes().len(), self.row().len())
    }

    /// The record as in the database.
    pub(super) fn row(&self) -> Row<'_> {
        Row {
            stamp: self.stamp,
            value: self.value.as_ref().map(|value| &**value.as_bytes()),
            expires_ms: self.expires_ms,
        }
    }
}

/// A record without its key and value.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowInfo {
    pub(super) stamp: Stamp,
    pub(super) is_tombstone: bool,
    pub(super) ends_ms: Option<u64>,
    pub(super) row_bytes: usize,
}

/// A record without its key, as in the database.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub(super) stamp: Stamp,
    pub(super) value: Option<&'a [u8]>,
    pub(super) expires_ms: Option<u64>,
}

impl<'a> Row<'a> {
    /// Bytes of its encoding.
    fn len(&self) -> usize {
        let numbers = self.epoch().iter().chain(&self.expires_ms).count();
        HEAD_BYTES + numbers * size_of::<u64>() + self.value.map_or(0, <[u8]>::len)
    }

    /// The epoch, if it is not that of the version.
    fn epoch(&self) -> Option<u64> {
        let Stamp { epoch, version } = self.stamp;
        (epoch != version.epoch).then_some(epoch)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let value = self.value.unwrap_or_default();
        let mut row = Vec::with_capacity(self.len());
        row.push(ENCODING);
        row.extend(self.stamp.version.to_bytes());
        let (epoch, flag) = (self.epoch(), |is_there, flag| if is_there { flag } else { 0 });
        let has_value = flag(self.value.is_some(), HAS_VALUE);
        let has_expiry = flag(self.expires_ms.is_some(), HAS_EXPIRY);
        row.push(has_value | has_expiry | flag(epoch.is_some(), HAS_EPOCH));
        row.extend(epoch.iter().chain(&self.expires_ms).flat_map(|number| number.to_be_bytes()));
        row.extend_from_slice(value);
        row
    }

    /// None if the bytes are not a record.
    pub(super) fn parse(row: &'a [u8]) -> Option<Self> {
        let (&encoding, rest) = row.split_first()?;
        let (version, rest) = rest.split_first_chunk()?;
        let (&flags, mut rest) = rest.split_first()?;
        if encoding != ENCODING || flags & !(HAS_VALUE | HAS_EXPIRY | HAS_EPOCH) != 0 {
            return None;
        }
        let mut stamp = Stamp::of(Version::from_bytes(version));
        if flags & HAS_EPOCH != 0 {
            stamp.epoch = number(&mut rest).filter(|epoch| *epoch > stamp.epoch)?;
        }
        let mut expires_ms = None;
        if flags & HAS_EXPIRY != 0 {
            expires_ms = Some(number(&mut rest)?);
        }
        let value = match flags & HAS_VALUE {
            0 if rest.is_empty() => None,
            HAS_VALUE if rest.len() <= MAX_VALUE_BYTES => Some(rest),
            _ => return None,
        };
        Some(Self { stamp, value, expires_ms })
    }

    /// Milliseconds since the Unix epoch at which the record ends: for a tombstone the time of its
    /// write, for a value its expiry. A version's time may be later than its expiry; older versions
    /// are hidden from then on.
    fn ends_ms(&self) -> Option<u64> {
        let written_ms = self.stamp.version.wall_ms;
        match (self.value, self.expires_ms) {
            (None, _) => Some(written_ms),
            (Some(_), expires_ms) => expires_ms.map(|expires_ms| expires_ms.max(written_ms)),
        }
    }

    /// The part that the sums need.
    pub(super) fn info(&self) -> RowInfo {
        let (stamp, is_tombstone) = (self.stamp, self.value.is_none());
        RowInfo { stamp, is_tombstone, ends_ms: self.ends_ms(), row_bytes: self.len() }
    }

    pub(super) fn to_record(self, key: Key) -> Record {
        Record {
            key,
            stamp: self.stamp,
            value: self.value.map(|value| Value(Bytes::copy_from_slice(value))),
            expires_ms: self.expires_ms,
        }
    }
}

/// Takes a number from the beginning of a row.
fn number(row: &mut &[u8]) -> Option<u64> {
    let (number, rest) = row.split_first_chunk()?;
    *row = rest;
    Some(u64::from_be_bytes(*number))
}

/// The row key of a key in the database: its position, then the key, so that neighbours on the ring
/// are neighbours on disk.
pub(super) fn row_key(key: &Key) -> Vec<u8> {
    let mut row_key = Vec::with_capacity(POSITION_BYTES + key.as_bytes().len());
    row_key.extend(key.position().to_u128().to_be_bytes());
    row_key.extend_from_slice(key.as_bytes());
    row_key
}

/// The position and the key of a row key.
pub(super) fn parse_row_key(row_key: &[u8]) -> Option<(Position, Key)> {
    let (position, key) = row_key.split_first_chunk()?;
    let key = Bytes::copy_from_slice(key).try_into().ok()?;
    Some((Position::from_u128(u128::from_be_bytes(*position)), key))
}

/// The entry of a record's end in the index of ends: its leaf, then its time, then its row key. So
/// the oldest records of a range are found without reading those of other ranges.
pub(super) fn end_of(leaf: usize, ends_ms: u64, row_key: &[u8]) -> Vec<u8> {
    [&(leaf as u16).to_be_bytes()[..], &ends_ms.to_be_bytes(), row_key].concat()
}

/// The leaf, position and key of an entry of the index of ends.
pub(super) fn parse_end(end: &[u8]) -> Option<(usize, Position, Key)> {
    let (leaf, rest) = end.split_first_chunk()?;
    let (_, row_key) = rest.split_at_checked(size_of::<u64>())?;
    let (position, key) = parse_row_key(row_key)?;
    Some((usize::from(u16::from_be_bytes(*leaf)), position, key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shoal_core::ring::NodeId;
    use uuid::Uuid;

    use super::*;
    use crate::storage::MAX_KEY_BYTES;

    fn key(bytes: &[u8]) -> Key {
        Bytes::copy_from_slice(bytes).try_into().unwrap()
    }

    prop_compose! {
        fn records()(
            name in prop::collection::vec(any::<u8>(), 1..MAX_KEY_BYTES),
            epoch: u64,
            again in prop_oneof![Just(0), 0..9_u64],
            wall_ms: u64,
            counter: u32,
            number: u128,
            value in prop::option::of(prop::collection::vec(any::<u8>(), 0..100)),
            expires_ms: Option<u64>,
        ) -> Record {
            let node = NodeId::new(Uuid::from_u128(number));
            Record {
                key: key(&name),
                stamp: Stamp {
                    epoch: epoch.saturating_add(again),
                    version: Version { epoch, wall_ms, counter, node },
                },
                value: value.map(|value| Value(value.into())),
                expires_ms,
            }
        }
    }

    #[test]
    fn a_value_ends_when_it_expires_and_a_tombstone_when_it_was_written() {
        let node = NodeId::new(Uuid::from_u128(1));
        let stamp = Stamp::of(Version { epoch: 1, wall_ms: 5, counter: 0, node });
        let value = Some(Value(Bytes::new()));
        let forever = Record { key: key(b"a"), stamp, value, expires_ms: None };
        let ends = |record: &Record| record.row().ends_ms();
        assert_eq!(ends(&forever), None);
        assert_eq!(ends(&Record { expires_ms: Some(10), ..forever.clone() }), Some(10));
        assert_eq!(ends(&Record { expires_ms: Some(2), ..forever.clone() }), Some(5));
        assert_eq!(ends(&Record { value: None, ..forever }), Some(5));
    }

    proptest! {
        #[test]
        fn a_row_gives_the_record_back(record in records()) {
            let row = record.row().encode();
            prop_assert_eq!(row.len(), record.row().len());
            let parsed = Row::parse(&row).unwrap();
            prop_assert_eq!(parsed.to_record(record.key.clone()), record.clone());
            let encoded = row_key(&record.key);
            prop_assert_eq!(parse_row_key(&encoded), Some((record.key.position(), record.key)));
        }

        #[test]
        fn a_row_that_was_cut_or_is_of_another_encoding_is_no_record(record in records(), cut: u8) {
            let mut row = record.row().encode();
            let head = HEAD_BYTES.min(row.len() - 1);
            prop_assert!(Row::parse(&row[..usize::from(cut) % head]).is_none());
            row[0] += 1;
            prop_assert!(Row::parse(&row).is_none());
        }

        #[test]
        fn no_row_and_no_row_key_reach_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = (Row::parse(&bytes).map(|row| row.info()), parse_row_key(&bytes));
        }
    }
}
