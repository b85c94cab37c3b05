//! How the bytes of a content are arranged on disk.

use std::{ops::Range, path::Path};

use shoal_core::content::{BlobNumber, EntryNumber, Manifest, PieceIndex};

/// What the files on disk are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Arrangement {
    /// Each blob is a file, in a directory that belongs to shoal.
    Blobs,
    /// The files are those of the content, and belong to others.
    Tree,
}

/// A file on disk with bytes of a content: the number of its blob or of its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::store) struct FileNumber(u32);

impl FileNumber {
    pub(in crate::store) const fn of_blob(blob: BlobNumber) -> Self {
        Self(blob.get())
    }

    pub(in crate::store) const fn of_entry(entry: EntryNumber) -> Self {
        Self(entry.get())
    }

    /// The blob with this number.
    pub(in crate::store) const fn blob(self) -> BlobNumber {
        BlobNumber::new(self.0)
    }

    /// The entry with this number.
    pub(in crate::store) const fn entry(self) -> EntryNumber {
        EntryNumber::new(self.0)
    }
}

impl Arrangement {
    /// That of a content which is in place at a path, or not.
    pub(in crate::store) const fn of(in_place: Option<&Path>) -> Self {
        if in_place.is_some() { Self::Tree } else { Self::Blobs }
    }

    /// The files that have the bytes of all blobs, ascending. Of equal ones, that is the first.
    pub(in crate::store) fn files(self, manifest: &Manifest) -> Vec<FileNumber> {
        let blobs = manifest.layout().blobs().skip(1);
        match self {
            Self::Blobs => blobs.map(FileNumber::of_blob).collect(),
            Self::Tree => {
                let files = blobs.flat_map(|blob| manifest.files_of(blob));
                let mut files: Vec<_> = files.copied().map(FileNumber::of_entry).collect();
                files.sort_unstable();
                files
            }
        }
    }

    /// The pieces with bytes of a file.
    pub(in crate::store) fn pieces(self, manifest: &Manifest, file: FileNumber) -> Vec<PieceIndex> {
        let layout = manifest.layout();
        let part = match self {
            Self::Blobs => Some((file.blob(), 0..layout.size_of(file.blob()))),
            Self::Tree => manifest
                .entry(file.entry())
                .part()
                .and_then(|part| Some((part.blob?, part.offset..part.offset + part.size))),
        };
        part.into_iter().flat_map(|(blob, range)| layout.pieces_within(blob, &range)).collect()
    }

    /// Calls `visit` with each file that has bytes of a range of a blob, where they begin in the
    /// file, and the range that they have in the asked one.
    pub(in crate::store) fn visit<E>(
        self,
        manifest: &Manifest,
        blob: BlobNumber,
        range: Range<u64>,
        mut visit: impl FnMut(FileNumber, u64, Range<usize>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self == Self::Blobs {
            let length = (range.end - range.start) as usize;
            return visit(FileNumber::of_blob(blob), range.start, 0..length);
        }
        for (entry, part) in manifest.files_within(blob, range.clone()) {
            let start = range.start.max(part.offset);
            let end = range.end.min(part.offset + part.size);
            let within = (start - range.start) as usize..(end - range.start) as usize;
            visit(FileNumber::of_entry(entry), start - part.offset, within)?;
        }
        Ok(())
    }
}
