//! How blocks become pieces that are held.

use std::{
    io::IoSlice,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use shoal_core::{
    content::{BlockRange, PieceIndex},
    swarm::LinkKey,
};

use super::{
    StoreError, Stored,
    assembly::{Assembly, Keep, Statement},
    content::Progress,
    lock,
    writer::Verified,
};

/// A longer piece is written as it comes, and not kept in memory until it is whole.
const MAX_PIECE_IN_MEMORY: u32 = 1 << 20;

/// Bytes of the pieces of a content that are kept in memory until they are whole; others are
/// written as they come. Twice what the pipelines of a process have under way.
const MAX_BYTES_IN_MEMORY: u32 = 64 << 20;

/// Pieces whose failed attempts are remembered, and statements about each: a stranger who sends
/// garbage makes us keep 4 MiB at most.
const MAX_DISPUTED_PIECES: usize = 64;
const MAX_STATEMENTS: usize = 1024;

/// What became of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// Some of it was new, and its piece is not whole yet.
    Partial,
    /// All of its bytes were here already.
    Duplicate,
    /// It made its piece whole, and the piece matches its hash.
    Stored {
        /// Pieces that this call wrote, and that are held from now on. Another thread that is
        /// writing takes this call's piece along: then that thread's call tells of it, and this
        /// one may tell of none.
        pieces: Vec<PieceIndex>,
        /// Those whose blocks in an earlier, failed attempt differ from the true ones.
        liars: Vec<LinkKey>,
    },
    /// It made its piece whole, and the piece does not match its hash: it was thrown away.
    Corrupt {
        /// Whose blocks it was made of. One alone has lied; of several, the liar is told once the
        /// piece is whole again.
        contributors: Vec<LinkKey>,
    },
}

/// A piece on its way here; none once it is whole or abandoned.
pub(super) struct Slot {
    pub(super) keep: Keep,
    assembly: Mutex<Option<Assembly>>,
}

impl Slot {
    /// Drops what came; true if there was an assembly to end.
    pub(super) fn clear(&self) -> bool {
        lock(&self.assembly).take().is_some()
    }
}

impl Stored {
    /// Takes in a block. Blocks of a piece may come from several neighbours, in any order, to any
    /// thread.
    ///
    /// An error stops the download; pieces not held by then can be fetched again.
    pub fn accept(
        &self,
        from: LinkKey,
        block: BlockRange,
        bytes: Bytes,
    ) -> Result<Accepted, StoreError> {
        self.check_block(block, bytes.len())?;
        let Some(slot) = self.slot(block.piece) else { return Ok(Accepted::Duplicate) };
        let mut guard = lock(&slot.assembly);
        let Some(assembly) = guard.as_mut() else { return Ok(Accepted::Duplicate) };
        let fresh = assembly.add(&self.files, from, block.offset, bytes)?;
        let whole = guard.take_if(|assembly| assembly.is_whole());
        drop(guard);
        match whole {
            Some(whole) if whole.hash() == *self.hashes().of(block.piece) => {
                self.store(block.piece, whole)
            }
            Some(whole) => Ok(self.throw_away(block.piece, &whole)),
            None if fresh == 0 => Ok(Accepted::Duplicate),
            None => Ok(Accepted::Partial),
        }
    }

    /// Where a piece's blocks go; nowhere if the piece is whole.
    fn slot(&self, piece: PieceIndex) -> Option<Arc<Slot>> {
        let mut progress = lock(&self.progress);
        if progress.held.has(piece) || progress.writing.contains(&piece) {
            return None;
        }
        if let Some(slot) = progress.slots.get(&piece) {
            return Some(slot.clone());
        }
        let layout = self.layout();
        let span = layout.span(piece);
        let piece_length = layout.piece_length().get();
        let has_room = progress.in_memory < MAX_BYTES_IN_MEMORY / piece_length;
        let keep =
            if span.length <= MAX_PIECE_IN_MEMORY && has_room { Keep::Memory } else { Keep::Disk };
        let assembly = Mutex::new(Some(Assembly::new(layout, span, keep)));
        let slot = Arc::new(Slot { keep, assembly });
        progress.in_memory += u32::from(keep == Keep::Memory);
        progress.slots.insert(piece, slot.clone());
        Some(slot)
    }

    fn store(&self, piece: PieceIndex, whole: Assembly) -> Result<Accepted, StoreError> {
        let statements = {
            let mut progress = lock(&self.progress);
            progress.close(piece);
            progress.writing.insert(piece);
            progress.statements.remove(&piece).unwrap_or_default()
        };
        // Nobody is accused because our disk failed.
        let liars = whole.liars(&self.files, &statements).unwrap_or_default();
        let verified = Verified { piece, span: whole.span(), bytes: whole.into_bytes() };
        match self.writer.submit(verified, |batch| self.write(batch)) {
            Ok(pieces) => Ok(Accepted::Stored { pieces, liars }),
            Err(failed) => {
                let mut progress = lock(&self.progress);
                for piece in failed.lost {
                    progress.writing.remove(&piece);
                }
                Err(failed.error)
            }
        }
    }

    /// Writes pieces, then their records in the log, and only then has them held.
    fn write(&self, batch: &[Verified]) -> Result<(), StoreError> {
        let mut bytes = 0;
        for verified in batch {
            let mut parts: Vec<_> = verified.bytes.iter().map(|part| IoSlice::new(part)).collect();
            self.files.write(verified.span.file, verified.span.offset, &mut parts)?;
            bytes += u64::from(verified.span.length);
        }
        let pieces: Vec<_> = batch.iter().map(|verified| verified.piece).collect();
        if let Some(log) = &self.log {
            lock(log).append(&pieces, bytes)?;
        }
        let mut progress = lock(&self.progress);
        for piece in pieces {
            progress.writing.remove(&piece);
            progress.held.insert(piece);
        }
        progress.held_bytes += bytes;
        Ok(())
    }

    fn throw_away(&self, piece: PieceIndex, whole: &Assembly) -> Accepted {
        let contributors = whole.contributors();
        // Read back before others write there again. Nobody is accused because our disk failed.
        let statements = match contributors.len() {
            1 => Vec::new(),
            _ => whole.statements(&self.files).unwrap_or_default(),
        };
        let mut progress = lock(&self.progress);
        progress.close(piece);
        progress.remember(piece, statements);
        Accepted::Corrupt { contributors }
    }
}

impl Progress {
    /// Keeps what was said in a failed attempt, in bounds: the newest about a piece.
    fn remember(&mut self, piece: PieceIndex, statements: Vec<Statement>) {
        let has_room = self.statements.len() < MAX_DISPUTED_PIECES;
        if statements.is_empty() || !(has_room || self.statements.contains_key(&piece)) {
            return;
        }
        let known = self.statements.entry(piece).or_default();
        known.extend(statements);
        let surplus = known.len().saturating_sub(MAX_STATEMENTS);
        known.drain(..surplus);
    }
}
