//! The progress of a content: which pieces are held, being written, or arriving in blocks.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use shoal_common::lock::Mutex;
use shoal_core::{
    content::{Bitfield, Layout, PieceIndex},
    swarm::Attempt,
};

use super::assembly::{Assembly, Contribution, KeptIn};

/// A longer piece is written as it arrives, instead of being kept in memory until it is whole.
const MAX_PIECE_IN_MEMORY: u32 = 1 << 20;

/// Bytes of the pieces of a content that are kept in memory until they are whole; others are
/// written as they arrive. Twice what the pipelines of a process have in flight.
const MAX_BYTES_IN_MEMORY: u32 = 64 << 20;

/// Pieces whose failed attempts are remembered, and contributions per piece: at most 4 MiB are kept
/// for a stranger that sends garbage.
const MAX_DISPUTED_PIECES: usize = 64;
const MAX_CONTRIBUTIONS: usize = 1024;

/// A piece is held, or being written, or assembled, or none of these. The state machine decides
/// which attempt is made at it.
pub(in crate::store) struct Progress {
    pub(super) held: Bitfield,
    pub(super) held_bytes: u64,
    /// Verified pieces that are being written.
    pub(super) writing: HashSet<PieceIndex>,
    /// Pieces of which blocks have arrived.
    pub(super) assemblies: HashMap<PieceIndex, Arc<SharedAssembly>>,
    /// Bytes of the pieces that are kept in memory.
    in_memory: u32,
    /// What neighbours sent for pieces whose hash did not match.
    contributions: HashMap<PieceIndex, Vec<Contribution>>,
}

/// A piece of which blocks have arrived, until it is held.
pub(super) type SharedAssembly = Mutex<AssemblyState>;

/// The state of a piece that is assembled. The state machine decides which attempt is made. A
/// thread that changes the state holds its lock, and may then lock the progress, but not the other
/// way round.
pub(super) enum AssemblyState {
    /// Blocks of this attempt are accepted. A later attempt replaces it.
    Open { attempt: Attempt, assembly: Box<Assembly> },
    /// The hash of this attempt did not match, or it was abandoned. Only a later one is accepted.
    Ended { attempt: Attempt },
    /// Verified: being written, or held.
    Closed,
}

impl Progress {
    pub(super) fn new(held: Bitfield, held_bytes: u64) -> Self {
        Self {
            held,
            held_bytes,
            writing: HashSet::new(),
            assemblies: HashMap::new(),
            in_memory: 0,
            contributions: HashMap::new(),
        }
    }

    /// Decides where the bytes of one more attempt are kept.
    pub(super) fn begin_assembly(&mut self, layout: &Layout, piece: PieceIndex) -> KeptIn {
        let length = layout.length_of(piece);
        let has_room = self.in_memory + length <= MAX_BYTES_IN_MEMORY;
        if length > MAX_PIECE_IN_MEMORY || !has_room {
            return KeptIn::Files;
        }
        self.in_memory += length;
        KeptIn::Memory { length }
    }

    pub(super) fn end_assembly(&mut self, kept_in: KeptIn) {
        if let KeptIn::Memory { length } = kept_in {
            self.in_memory -= length;
        }
    }

    /// A piece is verified. Returns the contributions to its failed attempts.
    pub(super) fn begin_writing(
        &mut self,
        piece: PieceIndex,
        kept_in: KeptIn,
    ) -> Vec<Contribution> {
        self.end_assembly(kept_in);
        self.assemblies.remove(&piece);
        self.writing.insert(piece);
        self.contributions.remove(&piece).unwrap_or_default()
    }

    /// Remembers the contributions to a failed attempt, within limits: the newest per piece.
    pub(super) fn remember(&mut self, piece: PieceIndex, contributions: Vec<Contribution>) {
        let has_room = self.contributions.len() < MAX_DISPUTED_PIECES;
        if contributions.is_empty() || !(has_room || self.contributions.contains_key(&piece)) {
            return;
        }
        let known = self.contributions.entry(piece).or_default();
        known.extend(contributions);
        let surplus = known.len().saturating_sub(MAX_CONTRIBUTIONS);
        known.drain(..surplus);
    }
}
