//! The BLAKE3 tree of a blob, cut at its pieces.
//!
//! A piece's hash is the chaining value of its subtree, so the hashes of a blob's pieces merge into
//! the blob's root, and a list of them needs no trust. The hash of a blob of one piece is the root.

use blake3::{
    Hasher,
    hazmat::{self, HasherExt, Mode},
};

use super::{Layout, Span};

/// The hash of one piece: 32 bytes.
pub type PieceHash = [u8; 32];

/// Hashes one piece, whose bytes are fed in order.
pub struct PieceHasher {
    hasher: Hasher,
    is_whole_blob: bool,
}

impl PieceHasher {
    /// For the piece of this layout at `span`.
    pub fn new(layout: &Layout, span: Span) -> Self {
        let mut hasher = Hasher::new();
        hasher.set_input_offset(span.offset);
        let is_whole_blob = layout.size_of(span.blob) == u64::from(span.length);
        Self { hasher, is_whole_blob }
    }

    /// The next bytes of the piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// The hash of the bytes so far; it is wrong unless they are the whole piece.
    pub fn finish(&self) -> PieceHash {
        if self.is_whole_blob {
            return *self.hasher.finalize().as_bytes();
        }
        if self.hasher.count() == 0 {
            // An empty subtree has no chaining value, and no piece is empty.
            return [0; 32];
        }
        self.hasher.finalize_non_root()
    }
}

/// The root of a blob, from the hashes of its pieces in order.
pub fn root_of(pieces: &[PieceHash]) -> PieceHash {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::content::{BlobNumber, PieceLength};

    fn hashes_of(bytes: &[u8]) -> Vec<PieceHash> {
        let layout = Layout::new(0, PieceLength::MIN, [bytes.len() as u64]).unwrap();
        layout
            .pieces_of(BlobNumber::new(1))
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
        fn the_pieces_of_a_blob_merge_into_what_b3sum_prints(length in 0_usize..900_000, seed: u8) {
            let bytes: Vec<u8> = (0..length).map(|i| (i as u8).wrapping_mul(31) ^ seed ^ (i >> 9) as u8).collect();
            prop_assert_eq!(root_of(&hashes_of(&bytes)), *blake3::hash(&bytes).as_bytes());
        }
    }
}
