//! Assigns the bytes of files to blobs: equal files are one blob, and short files share a pack.

use std::collections::{HashMap, HashSet};

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
    let packed = distinct(files, |file| file.size > 0 && is_short(file));
    let mut pack = (packed.len() > 1).then_some(Pack { blob: None, filled: 0 });
    let mut blobs = Vec::new();
    let mut known: HashMap<PieceHash, Part> = HashMap::new();
    let mut part_of = |number: usize, file: &HashedFile| {
        let &HashedFile { size, root } = file;
        let mut next_blob = |blob| {
            blobs.push(blob);
            BlobNumber::new(blobs.len() as u32)
        };
        let (blob, offset) = match &mut pack {
            Some(pack) if is_short(file) => {
                let blob = *pack.blob.get_or_insert_with(|| next_blob(Blob::Pack(packed.clone())));
                let offset = pack.filled;
                pack.filled += size;
                (blob, offset)
            }
            _ => (next_blob(Blob::File(number)), 0),
        };
        Part { blob: Some(blob), offset, size, root }
    };
    let parts = files.iter().enumerate().map(|(number, file)| match file.size {
        0 => Part::empty(),
        _ => *known.entry(file.root).or_insert_with(|| part_of(number, file)),
    });
    let parts = parts.collect();
    Assigned { parts, blobs }
}

/// The pack, while files are assigned to it.
struct Pack {
    /// None before the first of them.
    blob: Option<BlobNumber>,
    /// Bytes of the files so far.
    filled: u64,
}

/// The first of equal files, of those that are wanted.
fn distinct(files: &[HashedFile], is_wanted: impl Fn(&HashedFile) -> bool) -> Vec<usize> {
    let mut known = HashSet::new();
    let wanted = files.iter().enumerate().filter(|(_, file)| is_wanted(file));
    wanted.filter(|(_, file)| known.insert(file.root)).map(|(number, _)| number).collect()
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
