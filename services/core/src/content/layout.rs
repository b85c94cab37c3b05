//! All arithmetic of pieces, blobs and blocks.
//!
//! The pieces of a content are those of its manifest, and then those of its blobs. Pieces have
//! equal length; each blob starts on a piece boundary, so a blob's last piece may be shorter. A
//! piece is transferred in parts that start and end at multiples of [`BLOCK_UNIT`], except at the
//! end of a piece.

use std::ops::Range;

/// Bytes of the smallest tracked part of a piece: BitTorrent's block of 16 KiB.
pub const BLOCK_UNIT: u32 = 16 * 1024;

/// Pieces that a content may have.
pub const MAX_PIECE_COUNT: u32 = 1 << 20;

/// The number of a piece, counted from 0 through the manifest and all blobs of a content.
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

/// The number of a blob: 0 is the manifest, and the blobs of the manifest follow from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobNumber(u32);

impl BlobNumber {
    /// The manifest.
    pub const MANIFEST: Self = Self(0);

    /// The blob with this number.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// Where a piece lies: its blob, and its bytes in the blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The blob.
    pub blob: BlobNumber,
    /// Bytes from the start of the blob.
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
    /// The sizes of the blobs add up to more than 2^63 bytes.
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

/// How the manifest and the blobs of a content are cut into pieces.
///
/// Before the manifest is known, only the pieces of the manifest itself are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    piece_length: PieceLength,
    piece_count: u32,
    /// Of the manifest, and of the blobs that are known.
    sizes: Vec<u64>,
    /// Number of each blob's first piece; after the last known blob the number of all known pieces.
    first_pieces: Vec<u32>,
}

impl Layout {
    /// Bytes in a piece of a manifest.
    pub const MANIFEST_PIECE: PieceLength = PieceLength::TEXTBOOK;

    /// The layout of a content whose manifest, of this many bytes, is not known yet, but the number
    /// of the pieces of its blobs is.
    pub fn of_manifest(
        manifest_bytes: u64,
        piece_length: PieceLength,
        blob_pieces: u32,
    ) -> Result<Self, LayoutError> {
        let mut layout = Self {
            piece_length,
            piece_count: 0,
            sizes: Vec::with_capacity(1),
            first_pieces: vec![0],
        };
        layout.push(manifest_bytes)?;
        let pieces = u64::from(layout.known_pieces()) + u64::from(blob_pieces);
        layout.piece_count = checked_count(pieces)?;
        Ok(layout)
    }

    /// The layout of a content with a manifest of this many bytes and blobs of these sizes.
    pub fn new(
        manifest_bytes: u64,
        piece_length: PieceLength,
        blobs: impl IntoIterator<Item = u64>,
    ) -> Result<Self, LayoutError> {
        let mut layout = Self::of_manifest(manifest_bytes, piece_length, 0)?;
        let mut total = manifest_bytes;
        for size in blobs {
            let sum = total.checked_add(size).filter(|total| *total <= 1 << 63);
            total = sum.ok_or(LayoutError::TooLarge)?;
            layout.push(size)?;
        }
        layout.piece_count = layout.known_pieces();
        Ok(layout)
    }

    fn push(&mut self, size: u64) -> Result<(), LayoutError> {
        let length = self.piece_length_in(BlobNumber(self.sizes.len() as u32));
        let pieces = size.div_ceil(u64::from(length.get()));
        let end = checked_count(u64::from(self.known_pieces()).saturating_add(pieces))?;
        self.sizes.push(size);
        self.first_pieces.push(end);
        Ok(())
    }

    /// Bytes in every piece of a blob except its last.
    pub const fn piece_length(&self) -> PieceLength {
        self.piece_length
    }

    /// Bytes in the longest of the pieces whose places are known.
    pub fn known_piece_length(&self) -> PieceLength {
        if self.is_known() { self.piece_length } else { Self::MANIFEST_PIECE }
    }

    /// Bytes in every piece of this blob, or of the manifest, except the last.
    const fn piece_length_in(&self, blob: BlobNumber) -> PieceLength {
        match blob {
            BlobNumber::MANIFEST => Self::MANIFEST_PIECE,
            _ => self.piece_length,
        }
    }

    /// Pieces of the manifest and of all blobs.
    pub const fn piece_count(&self) -> u32 {
        self.piece_count
    }

    /// The first pieces, whose places are known: those of the manifest, or all.
    pub fn known_pieces(&self) -> u32 {
        self.first_pieces[self.sizes.len()]
    }

    /// The places of all pieces are known.
    pub fn is_known(&self) -> bool {
        self.known_pieces() == self.piece_count
    }

    /// The known blobs, the manifest first.
    pub fn blobs(&self) -> impl ExactSizeIterator<Item = BlobNumber> + use<> {
        (0..self.sizes.len() as u32).map(BlobNumber)
    }

    /// Bytes of a blob.
    pub fn size_of(&self, blob: BlobNumber) -> u64 {
        self.sizes[blob.0 as usize]
    }

    /// The piece with this number, if the content has it and its place is known.
    pub fn piece(&self, index: u32) -> Option<PieceIndex> {
        (index < self.known_pieces()).then_some(PieceIndex(index))
    }

    /// All pieces whose places are known, in order.
    pub fn pieces(&self) -> impl ExactSizeIterator<Item = PieceIndex> + use<> {
        (0..self.known_pieces()).map(PieceIndex)
    }

    /// The pieces of a blob.
    pub fn pieces_of(&self, blob: BlobNumber) -> impl ExactSizeIterator<Item = PieceIndex> + use<> {
        let number = blob.0 as usize;
        let Range { start, end } = self.first_pieces[number]..self.first_pieces[number + 1];
        (start..end).map(PieceIndex)
    }

    /// The pieces that have bytes of this range of a blob.
    pub fn pieces_within(
        &self,
        blob: BlobNumber,
        range: &Range<u64>,
    ) -> impl ExactSizeIterator<Item = PieceIndex> + use<> {
        let whole = u64::from(self.piece_length_in(blob).get());
        let first = self.first_pieces[blob.0 as usize];
        let end = if range.is_empty() { range.start / whole } else { range.end.div_ceil(whole) };
        (first + (range.start / whole) as u32..first + end as u32).map(PieceIndex)
    }

    /// Where a piece of this content lies, which must be known.
    pub fn span(&self, piece: PieceIndex) -> Span {
        debug_assert!(piece.0 < self.known_pieces(), "a piece of another content");
        // An empty manifest or blob shares its first piece with the next: the last is the owner.
        let number = self.first_pieces.partition_point(|first| *first <= piece.0) - 1;
        let blob = BlobNumber(number as u32);
        let whole = u64::from(self.piece_length_in(blob).get());
        let offset = u64::from(piece.0 - self.first_pieces[number]) * whole;
        Span { blob, offset, length: (self.sizes[number] - offset).min(whole) as u32 }
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

fn checked_count(pieces: u64) -> Result<u32, LayoutError> {
    let count = u32::try_from(pieces).ok().filter(|count| *count <= MAX_PIECE_COUNT);
    count.ok_or(LayoutError::TooManyPieces(pieces))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MANIFEST_BYTES: u64 = 300_000;

    fn layout(sizes: &[u64]) -> Layout {
        Layout::new(MANIFEST_BYTES, PieceLength::MIN, sizes.iter().copied()).unwrap()
    }

    fn span(blob: u32, offset: u64, length: u32) -> Span {
        Span { blob: BlobNumber(blob), offset, length }
    }

    #[test]
    fn each_blob_starts_on_a_piece_boundary() {
        let layout = layout(&[100_000, 1, 65_536]);
        let spans: Vec<_> = layout.pieces().map(|piece| layout.span(piece)).collect();
        assert_eq!(
            spans,
            [
                span(0, 0, 262_144),
                span(0, 262_144, 37_856),
                span(1, 0, 65_536),
                span(1, 65_536, 34_464),
                span(2, 0, 1),
                span(3, 0, 65_536),
            ]
        );
    }

    #[test]
    fn before_the_manifest_is_known_only_its_own_pieces_are() {
        let layout = Layout::of_manifest(MANIFEST_BYTES, PieceLength::MIN, 7).unwrap();
        assert_eq!((layout.piece_count(), layout.known_pieces()), (9, 2));
        assert_eq!(layout.span(PieceIndex(1)), span(0, 262_144, 37_856));
        assert!(layout.range(1, 0, 0).is_ok());
        assert!(layout.range(2, 0, 0).is_err());
        let most = Layout::of_manifest(MANIFEST_BYTES, PieceLength::MIN, u32::MAX);
        assert_eq!(most, Err(LayoutError::TooManyPieces(u64::from(u32::MAX) + 2)));
    }

    #[test]
    fn a_range_of_a_blob_lies_in_its_pieces() {
        let layout = layout(&[100_000, 200_000]);
        let within = |range: Range<u64>| -> Vec<_> {
            layout.pieces_within(BlobNumber(2), &range).map(PieceIndex::get).collect()
        };
        assert_eq!(within(0..1), [4]);
        assert_eq!(within(65_535..65_537), [4, 5]);
        assert_eq!(within(65_536..200_000), [5, 6, 7]);
        assert_eq!(within(65_536..65_536), Vec::<u32>::new());
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
        let refused = Layout::new(0, PieceLength::MIN, [65_536 * 1_000_000_000]);
        assert_eq!(refused, Err(LayoutError::TooManyPieces(1_000_000_000)));
        assert_eq!(Layout::new(1, PieceLength::MAX, [u64::MAX]), Err(LayoutError::TooLarge));
    }

    #[test]
    fn a_range_outside_its_piece_is_refused() {
        let layout = layout(&[100_000]);
        assert!(layout.range(4, 0, 0).is_err());
        assert!(layout.range(3, 34_464, 0).is_err());
        assert!(layout.range(3, 0, 34_465).is_err());
        assert!(layout.range(0, u32::MAX, u32::MAX).is_err());
        let rest = layout.range(3, 16_384, 0).unwrap();
        assert_eq!((rest.length, rest.end()), (34_464 - 16_384, 34_464));
    }

    proptest! {
        #[test]
        fn the_pieces_cover_every_byte_once(sizes in prop::collection::vec(1_u64..400_000, 0..12)) {
            let layout = layout(&sizes);
            let mut covered = vec![0; sizes.len() + 1];
            for piece in layout.pieces() {
                let span = layout.span(piece);
                let covered = &mut covered[span.blob.get() as usize];
                prop_assert_eq!(*covered, span.offset);
                prop_assert!(span.length > 0 && span.length <= layout.piece_length_in(span.blob).get());
                let end = span.offset + u64::from(span.length);
                let within: Vec<_> = layout.pieces_within(span.blob, &(span.offset..end)).collect();
                prop_assert_eq!(within, [piece]);
                prop_assert!(layout.pieces_of(span.blob).any(|p| p == piece));
                *covered = end;
            }
            prop_assert_eq!(covered[0], MANIFEST_BYTES);
            prop_assert_eq!(&covered[1..], sizes);
        }

        #[test]
        fn a_checked_range_lies_within_its_piece(size in 1_u64..400_000, piece: u32, offset: u32, length: u32) {
            let layout = layout(&[size]);
            if let Ok(range) = layout.range(piece % 10, offset % 300_000, length % 300_000) {
                prop_assert!(range.length > 0 && range.end() <= layout.length_of(range.piece));
            }
        }
    }
}
