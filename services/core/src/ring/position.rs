//! Positions on the circle, and ranges of them.
//!
//! A ring of n bits has positions modulo 2^n. They are stored in the upper n bits of 128, so that
//! all arithmetic is that of wrapping 128-bit numbers, whatever n is; n matters only where a
//! position is created or shown.

use std::fmt;

use super::NodeId;

/// The number of bits of a ring's positions, from 1 to 128.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits(u8);

impl Bits {
    /// As nodes use: so many that no two share a position.
    pub const FULL: Self = Self(128);

    /// A ring of 2^`bits` positions, if that is from 1 to 128.
    pub const fn new(bits: u8) -> Option<Self> {
        if bits >= 1 && bits <= 128 { Some(Self(bits)) } else { None }
    }

    /// The number.
    pub const fn count(self) -> u8 {
        self.0
    }

    /// The number `value` modulo 2^n as a position.
    pub const fn position(self, value: u128) -> Position {
        Position(value << (128 - self.0))
    }

    /// The number of a position.
    pub const fn value(self, position: Position) -> u128 {
        position.0 >> (128 - self.0)
    }
}

/// A position on the circle, of a node or of a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(u128);

impl Position {
    /// The position of a key: the first 128 bits of its BLAKE3 hash.
    pub fn of_key(key: &[u8]) -> Self {
        Self::of_hash(blake3::hash(key))
    }

    /// The `index`-th position of a node: the first 128 bits of the BLAKE3 hash of its id and the
    /// index (four bytes, big-endian). So a node cannot choose its position.
    pub fn of_node(node: NodeId, index: u32) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(node.as_bytes()).update(&index.to_be_bytes());
        Self::of_hash(hasher.finalize())
    }

    fn of_hash(hash: blake3::Hash) -> Self {
        let (first, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
        Self(u128::from_be_bytes(*first))
    }

    /// The position with this number in a ring of 128 bits.
    pub const fn from_u128(value: u128) -> Self {
        Self(value)
    }

    /// The position of 32 hex digits, as it is displayed.
    pub fn from_hex(text: &str) -> Option<Self> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| u128::from_str_radix(text, 16).ok().map(Self)).flatten()
    }

    /// Its number in a ring of 128 bits.
    pub const fn to_u128(self) -> u128 {
        self.0
    }

    /// The clockwise distance from here to `other`.
    pub const fn distance_to(self, other: Self) -> u128 {
        other.0.wrapping_sub(self.0)
    }

    /// The position at this clockwise distance.
    #[must_use]
    pub const fn advanced(self, distance: u128) -> Self {
        Self(self.0.wrapping_add(distance))
    }

    /// The next position clockwise.
    #[must_use]
    pub const fn next(self) -> Self {
        self.advanced(1)
    }

    /// The previous position.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.wrapping_sub(1))
    }

    /// Lies strictly between the two, clockwise. All others lie between a position and itself.
    pub const fn is_between(self, from: Self, to: Self) -> bool {
        let here = from.distance_to(self);
        here != 0 && here <= from.distance_to(to).wrapping_sub(1)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The positions after `after` up to and including `last`, clockwise; all of them if the two are
/// equal. There is no empty range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyRange {
    /// The last position before the range.
    pub after: Position,
    /// The last position of the range.
    pub last: Position,
}

impl KeyRange {
    /// The whole circle, cut after `at`.
    pub const fn whole(at: Position) -> Self {
        Self { after: at, last: at }
    }

    /// The first position of the range.
    pub const fn first(&self) -> Position {
        self.after.next()
    }

    /// The position lies in the range.
    pub const fn contains(&self, position: Position) -> bool {
        // Distances from the first position, so that the whole circle is no special case.
        self.first().distance_to(position) <= self.first().distance_to(self.last)
    }

    /// Some position lies in both: then the range that ends first ends within the other.
    pub const fn overlaps(&self, other: Self) -> bool {
        self.contains(other.last) || other.contains(self.last)
    }
}

impl fmt::Display for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}, {}]", self.after, self.last)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn four(value: u128) -> Position {
        Bits::new(4).expect("four bits are a ring").position(value)
    }

    #[test]
    fn a_ring_has_from_1_to_128_bits() {
        assert_eq!(Bits::new(0), None);
        assert_eq!(Bits::new(129), None);
        assert_eq!(Bits::new(128), Some(Bits::FULL));
    }

    #[test]
    fn positions_are_modulo_the_size_of_the_ring() {
        assert_eq!(four(16 + 3), four(3));
        assert_eq!(four(15).distance_to(four(1)), four(2).to_u128());
        let bits = Bits::new(4).expect("four bits are a ring");
        assert_eq!(bits.value(four(13)), 13);
    }

    #[test]
    fn a_range_may_pass_zero_and_may_be_the_whole_circle() {
        let wrapping = KeyRange { after: four(12), last: four(1) };
        for (value, inside) in [(12, false), (13, true), (0, true), (1, true), (2, false)] {
            assert_eq!(wrapping.contains(four(value)), inside, "{value}");
        }
        for value in 0..16 {
            assert!(KeyRange::whole(four(5)).contains(four(value)), "{value}");
        }
    }

    #[test]
    fn a_position_reads_as_it_is_displayed() {
        let position = Position::from_u128(u128::MAX / 3);
        assert_eq!(Position::from_hex(&position.to_string()), Some(position));
        for text in
            ["", "1", "+0000000000000000000000000000001", "x0000000000000000000000000000001"]
        {
            assert_eq!(Position::from_hex(text), None, "{text}");
        }
    }

    #[test]
    fn between_a_position_and_itself_lie_all_others() {
        assert!(four(4).is_between(four(5), four(5)));
        assert!(!four(5).is_between(four(5), four(5)));
    }

    proptest! {
        #[test]
        fn between_is_a_range_without_its_last_position(from: u128, to: u128, at: u128) {
            let [from, to, at] = [from, to, at].map(Position::from_u128);
            let inside = KeyRange { after: from, last: to }.contains(at) && at != to;
            prop_assert_eq!(at.is_between(from, to), inside);
        }

        #[test]
        fn a_range_and_its_complement_share_nothing(from: u128, to: u128, at: u128) {
            prop_assume!(from != to);
            let [from, to, at] = [from, to, at].map(Position::from_u128);
            prop_assert_ne!(KeyRange { after: from, last: to }.contains(at), KeyRange { after: to, last: from }.contains(at));
        }

        #[test]
        fn what_is_advanced_by_a_distance_is_at_that_distance(from: u128, distance: u128) {
            let from = Position::from_u128(from);
            prop_assert_eq!(from.distance_to(from.advanced(distance)), distance);
        }
    }
}
