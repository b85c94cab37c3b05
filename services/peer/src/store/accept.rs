//! How blocks become pieces that are held.

use std::{io::IoSlice, mem, sync::Arc};

use bytes::Bytes;
use shoal_common::lock::Mutex;
use shoal_core::{
    content::{BlockRange, Layout, PieceIndex},
    swarm::{Attempt, LinkKey},
};

use super::{
    StoreError, Stored,
    assembly::{Assembly, Keep, Statement},
    content::Progress,
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
    /// The attempt that it belongs to is over: it was dropped.
    Stale,
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
        /// Whose bytes were hashed. One alone has lied; of several, the liar is told once the piece
        /// is verified.
        contributors: Vec<LinkKey>,
    },
}

/// A piece that something has come of, until it is held.
pub(super) type Slot = Mutex<SlotState>;

/// What there is of a piece. The brain decides which attempt is made; whoever changes this holds its
/// lock, and may then lock the progress, but not the other way round.
pub(super) enum SlotState {
    /// Blocks of this attempt are taken in. One of a later attempt takes its place.
    Open { attempt: Attempt, assembly: Box<Assembly> },
    /// This attempt failed its hash or was abandoned. Only a later one is taken in.
    Ended { attempt: Attempt },
    /// Verified: being written, or held.
    Closed,
}

impl Stored {
    /// Takes in a block. Blocks of a piece may come from several neighbours, in any order, to any
    /// thread; they become one piece only if they belong to the same attempt.
    ///
    /// An error stops the download; pieces not held by then can be fetched again.
    pub fn accept(
        &self,
        from: LinkKey,
        attempt: Attempt,
        block: BlockRange,
        bytes: Bytes,
    ) -> Result<Accepted, StoreError> {
        self.check_block(block, bytes.len())?;
        let Some(slot) = self.slot(block.piece, attempt) else { return Ok(Accepted::Duplicate) };
        let mut state = slot.lock();
        self.renew(&mut state, block.piece, attempt);
        let assembly = match &mut *state {
            SlotState::Open { attempt: current, assembly } if *current == attempt => assembly,
            SlotState::Open { .. } | SlotState::Ended { .. } => return Ok(Accepted::Stale),
            SlotState::Closed => return Ok(Accepted::Duplicate),
        };
        let fresh = assembly.add(&self.files, from, block.offset, bytes)?;
        if !assembly.is_whole() {
            return Ok(if fresh == 0 { Accepted::Duplicate } else { Accepted::Partial });
        }
        let is_sound = assembly.hash() == *self.hashes().of(block.piece);
        let next = if is_sound { SlotState::Closed } else { SlotState::Ended { attempt } };
        let SlotState::Open { assembly: whole, .. } = mem::replace(&mut *state, next) else {
            unreachable!("it is open, as seen above under the same lock")
        };
        if !is_sound {
            return Ok(self.throw_away(block.piece, &whole));
        }
        let statements = self.progress.lock().begin_writing(block.piece, whole.keep());
        drop(state);
        self.store(block.piece, *whole, &statements)
    }

    /// Forgets the blocks of an attempt that is given up, and of those before it, unless the piece is
    /// whole. May wait for a block that is being written.
    pub fn abandon(&self, piece: PieceIndex, attempt: Attempt) {
        let slot = self.progress.lock().slots.get(&piece).cloned();
        let Some(slot) = slot else { return };
        let mut state = slot.lock();
        if let SlotState::Open { attempt: current, assembly } = &*state
            && *current <= attempt
        {
            self.progress.lock().end_assembly(assembly.keep());
            *state = SlotState::Ended { attempt };
        }
    }

    /// Begins a later attempt than the one that is or was made, in its place.
    fn renew(&self, state: &mut SlotState, piece: PieceIndex, attempt: Attempt) {
        let keep = match state {
            SlotState::Open { attempt: current, assembly } if *current < attempt => assembly.keep(),
            SlotState::Ended { attempt: last } if *last < attempt => {
                self.progress.lock().begin_assembly(self.layout(), piece)
            }
            _ => return,
        };
        *state = SlotState::Open { attempt, assembly: self.assembly(piece, keep) };
    }

    fn assembly(&self, piece: PieceIndex, keep: Keep) -> Box<Assembly> {
        let layout = self.layout();
        Box::new(Assembly::new(layout, layout.span(piece), keep))
    }

    /// Where a piece's blocks go; nowhere if the piece is verified.
    fn slot(&self, piece: PieceIndex, attempt: Attempt) -> Option<Arc<Slot>> {
        let mut progress = self.progress.lock();
        if progress.held.has(piece) || progress.writing.contains(&piece) {
            return None;
        }
        if let Some(slot) = progress.slots.get(&piece) {
            return Some(slot.clone());
        }
        let keep = progress.begin_assembly(self.layout(), piece);
        let assembly = self.assembly(piece, keep);
        let slot = Arc::new(Slot::new(SlotState::Open { attempt, assembly }));
        progress.slots.insert(piece, slot.clone());
        Some(slot)
    }

    fn store(
        &self,
        piece: PieceIndex,
        whole: Assembly,
        statements: &[Statement],
    ) -> Result<Accepted, StoreError> {
        // Nobody is accused because our disk failed.
        let liars = whole.liars(&self.files, statements).unwrap_or_default();
        let verified = Verified { piece, span: whole.span(), bytes: whole.into_bytes() };
        match self.writer.submit(verified, |batch| self.write(batch)) {
            Ok(pieces) => Ok(Accepted::Stored { pieces, liars }),
            Err(failed) => {
                let mut progress = self.progress.lock();
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
            log.lock().append(&pieces, bytes)?;
        }
        let mut progress = self.progress.lock();
        for piece in pieces {
            progress.writing.remove(&piece);
            progress.held.insert(piece);
        }
        progress.held_bytes += bytes;
        Ok(())
    }

    /// Called under the slot's lock: what is read back here, nobody writes anew meanwhile.
    fn throw_away(&self, piece: PieceIndex, whole: &Assembly) -> Accepted {
        let contributors = whole.contributors();
        // Nobody is accused because our disk failed.
        let statements = match contributors.len() {
            1 => Vec::new(),
            _ => whole.statements(&self.files).unwrap_or_default(),
        };
        let mut progress = self.progress.lock();
        progress.end_assembly(whole.keep());
        progress.remember(piece, statements);
        Accepted::Corrupt { contributors }
    }
}

impl Progress {
    /// Says where the bytes of one more attempt are kept.
    fn begin_assembly(&mut self, layout: &Layout, piece: PieceIndex) -> Keep {
        let has_room = self.in_memory < MAX_BYTES_IN_MEMORY / layout.piece_length().get();
        if layout.length_of(piece) > MAX_PIECE_IN_MEMORY || !has_room {
            return Keep::Disk;
        }
        self.in_memory += 1;
        Keep::Memory
    }

    /// An attempt is over.
    fn end_assembly(&mut self, keep: Keep) {
        self.in_memory -= u32::from(keep == Keep::Memory);
    }

    /// A piece is verified. Returns what was said in attempts that failed.
    fn begin_writing(&mut self, piece: PieceIndex, keep: Keep) -> Vec<Statement> {
        self.end_assembly(keep);
        self.slots.remove(&piece);
        self.writing.insert(piece);
        self.statements.remove(&piece).unwrap_or_default()
    }

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
