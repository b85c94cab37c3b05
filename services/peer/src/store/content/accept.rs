//! How blocks become held pieces.

use std::{io::IoSlice, mem, sync::Arc};

use bytes::Bytes;
use shoal_core::{
    content::{BlockRange, PieceHasher, PieceIndex},
    swarm::{Attempt, LinkKey},
};

use super::{
    Stored,
    assembly::{Assembly, Contribution, KeptIn},
    progress::{AssemblyState, SharedAssembly},
    writer::VerifiedPiece,
};
use crate::store::StoreError;

/// The result of accepting a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// Some of its bytes are new, and its piece is not whole yet.
    Partial,
    /// All of its bytes had arrived before.
    Duplicate,
    /// Its attempt has ended: the block was dropped.
    Stale,
    /// It completed its piece, and the piece matches its hash.
    Stored {
        /// Pieces that this call wrote, which are held from now on. If another thread was writing,
        /// that thread wrote the piece of this call as well and its call reports it; this call then
        /// reports none.
        pieces: Vec<PieceIndex>,
        /// Neighbours whose blocks in an earlier, failed attempt differ from the verified bytes.
        liars: Vec<LinkKey>,
    },
    /// It completed its piece, and the piece does not match its hash: the piece was discarded.
    Corrupt {
        /// Neighbours whose bytes were hashed. A single one has lied; of several, the liars are
        /// reported once the piece is verified.
        contributors: Vec<LinkKey>,
    },
}

impl Stored {
    /// Accepts a block. Blocks of a piece may come from several neighbours, in any order, to any
    /// thread; they become one piece only if they belong to the same attempt.
    ///
    /// An error stops the download; pieces that are not held by then can be fetched again.
    pub fn accept(
        &self,
        from: LinkKey,
        attempt: Attempt,
        block: BlockRange,
        bytes: Bytes,
    ) -> Result<Accepted, StoreError> {
        self.check_block(block, bytes.len())?;
        let Some(shared) = self.shared_assembly(block.piece, attempt) else {
            return Ok(Accepted::Duplicate);
        };
        let mut state = shared.lock();
        self.begin_later_attempt(&mut state, block.piece, attempt);
        let assembly = match &mut *state {
            AssemblyState::Open { attempt: current, assembly } if *current == attempt => assembly,
            AssemblyState::Open { .. } | AssemblyState::Ended { .. } => return Ok(Accepted::Stale),
            AssemblyState::Closed => return Ok(Accepted::Duplicate),
        };
        let fresh = assembly.add(&self.files, from, block.offset, bytes)?;
        if !assembly.is_whole() {
            return Ok(if fresh == 0 { Accepted::Duplicate } else { Accepted::Partial });
        }
        let is_sound = Some(assembly.hash()) == self.hash_of(block.piece);
        let next = if is_sound { AssemblyState::Closed } else { AssemblyState::Ended { attempt } };
        let AssemblyState::Open { assembly: whole, .. } = mem::replace(&mut *state, next) else {
            unreachable!("it is open, as checked above under the same lock")
        };
        if !is_sound {
            return Ok(self.discard_corrupt(block.piece, &whole));
        }
        let contributions = self.progress.lock().begin_writing(block.piece, whole.kept_in());
        drop(state);
        self.store(block.piece, *whole, &contributions)
    }

    /// Verifies and writes a whole piece that a local client has sent.
    pub(in crate::store) fn store_whole(
        &self,
        piece: PieceIndex,
        bytes: Vec<u8>,
    ) -> Result<(), StoreError> {
        let span = self.layout().span(piece);
        let mut hasher = PieceHasher::new(self.layout(), span);
        hasher.update(&bytes);
        if Some(hasher.finish()) != self.hash_of(piece) {
            return Err(StoreError::Import("its bytes differ from those of its manifest"));
        }
        self.write(&[VerifiedPiece { piece, span, bytes: vec![bytes.into()] }])
    }

    /// Discards the blocks of an abandoned attempt and of those before it, unless the piece is
    /// whole. May wait for a block that is being written.
    pub fn abandon(&self, piece: PieceIndex, attempt: Attempt) {
        let shared = self.progress.lock().assemblies.get(&piece).cloned();
        let Some(shared) = shared else { return };
        let mut state = shared.lock();
        if let AssemblyState::Open { attempt: current, assembly } = &*state
            && *current <= attempt
        {
            self.progress.lock().end_assembly(assembly.kept_in());
            *state = AssemblyState::Ended { attempt };
        }
    }

    /// Replaces the current or ended attempt by a later one.
    fn begin_later_attempt(&self, state: &mut AssemblyState, piece: PieceIndex, attempt: Attempt) {
        let kept_in = match state {
            AssemblyState::Open { attempt: current, assembly } if *current < attempt => {
                assembly.kept_in()
            }
            AssemblyState::Ended { attempt: last } if *last < attempt => {
                self.progress.lock().begin_assembly(self.layout(), piece)
            }
            _ => return,
        };
        *state = AssemblyState::Open { attempt, assembly: self.assembly(piece, kept_in) };
    }

    fn assembly(&self, piece: PieceIndex, kept_in: KeptIn) -> Box<Assembly> {
        let layout = self.layout();
        Box::new(Assembly::new(layout, layout.span(piece), kept_in))
    }

    /// Where a piece's blocks are assembled; none if the piece is verified.
    fn shared_assembly(&self, piece: PieceIndex, attempt: Attempt) -> Option<Arc<SharedAssembly>> {
        let mut progress = self.progress.lock();
        if progress.held.has(piece) || progress.writing.contains(&piece) {
            return None;
        }
        if let Some(shared) = progress.assemblies.get(&piece) {
            return Some(shared.clone());
        }
        let kept_in = progress.begin_assembly(self.layout(), piece);
        let assembly = self.assembly(piece, kept_in);
        let shared = Arc::new(SharedAssembly::new(AssemblyState::Open { attempt, assembly }));
        progress.assemblies.insert(piece, shared.clone());
        Some(shared)
    }

    fn store(
        &self,
        piece: PieceIndex,
        whole: Assembly,
        contributions: &[Contribution],
    ) -> Result<Accepted, StoreError> {
        // If our disk fails, nobody is accused.
        let liars = whole.liars(&self.files, contributions).unwrap_or_default();
        let verified = VerifiedPiece { piece, span: whole.span(), bytes: whole.into_bytes() };
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

    /// Writes pieces, then their records in the log, and only then marks them as held.
    fn write(&self, batch: &[VerifiedPiece]) -> Result<(), StoreError> {
        let mut bytes = 0;
        for verified in batch {
            let mut parts: Vec<_> = verified.bytes.iter().map(|part| IoSlice::new(part)).collect();
            self.files.write(verified.span.blob, verified.span.offset, &mut parts)?;
            bytes += u64::from(verified.span.length);
        }
        let pieces: Vec<_> = batch.iter().map(|verified| verified.piece).collect();
        if let Some(owned) = &self.owned {
            owned.log.lock().append(&pieces, bytes)?;
        }
        let mut progress = self.progress.lock();
        for piece in pieces {
            progress.writing.remove(&piece);
            if progress.held.insert(piece) {
                progress.held_bytes += self.blob_bytes_of(piece);
            }
        }
        Ok(())
    }

    /// Called under the assembly's lock, so that nobody overwrites the bytes that are read back.
    fn discard_corrupt(&self, piece: PieceIndex, whole: &Assembly) -> Accepted {
        let contributors = whole.contributors();
        // If our disk fails, nobody is accused.
        let contributions = match contributors.len() {
            1 => Vec::new(),
            _ => whole.contributions(&self.files).unwrap_or_default(),
        };
        let mut progress = self.progress.lock();
        progress.end_assembly(whole.kept_in());
        progress.remember(piece, contributions);
        Accepted::Corrupt { contributors }
    }
}
