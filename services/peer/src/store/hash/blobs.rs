//! Assigns the bytes of files to blobs: equal files are one blob, and short files share a pack.

use std::{collections::HashMap, mem::take};

use shoal_core::content::{BlobNumber, Part, PieceHash, PieceLength};

/// A file with its hash.
#[derive(Clone, Copy)]
pub(super) struct HashedFile {
    pub(super) size: u64,
    pub(super) root: PieceHash,
}

/// The blobs of a content, and the part of them that each file has.
pub(super) struct Assigned {
    /// By the numbers of the files.
    pub(super) parts: Vec<Part>,
    /// From blob 1 on.
    pub(super) blobs: Vec<Blob>,
}

/// What a blob is made of.
pub(super) enum Blob {
    /// The file with this number.
    File(usize),
    /// The files with these numbers, one after the other.
    Pack(Vec<usize>),
}

/// Assigns files to blobs, in this order. A file shorter than a piece goes into the pack: a piece of
/// its own would cost as much as a whole one. Blobs are numbered as files first name them.
pub(super) fn assign(files: &[HashedFile], piece_length: PieceLength) -> Assigned {
    let is_short = |file: &HashedFile| file.size < u64::from(piece_length.get());
    let firsts = first_of_equal(files);
    let is_first = |number: usize| firsts[number] as usize == number;
    let is_packed = |number: &usize| {
        let file = &files[*number];
        file.size > 0 && is_short(file) && is_first(*number)
    };
    let packed: Vec<_> = (0..files.len()).filter(is_packed).collect();
    let mut pack = (packed.len() > 1).then_some(Pack { blob: None, files: packed, filled: 0 });
    let mut blobs = Vec::new();
    let mut parts: Vec<Part> = Vec::with_capacity(files.len());
    for (number, file) in files.iter().enumerate() {
        let mut next_blob = |blob| {
            blobs.push(blob);
            BlobNumber::new(blobs.len() as u32)
        };
        let part = if file.size == 0 {
            Part::empty()
        } else if !is_first(number) {
            parts[firsts[number] as usize]
        } else {
            let (blob, offset) = match &mut pack {
                Some(pack) if is_short(file) => {
                    let files = &mut pack.files;
                    let blob = pack.blob.get_or_insert_with(|| next_blob(Blob::Pack(take(files))));
                    let offset = pack.filled;
                    pack.filled += file.size;
                    (*blob, offset)
                }
                _ => (next_blob(Blob::File(number)), 0),
            };
            Part { blob: Some(blob), offset, size: file.size, root: file.root }
        };
        parts.push(part);
    }
    Assigned { parts, blobs }
}

/// The pack, while files are assigned to it.
struct Pack {
    /// None before the first of them.
    blob: Option<BlobNumber>,
    /// The numbers of its files, until it is a blob.
    files: Vec<usize>,
    /// Bytes of the files so far.
    filled: u64,
}

/// For each file the number of the first that is equal, which may be itself.
fn first_of_equal(files: &[HashedFile]) -> Vec<u32> {
    let mut known = HashMap::with_capacity(files.len());
    (0..).zip(files).map(|(number, file)| *known.entry(&file.root).or_insert(number)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: u64 = 65_536;

    /// Assigns files of these sizes, with these first bytes of their hashes.
    fn assigned(files: &[(u64, u8)]) -> (Vec<(u32, u64)>, usize) {
        let files: Vec<_> = files
            .iter()
            .map(|(size, root)| HashedFile { size: *size, root: [*root; 32] })
            .collect();
        let Assigned { parts, blobs } = assign(&files, PieceLength::MIN);
        let places = parts.iter().map(|part| (part.blob.map_or(0, BlobNumber::get), part.offset));
        (places.collect(), blobs.len())
    }

    #[test]
    fn equal_files_are_one_blob() {
        assert_eq!(
            assigned(&[(PIECE, 1), (PIECE, 2), (PIECE, 1)]),
            (vec![(1, 0), (2, 0), (1, 0)], 2)
        );
    }

    #[test]
    fn short_files_share_a_pack_with_one_copy_of_each() {
        let files = [(5, 1), (PIECE, 9), (7, 2), (0, 0), (5, 1), (PIECE - 1, 3)];
        let places = [(1, 0), (2, 0), (1, 5), (0, 0), (1, 0), (1, 12)];
        assert_eq!(assigned(&files), (places.to_vec(), 2));
    }

    #[test]
    fn a_short_file_without_others_is_a_blob() {
        assert_eq!(assigned(&[(5, 1), (5, 1)]), (vec![(1, 0), (1, 0)], 1));
        assert_eq!(assigned(&[(0, 0)]), (vec![(0, 0)], 0));
    }
}
