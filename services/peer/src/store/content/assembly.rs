//! One attempt at a piece: collects and hashes blocks of several neighbours, in any order.

use std::{collections::BTreeMap, io::IoSlice, ops::Range};

use bytes::{Buf, Bytes};
use shoal_core::{
    content::{Layout, PieceHash, PieceHasher, Span},
    swarm::LinkKey,
};

use super::files::Files;
use crate::store::{StoreError, hash::BUFFER_BYTES};

/// Where the bytes of a piece are kept until it is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeptIn {
    /// Written once verified.
    Memory {
        /// Bytes of the piece.
        length: u32,
    },
    /// Written as they arrive, and read back if they could not be hashed on arrival.
    Files,
}

/// An attempt at a piece, with the neighbours whose bytes were hashed.
///
/// Invariant: segments do not overlap, and `hasher` has those that end at or before `hashed`.
pub(super) struct Assembly {
    span: Span,
    kept_in: KeptIn,
    /// By offset in the piece.
    segments: BTreeMap<u32, Segment>,
    hasher: PieceHasher,
    hashed: u32,
}

struct Segment {
    length: u32,
    from: LinkKey,
    /// None once they were written.
    bytes: Option<Bytes>,
}

/// A range that a neighbour sent for a piece whose hash did not match.
pub(super) struct Contribution {
    from: LinkKey,
    range: Range<u32>,
    hash: [u8; 32],
}

impl Assembly {
    pub(super) fn new(layout: &Layout, span: Span, kept_in: KeptIn) -> Self {
        let hasher = PieceHasher::new(layout, span);
        Self { span, kept_in, segments: BTreeMap::new(), hasher, hashed: 0 }
    }

    pub(super) const fn span(&self) -> Span {
        self.span
    }

    pub(super) const fn kept_in(&self) -> KeptIn {
        self.kept_in
    }

    pub(super) const fn is_whole(&self) -> bool {
        self.hashed == self.span.length
    }

    /// The hash of a piece that is whole.
    pub(super) fn hash(&self) -> PieceHash {
        self.hasher.finish()
    }

    /// Adds those bytes from `offset` on that had not arrived yet, and returns their number.
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
            if self.kept_in == KeptIn::Files {
                files.write(
                    self.span.blob,
                    self.span.offset + u64::from(gap.start),
                    &mut [IoSlice::new(&part)],
                )?;
            }
            self.segments.insert(gap.start, Segment { length, from, bytes: Some(part) });
        }
        self.hash_next(files)?;
        if self.kept_in == KeptIn::Files {
            for gap in &gaps {
                self.segments.entry(gap.start).and_modify(|segment| segment.bytes = None);
            }
        }
        Ok(gaps.iter().map(|gap| gap.end - gap.start).sum())
    }

    /// The bytes of a whole piece; none if they were written.
    pub(super) fn into_bytes(self) -> Vec<Bytes> {
        self.segments.into_values().filter_map(|segment| segment.bytes).collect()
    }

    /// The neighbours that sent bytes, in the order of the piece.
    pub(super) fn contributors(&self) -> Vec<LinkKey> {
        let mut contributors = Vec::new();
        for segment in self.segments.values() {
            if !contributors.contains(&segment.from) {
                contributors.push(segment.from);
            }
        }
        contributors
    }

    /// The contributions of all neighbours: one for each run of adjacent bytes from a neighbour.
    pub(super) fn contributions(&self, files: &Files) -> Result<Vec<Contribution>, StoreError> {
        let mut runs: Vec<(LinkKey, Range<u32>)> = Vec::new();
        for (offset, segment) in &self.segments {
            let end = offset + segment.length;
            match runs.last_mut() {
                Some((from, run)) if *from == segment.from => run.end = end,
                _ => runs.push((segment.from, *offset..end)),
            }
        }
        runs.into_iter()
            .map(|(from, range)| {
                let hash = self.hash_of(files, range.clone())?;
                Ok(Contribution { from, range, hash })
            })
            .collect()
    }

    /// The neighbours whose contributions differ from this piece, which is verified.
    pub(super) fn liars(
        &self,
        files: &Files,
        contributions: &[Contribution],
    ) -> Result<Vec<LinkKey>, StoreError> {
        let mut liars = Vec::new();
        for contribution in contributions {
            if !liars.contains(&contribution.from)
                && self.hash_of(files, contribution.range.clone())? != contribution.hash
            {
                liars.push(contribution.from);
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

    /// Hashes the segments that directly follow the hashed bytes.
    fn hash_next(&mut self, files: &Files) -> Result<(), StoreError> {
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

    /// The plain BLAKE3 hash of a part of the piece that has arrived.
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
    /// Passes `visitor` the bytes of a range of the piece within this segment, which starts at
    /// `offset`.
    fn visit(
        &self,
        files: &Files,
        span: Span,
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
            files.read(span.blob, span.offset + u64::from(at), &mut buffer[..length])?;
            visitor(&buffer[..length]);
            at += length as u32;
        }
        Ok(())
    }
}
