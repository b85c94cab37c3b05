//! The BLAKE3 tree of a file, cut at its pieces.
//!
//! A piece's hash is the chaining value of its subtree, so the hashes of a file's pieces merge into
//! the file's root, and a list of them needs no trust. The hash of a file of one piece is the root.

use blake3::{
    Hasher,
    hazmat::{self, HasherExt, Mode},
};

use super::{FileSpan, Layout, Manifest, PieceIndex};

/// The hash of one piece: 32 bytes.
pub type PieceHash = [u8; 32];

/// Hashes one piece, whose bytes are fed in order.
pub struct PieceHasher {
    hasher: Hasher,
    is_whole_file: bool,
}

impl PieceHasher {
    /// For the piece of this layout at `span`.
    pub fn new(layout: &Layout, span: FileSpan) -> Self {
        let mut hasher = Hasher::new();
        hasher.set_input_offset(span.offset);
        let is_whole_file = layout.file_size(span.file) == u64::from(span.length);
        Self { hasher, is_whole_file }
    }

    /// The next bytes of the piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// The hash of the bytes so far; it is wrong unless they are the whole piece.
    pub fn finish(&self) -> PieceHash {
        if self.is_whole_file {
            return *self.hasher.finalize().as_bytes();
        }
        if self.hasher.count() == 0 {
            // An empty subtree has no chaining value, and no piece is empty.
            return [0; 32];
        }
        self.hasher.finalize_non_root()
    }
}

/// The root of a file, from the hashes of its pieces in order.
pub fn file_root(pieces: &[PieceHash]) -> PieceHash {
    match pieces {
        [] => *blake3::hash(&[]).as_bytes(),
        [only] => *only,
        _ => {
            let (left, right) = pieces.split_at(left_count(pieces.len()));
            *hazmat::merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash).as_bytes()
        }
    }
}

fn subtree(pieces: &[PieceHash]) -> PieceHash {
    if let [only] = pieces {
        return *only;
    }
    let (left, right) = pieces.split_at(left_count(pieces.len()));
    hazmat::merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
}

/// Leaves of the left subtree: the largest power of two below `count`, which is at least 2.
fn left_count(count: usize) -> usize {
    count.next_power_of_two() / 2
}

/// The hashes of all pieces of a content, proven by its manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PieceHashes(Vec<PieceHash>);

/// The list of hashes does not belong to the manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PieceHashesError {
    /// Too many or too few bytes.
    #[error("{piece_count} pieces have {expected} bytes of hashes, not {actual}")]
    Length {
        /// Pieces of the content.
        piece_count: u32,
        /// Expected bytes.
        expected: usize,
        /// Actual bytes.
        actual: usize,
    },
    /// The hashes of a file's pieces do not merge into its root.
    #[error("the piece hashes of {path:?} do not lead to its root")]
    Mismatch {
        /// The file.
        path: String,
    },
}

impl PieceHashes {
    /// Checks hashes, 32 bytes per piece, against the roots in the manifest.
    pub fn verify(manifest: &Manifest, bytes: &[u8]) -> Result<Self, PieceHashesError> {
        let layout = manifest.layout();
        let piece_count = layout.piece_count();
        let expected = piece_count as usize * 32;
        let (hashes, []) = bytes.as_chunks::<32>() else {
            return Err(PieceHashesError::Length { piece_count, expected, actual: bytes.len() });
        };
        if bytes.len() != expected {
            return Err(PieceHashesError::Length { piece_count, expected, actual: bytes.len() });
        }
        let mut rest = hashes;
        for (number, file) in manifest.files().iter().enumerate() {
            let (pieces, later) = rest.split_at(layout.pieces_of_file(number).len());
            if file_root(pieces) != file.root {
                return Err(PieceHashesError::Mismatch { path: file.path.clone() });
            }
            rest = later;
        }
        Ok(Self(hashes.to_vec()))
    }

    /// The hash of a piece of this content.
    pub fn of(&self, piece: PieceIndex) -> &PieceHash {
        &self.0[piece.get() as usize]
    }

    /// All hashes, 32 bytes per piece, in order.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_flattened()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::content::PieceLength;

    fn hashes_of(bytes: &[u8]) -> Vec<PieceHash> {
        let layout = Layout::new(PieceLength::MIN, vec![bytes.len() as u64]).unwrap();
        layout
            .pieces()
            .map(|piece| {
                let span = layout.span(piece);
                let mut hasher = PieceHasher::new(&layout, span);
                let start = span.offset as usize;
                for part in bytes[start..start + span.length as usize].chunks(10_000) {
                    hasher.update(part);
                }
                hasher.finish()
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn the_pieces_of_a_file_merge_into_what_b3sum_prints(length in 0_usize..900_000, seed: u8) {
            let bytes: Vec<u8> = (0..length).map(|i| (i as u8).wrapping_mul(31) ^ seed ^ (i >> 9) as u8).collect();
            prop_assert_eq!(file_root(&hashes_of(&bytes)), *blake3::hash(&bytes).as_bytes());
        }
    }
}
