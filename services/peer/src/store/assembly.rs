//! One attempt at a piece: blocks of several neighbours, in any order, become a verified piece.

use std::{collections::BTreeMap, io::IoSlice, ops::Range};

use bytes::{Buf, Bytes};
use shoal_core::{
    content::{FileSpan, Layout, PieceHash, PieceHasher},
    swarm::LinkKey,
};

use super::{StoreError, files::Files, hash::BUFFER_BYTES};

/// Where the bytes of a piece are kept until it is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// In memory; written once verified.
    Memory,
    /// Written as they come; read back for what could not be hashed on arrival.
    Disk,
}

/// An attempt at a piece. It alone knows whose bytes were hashed.
///
/// Invariant: segments do not overlap, and those that end at or before `hashed` went into `hasher`.
pub(super) struct Assembly {
    span: FileSpan,
    keep: Keep,
    /// By offset in the piece.
    segments: BTreeMap<u32, Segment>,
    hasher: PieceHasher,
    hashed: u32,
}

struct Segment {
    length: u32,
    from: LinkKey,
    /// None: written.
    bytes: Option<Bytes>,
}

/// What a neighbour sent for a piece that failed its hash.
pub(super) struct Statement {
    from: LinkKey,
    range: Range<u32>,
    hash: [u8; 32],
}

impl Assembly {
    pub(super) fn new(layout: &Layout, span: FileSpan, keep: Keep) -> Self {
        let hasher = PieceHasher::new(layout, span);
        Self { span, keep, segments: BTreeMap::new(), hasher, hashed: 0 }
    }

    pub(super) const fn span(&self) -> FileSpan {
        self.span
    }

    pub(super) const fn keep(&self) -> Keep {
        self.keep
    }

    pub(super) const fn is_whole(&self) -> bool {
        self.hashed == self.span.length
    }

    /// The hash of a piece that is whole.
    pub(super) fn hash(&self) -> PieceHash {
        self.hasher.finish()
    }

    /// Adds the bytes from `offset` on that were not there yet, and returns how many.
    pub(super) fn add(
        &mut self,
        files: &Files,
        from: LinkKey,
        offset: u32,
        mut bytes: Bytes,
    ) -> Result<u32, StoreError> {
        let gaps = self.gaps(offset..offset + bytes.len() as u32);
        let mut at = offset;
        for gap in &gaps {
            let length = gap.end - gap.start;
            bytes.advance((gap.start - at) as usize);
            let part = bytes.split_to(length as usize);
            at = gap.end;
            if self.keep == Keep::Disk {
                files.write(
                    self.span.file,
                    self.span.offset + u64::from(gap.start),
                    &mut [IoSlice::new(&part)],
                )?;
            }
            self.segments.insert(gap.start, Segment { length, from, bytes: Some(part) });
        }
        self.hash_on(files)?;
        if self.keep == Keep::Disk {
            for gap in &gaps {
                self.segments.entry(gap.start).and_modify(|segment| segment.bytes = None);
            }
        }
        Ok(gaps.iter().map(|gap| gap.end - gap.start).sum())
    }

    /// The bytes of a piece that is whole and kept in memory.
    pub(super) fn into_bytes(self) -> Vec<Bytes> {
        self.segments.into_values().filter_map(|segment| segment.bytes).collect()
    }

    /// Who sent bytes, in the order of the piece.
    pub(super) fn contributors(&self) -> Vec<LinkKey> {
        let mut contributors = Vec::new();
        for segment in self.segments.values() {
            if !contributors.contains(&segment.from) {
                contributors.push(segment.from);
            }
        }
        contributors
    }

    /// What each neighbour sent: one statement for what it sent in a row.
    pub(super) fn statements(&self, files: &Files) -> Result<Vec<Statement>, StoreError> {
        let mut rows: Vec<(LinkKey, Range<u32>)> = Vec::new();
        for (offset, segment) in &self.segments {
            let end = offset + segment.length;
            match rows.last_mut() {
                Some((from, row)) if *from == segment.from => row.end = end,
                _ => rows.push((segment.from, *offset..end)),
            }
        }
        rows.into_iter()
            .map(|(from, range)| {
                let hash = self.hash_of(files, range.clone())?;
                Ok(Statement { from, range, hash })
            })
            .collect()
    }

    /// Those whose statements differ from this piece, which is verified.
    pub(super) fn liars(
        &self,
        files: &Files,
        statements: &[Statement],
    ) -> Result<Vec<LinkKey>, StoreError> {
        let mut liars = Vec::new();
        for statement in statements {
            if !liars.contains(&statement.from)
                && self.hash_of(files, statement.range.clone())? != statement.hash
            {
                liars.push(statement.from);
            }
        }
        Ok(liars)
    }

    /// The parts of `wanted` that no segment covers.
    fn gaps(&self, wanted: Range<u32>) -> Vec<Range<u32>> {
        let before = self.segments.range(..wanted.start).next_back();
        let within = self.segments.range(wanted.clone());
        let mut gaps = Vec::new();
        let mut at = wanted.start;
        for (offset, segment) in before.into_iter().chain(within) {
            if at < *offset {
                gaps.push(at..*offset);
            }
            at = at.max(offset + segment.length);
        }
        if at < wanted.end {
            gaps.push(at..wanted.end);
        }
        gaps
    }

    /// Hashes what follows on what was hashed.
    fn hash_on(&mut self, files: &Files) -> Result<(), StoreError> {
        while let Some(segment) = self.segments.get(&self.hashed) {
            let range = self.hashed..self.hashed + segment.length;
            let hasher = &mut self.hasher;
            segment.visit(files, self.span, range.clone(), range.start, |bytes| {
                hasher.update(bytes);
            })?;
            self.hashed = range.end;
        }
        Ok(())
    }

    /// The plain BLAKE3 hash of a part of the piece that is there.
    fn hash_of(&self, files: &Files, part: Range<u32>) -> Result<[u8; 32], StoreError> {
        let mut hasher = blake3::Hasher::new();
        for (offset, segment) in &self.segments {
            let range = part.start.max(*offset)..part.end.min(offset + segment.length);
            if !range.is_empty() {
                segment.visit(files, self.span, range, *offset, |bytes| {
                    hasher.update(bytes);
                })?;
            }
        }
        Ok(*hasher.finalize().as_bytes())
    }
}

impl Segment {
    /// Shows `visitor` the bytes of a range of the piece, which lies in this segment at `offset`.
    fn visit(
        &self,
        files: &Files,
        span: FileSpan,
        range: Range<u32>,
        offset: u32,
        mut visitor: impl FnMut(&[u8]),
    ) -> Result<(), StoreError> {
        if let Some(bytes) = &self.bytes {
            visitor(&bytes[(range.start - offset) as usize..(range.end - offset) as usize]);
            return Ok(());
        }
        let mut buffer = vec![0; range.len().min(BUFFER_BYTES)];
        let mut at = range.start;
        while at < range.end {
            let length = buffer.len().min((range.end - at) as usize);
            files.read(span.file, span.offset + u64::from(at), &mut buffer[..length])?;
            visitor(&buffer[..length]);
            at += length as u32;
        }
        Ok(())
    }
}
