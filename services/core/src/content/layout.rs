//! All arithmetic of pieces, files and blocks.
//!
//! Pieces have equal length; each file starts on a piece boundary, so a file's last piece may be
//! shorter. A piece is transferred in parts that start and end at multiples of [`BLOCK_UNIT`],
//! except at the end of a piece.

use std::ops::Range;

/// Bytes of the smallest tracked part of a piece: BitTorrent's block of 16 KiB.
pub const BLOCK_UNIT: u32 = 16 * 1024;

/// Pieces that a content may have.
pub const MAX_PIECE_COUNT: u32 = 1 << 20;

/// The number of a piece, counted from 0 through all files of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceIndex(u32);

impl PieceIndex {
    /// The piece with this number. [`Layout`] tells whether a content has it.
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// Its number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// Bytes in a piece: a power of two from 64 KiB to 16 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PieceLength(u32);

impl PieceLength {
    /// 64 KiB.
    pub const MIN: Self = Self(64 * 1024);
    /// 256 KiB, as in the textbook.
    pub const TEXTBOOK: Self = Self(256 * 1024);
    /// 16 MiB.
    pub const MAX: Self = Self(16 * 1024 * 1024);

    /// A piece with this many bytes.
    pub fn new(bytes: u64) -> Result<Self, LayoutError> {
        let fits = (u64::from(Self::MIN.0)..=u64::from(Self::MAX.0)).contains(&bytes);
        if !fits || !bytes.is_power_of_two() {
            return Err(LayoutError::PieceLength(bytes));
        }
        Ok(Self(bytes as u32))
    }

    /// The length for a content with this many bytes: the textbook's 256 KiB, or the smallest
    /// larger power of two with at most 8,192 pieces. Below 64 MiB it is shorter, for 512 pieces:
    /// in simulation small contents spread 1-4 % faster that way, and more pieces only cost more
    /// calls.
    pub fn for_size(total_bytes: u64) -> Self {
        let (most, least, longest) = if total_bytes < 64 << 20 {
            (512, Self::MIN, Self::TEXTBOOK)
        } else {
            (8192, Self::TEXTBOOK, Self::MAX)
        };
        let bytes = total_bytes.div_ceil(most).next_power_of_two();
        Self(bytes.clamp(u64::from(least.0), u64::from(longest.0)) as u32)
    }

    /// Bytes.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// A part of a piece: `length` bytes from `offset` on, never empty, never past the end of the
/// piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockRange {
    /// The piece.
    pub piece: PieceIndex,
    /// Bytes from the start of the piece.
    pub offset: u32,
    /// Bytes.
    pub length: u32,
}

impl BlockRange {
    /// The first byte after it, from the start of the piece.
    pub const fn end(&self) -> u32 {
        self.offset + self.length
    }
}

/// Where a piece lies: its file, and its bytes in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSpan {
    /// Number of the file in the manifest.
    pub file: usize,
    /// Bytes from the start of the file.
    pub offset: u64,
    /// Bytes.
    pub length: u32,
}

/// A content cannot be cut into pieces this way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Not a power of two between 64 KiB and 16 MiB.
    #[error("a piece is a power of two from 65536 to 16777216 bytes long, not {0}")]
    PieceLength(u64),
    /// More than [`MAX_PIECE_COUNT`].
    #[error("{0} pieces are more than the {MAX_PIECE_COUNT} allowed; choose longer pieces")]
    TooManyPieces(u64),
    /// The sizes of the files add up to more than 2^63 bytes.
    #[error("the files are larger than any disk")]
    TooLarge,
    /// There is no such piece, or no such bytes in it.
    #[error("piece {piece} has no bytes {offset} to {end}")]
    OutOfRange {
        /// The requested piece.
        piece: u32,
        /// The first requested byte.
        offset: u64,
        /// The first byte after the requested ones.
        end: u64,
    },
}

/// How the files of a content are cut into pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    piece_length: PieceLength,
    sizes: Vec<u64>,
    /// Number of each file's first piece; after the last file the number of all pieces.
    first_pieces: Vec<u32>,
    total_bytes: u64,
}

impl Layout {
    /// Cuts files of these sizes, in this order, into pieces.
    pub fn new(piece_length: PieceLength, sizes: Vec<u64>) -> Result<Self, LayoutError> {
        let mut first_pieces = Vec::with_capacity(sizes.len() + 1);
        let (mut pieces, mut total_bytes) = (0_u64, 0_u64);
        for size in &sizes {
            first_pieces.push(pieces as u32);
            total_bytes = total_bytes
                .checked_add(*size)
                .filter(|total| *total <= 1 << 63)
                .ok_or(LayoutError::TooLarge)?;
            pieces += size.div_ceil(u64::from(piece_length.get()));
            if pieces > u64::from(MAX_PIECE_COUNT) {
                return Err(LayoutError::TooManyPieces(pieces));
            }
        }
        first_pieces.push(pieces as u32);
        Ok(Self { piece_length, sizes, first_pieces, total_bytes })
    }

    /// Bytes in every piece except the last of a file.
    pub const fn piece_length(&self) -> PieceLength {
        self.piece_length
    }

    /// Pieces of all files.
    pub fn piece_count(&self) -> u32 {
        self.first_pieces[self.sizes.len()]
    }

    /// Bytes of all files.
    pub const fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Files.
    pub fn file_count(&self) -> usize {
        self.sizes.len()
    }

    /// Bytes of a file.
    pub fn file_size(&self, file: usize) -> u64 {
        self.sizes[file]
    }

    /// The piece with this number, if the content has it.
    pub fn piece(&self, index: u32) -> Option<PieceIndex> {
        (index < self.piece_count()).then_some(PieceIndex(index))
    }

    /// All pieces, in order.
    pub fn pieces(&self) -> impl ExactSizeIterator<Item = PieceIndex> + use<> {
        (0..self.piece_count()).map(PieceIndex)
    }

    /// The pieces of a file; none if it is empty.
    pub fn pieces_of_file(&self, file: usize) -> impl ExactSizeIterator<Item = PieceIndex> + use<> {
        let Range { start, end } = self.first_pieces[file]..self.first_pieces[file + 1];
        (start..end).map(PieceIndex)
    }

    /// Where a piece of this content lies.
    pub fn span(&self, piece: PieceIndex) -> FileSpan {
        debug_assert!(piece.0 < self.piece_count(), "a piece of another content");
        // Empty files share their first piece with the next file: the last such file is the owner.
        let file = self.first_pieces.partition_point(|first| *first <= piece.0) - 1;
        let whole = u64::from(self.piece_length.get());
        let offset = u64::from(piece.0 - self.first_pieces[file]) * whole;
        FileSpan { file, offset, length: (self.sizes[file] - offset).min(whole) as u32 }
    }

    /// Bytes of a piece of this content.
    pub fn length_of(&self, piece: PieceIndex) -> u32 {
        self.span(piece).length
    }

    /// A whole piece.
    pub fn whole(&self, piece: PieceIndex) -> BlockRange {
        BlockRange { piece, offset: 0, length: self.length_of(piece) }
    }

    /// Checks a stranger's request; a `length` of 0 means up to the end of the piece.
    pub fn range(&self, piece: u32, offset: u32, length: u32) -> Result<BlockRange, LayoutError> {
        let end = u64::from(offset) + u64::from(length);
        let refuse = || LayoutError::OutOfRange { piece, offset: u64::from(offset), end };
        let index = self.piece(piece).ok_or_else(refuse)?;
        let whole = self.length_of(index);
        if offset >= whole || end > u64::from(whole) {
            return Err(refuse());
        }
        let length = if length == 0 { whole - offset } else { length };
        Ok(BlockRange { piece: index, offset, length })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layout(sizes: &[u64]) -> Layout {
        Layout::new(PieceLength::MIN, sizes.to_vec()).unwrap()
    }

    #[test]
    fn each_file_starts_on_a_piece_boundary() {
        let layout = layout(&[0, 100_000, 0, 0, 1, 65_536]);
        let spans: Vec<_> = layout.pieces().map(|piece| layout.span(piece)).collect();
        assert_eq!(
            spans,
            [
                FileSpan { file: 1, offset: 0, length: 65_536 },
                FileSpan { file: 1, offset: 65_536, length: 34_464 },
                FileSpan { file: 4, offset: 0, length: 1 },
                FileSpan { file: 5, offset: 0, length: 65_536 },
            ]
        );
    }

    #[test]
    fn the_piece_length_follows_the_size() {
        for (bytes, expected) in [
            (0, 64 << 10),
            (32 << 20, 64 << 10),
            ((32 << 20) + 1, 128 << 10),
            ((64 << 20) - 1, 128 << 10),
            (64 << 20, 256 << 10),
            (2 << 30, 256 << 10),
            ((2 << 30) + 1, 512 << 10),
            (1 << 50, 16 << 20),
        ] {
            assert_eq!(PieceLength::for_size(bytes).get(), expected, "{bytes}");
        }
    }

    #[test]
    fn a_thousand_million_pieces_are_refused() {
        let refused = Layout::new(PieceLength::MIN, vec![65_536 * 1_000_000_000]);
        assert_eq!(refused, Err(LayoutError::TooManyPieces(1_000_000_000)));
        assert_eq!(Layout::new(PieceLength::MAX, vec![0, u64::MAX]), Err(LayoutError::TooLarge));
    }

    #[test]
    fn a_range_outside_its_piece_is_refused() {
        let layout = layout(&[100_000]);
        assert!(layout.range(2, 0, 0).is_err());
        assert!(layout.range(1, 34_464, 0).is_err());
        assert!(layout.range(1, 0, 34_465).is_err());
        assert!(layout.range(0, u32::MAX, u32::MAX).is_err());
        let rest = layout.range(1, 16_384, 0).unwrap();
        assert_eq!((rest.length, rest.end()), (34_464 - 16_384, 34_464));
    }

    proptest! {
        #[test]
        fn the_pieces_cover_every_byte_once(sizes in prop::collection::vec(0_u64..400_000, 0..12)) {
            let layout = layout(&sizes);
            let mut covered = vec![0; sizes.len()];
            for piece in layout.pieces() {
                let span = layout.span(piece);
                prop_assert_eq!(covered[span.file], span.offset);
                prop_assert!(span.length > 0 && span.length <= layout.piece_length().get());
                prop_assert!(layout.pieces_of_file(span.file).any(|p| p == piece));
                covered[span.file] += u64::from(span.length);
            }
            prop_assert_eq!(covered, sizes);
        }

        #[test]
        fn a_checked_range_lies_within_its_piece(size in 1_u64..400_000, piece: u32, offset: u32, length: u32) {
            let layout = layout(&[size]);
            if let Ok(range) = layout.range(piece % 8, offset % 70_000, length % 70_000) {
                prop_assert!(range.length > 0 && range.end() <= layout.length_of(range.piece));
            }
        }
    }
}
