//! The set of pieces that a peer holds, one bit each.

use super::PieceIndex;

/// A set of pieces of one content. Bits past the last piece are always zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitfield {
    words: Vec<u64>,
    piece_count: u32,
    held: u32,
}

/// The bytes are not a bitfield of the content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BitfieldError {
    /// Too many or too few bytes.
    #[error("a bitfield of {piece_count} pieces has {expected} bytes, not {actual}")]
    Length {
        /// Pieces of the content.
        piece_count: u32,
        /// Expected bytes.
        expected: usize,
        /// Actual bytes.
        actual: usize,
    },
    /// A bit after the last piece is set.
    #[error("the bitfield has pieces after the last one")]
    SpareBits,
}

impl Bitfield {
    /// None of `piece_count` pieces.
    pub fn empty(piece_count: u32) -> Self {
        Self { words: vec![0; piece_count.div_ceil(64) as usize], piece_count, held: 0 }
    }

    /// All of `piece_count` pieces.
    pub fn full(piece_count: u32) -> Self {
        let mut words = vec![u64::MAX; piece_count.div_ceil(64) as usize];
        if let (Some(last), spare @ 1..) = (words.last_mut(), piece_count % 64) {
            *last >>= 64 - spare;
        }
        Self { words, piece_count, held: piece_count }
    }

    /// Parses the wire format: bit i, from the most significant bit of byte 0 on, is piece i.
    pub fn from_wire(bytes: &[u8], piece_count: u32) -> Result<Self, BitfieldError> {
        let expected = piece_count.div_ceil(8) as usize;
        if bytes.len() != expected {
            return Err(BitfieldError::Length { piece_count, expected, actual: bytes.len() });
        }
        let mut field = Self::empty(piece_count);
        for (word, chunk) in field.words.iter_mut().zip(bytes.chunks(8)) {
            let mut buffer = [0; 8];
            buffer[..chunk.len()].copy_from_slice(chunk);
            *word = u64::from_be_bytes(buffer).reverse_bits();
        }
        field.held = field.words.iter().map(|word| word.count_ones()).sum();
        let past_end = field.words.last().map_or(0, |last| match piece_count % 64 {
            0 => 0,
            used => last >> used,
        });
        if past_end != 0 {
            return Err(BitfieldError::SpareBits);
        }
        Ok(field)
    }

    /// The wire format, as [`Bitfield::from_wire`] parses it.
    pub fn to_wire(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> =
            self.words.iter().flat_map(|word| word.reverse_bits().to_be_bytes()).collect();
        bytes.truncate(self.piece_count.div_ceil(8) as usize);
        bytes
    }

    /// Pieces of the content.
    pub const fn piece_count(&self) -> u32 {
        self.piece_count
    }

    /// Pieces in the set.
    pub const fn held(&self) -> u32 {
        self.held
    }

    /// Every piece is in the set.
    pub const fn is_full(&self) -> bool {
        self.held == self.piece_count
    }

    /// The piece is in the set; false for a piece that the content does not have.
    pub fn has(&self, piece: PieceIndex) -> bool {
        let (word, bit) = word_and_bit(piece);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Adds a piece; true if it is new. A piece that the content does not have is not added.
    pub fn insert(&mut self, piece: PieceIndex) -> bool {
        if piece.get() >= self.piece_count || self.has(piece) {
            return false;
        }
        let (word, bit) = word_and_bit(piece);
        self.words[word] |= bit;
        self.held += 1;
        true
    }

    /// Adds the pieces of a set of the same content.
    pub fn unite(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word |= other);
        self.held = self.words.iter().map(|word| word.count_ones()).sum();
    }

    /// Removes a piece; true if it was in the set.
    pub fn remove(&mut self, piece: PieceIndex) -> bool {
        if !self.has(piece) {
            return false;
        }
        let (word, bit) = word_and_bit(piece);
        self.words[word] &= !bit;
        self.held -= 1;
        true
    }

    /// 64 pieces per word, piece 0 in the least significant bit of the first.
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    /// The pieces in the set, in order.
    pub fn iter(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        self.words.iter().enumerate().flat_map(|(at, word)| ones(at, *word))
    }

    /// The pieces of this set that `other` lacks, in order. Processes 64 pieces at a time.
    pub fn minus<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = PieceIndex> + 'a {
        let theirs = other.words.iter().copied().chain(std::iter::repeat(0));
        self.words
            .iter()
            .zip(theirs)
            .enumerate()
            .flat_map(|(at, (ours, theirs))| ones(at, ours & !theirs))
    }

    /// The pieces in both sets, in order. Processes 64 pieces at a time.
    pub fn intersection<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = PieceIndex> + 'a {
        self.words
            .iter()
            .zip(&other.words)
            .enumerate()
            .flat_map(|(at, (ours, theirs))| ones(at, ours & theirs))
    }
}

fn word_and_bit(piece: PieceIndex) -> (usize, u64) {
    ((piece.get() / 64) as usize, 1 << (piece.get() % 64))
}

/// The pieces of the word at `at`.
fn ones(at: usize, word: u64) -> impl Iterator<Item = PieceIndex> {
    let mut rest = word;
    std::iter::from_fn(move || {
        if rest == 0 {
            return None;
        }
        let bit = rest.trailing_zeros();
        rest &= rest - 1;
        Some(PieceIndex::new(at as u32 * 64 + bit))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set_of(field: &Bitfield) -> BTreeSet<u32> {
        field.iter().map(PieceIndex::get).collect()
    }

    fn field_of(count: u32, pieces: &BTreeSet<u32>) -> Bitfield {
        let mut field = Bitfield::empty(count);
        for piece in pieces {
            field.insert(PieceIndex::new(*piece));
        }
        field
    }

    #[test]
    fn piece_zero_is_the_most_significant_bit() {
        let field = field_of(10, &BTreeSet::from([0, 9]));
        assert_eq!(field.to_wire(), [0b1000_0000, 0b0100_0000]);
    }

    #[test]
    fn a_piece_after_the_last_one_is_refused() {
        assert_eq!(Bitfield::from_wire(&[0, 0b0010_0000], 10), Err(BitfieldError::SpareBits));
        assert!(Bitfield::from_wire(&[0], 10).is_err());
        assert!(Bitfield::from_wire(&[0; 3], 10).is_err());
    }

    proptest! {
        #[test]
        fn it_is_a_set(count in 1_u32..300, a in prop::collection::btree_set(0_u32..300, 0..80), b in prop::collection::btree_set(0_u32..300, 0..80)) {
            let a: BTreeSet<u32> = a.into_iter().filter(|p| *p < count).collect();
            let b: BTreeSet<u32> = b.into_iter().filter(|p| *p < count).collect();
            let (left, right) = (field_of(count, &a), field_of(count, &b));
            prop_assert_eq!(left.held() as usize, a.len());
            prop_assert_eq!(set_of(&left), a.clone());
            let minus: BTreeSet<u32> = left.minus(&right).map(PieceIndex::get).collect();
            prop_assert_eq!(minus, a.difference(&b).copied().collect::<BTreeSet<_>>());
            let both: BTreeSet<u32> = left.intersection(&right).map(PieceIndex::get).collect();
            prop_assert_eq!(both, a.intersection(&b).copied().collect::<BTreeSet<_>>());
            prop_assert_eq!(Bitfield::from_wire(&left.to_wire(), count), Ok(left));
        }

        #[test]
        fn full_holds_every_piece(count in 0_u32..300) {
            let full = Bitfield::full(count);
            prop_assert!(full.is_full());
            prop_assert_eq!(full.iter().count() as u32, count);
            prop_assert_eq!(Bitfield::from_wire(&full.to_wire(), count), Ok(full));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40), count in 0_u32..300) {
            if let Ok(field) = Bitfield::from_wire(&bytes, count) {
                prop_assert_eq!(field.to_wire(), bytes);
            }
        }
    }
}
