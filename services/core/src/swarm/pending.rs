//! Attempts at pieces that are neither stored nor given up.

use super::interface::{Attempt, FetchKey, FetchRange};
use crate::content::{BLOCK_UNIT, BlockRange, PieceIndex};

/// Numbers the attempts at pieces of all contents: a store may outlive a content's stay in the
/// state machine, and must recognise later attempts as newer.
#[derive(Debug, Default)]
pub(super) struct Attempts(u64);

impl Attempts {
    pub(super) fn next(&mut self) -> Attempt {
        self.0 += 1;
        Attempt(self.0)
    }
}

/// The part of a piece that has arrived in this attempt, and the sources of the rest. Only the
/// store knows whose bytes are hashed in the end, and reports them if they are wrong.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) attempt: Attempt,
    piece: PieceIndex,
    length: u32,
    /// One bit for each [`BLOCK_UNIT`] that has arrived.
    arrived: Vec<u64>,
    missing_units: u32,
    /// The fetches with ranges of it left.
    pub(super) sources: Vec<FetchKey>,
    /// Bytes that arrived and were needed.
    pub(super) arrived_bytes: u64,
}

/// Whether bytes were needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// Bytes that another source had already sent.
    pub(super) duplicate: u32,
    /// These were the last missing bytes.
    pub(super) completed: bool,
}

impl Pending {
    pub(super) fn new(attempt: Attempt, whole: BlockRange) -> Self {
        let units = whole.length.div_ceil(BLOCK_UNIT);
        Self {
            attempt,
            piece: whole.piece,
            length: whole.length,
            arrived: vec![0; units.div_ceil(64) as usize],
            missing_units: units,
            sources: Vec::new(),
            arrived_bytes: 0,
        }
    }

    /// Adds a block. Blocks of one range come in order, so a unit is complete with its last byte.
    pub(super) fn take(&mut self, block: BlockRange) -> Taken {
        let end = block.end().min(self.length);
        let past_last = if end == self.length { self.units() } else { end / BLOCK_UNIT };
        let (mut fresh, mut units) = (0, 0);
        for unit in block.offset / BLOCK_UNIT..past_last {
            units += 1;
            fresh += u32::from(self.insert(unit));
        }
        let completed = fresh > 0 && self.missing_units == 0;
        // A block of less than a unit counts as its unit does.
        let duplicate = (block.length / BLOCK_UNIT).min(units - fresh) * BLOCK_UNIT;
        self.arrived_bytes += u64::from(block.length - duplicate);
        Taken { duplicate, completed }
    }

    /// Every byte has arrived.
    pub(super) fn is_complete(&self) -> bool {
        self.missing_units == 0
    }

    /// No byte has arrived.
    pub(super) fn is_untouched(&self) -> bool {
        self.missing_units == self.units()
    }

    /// The missing parts, in order.
    pub(super) fn missing(&self) -> Vec<FetchRange> {
        self.of_attempt(self.missing_ranges())
    }

    fn missing_ranges(&self) -> Vec<BlockRange> {
        let mut ranges: Vec<BlockRange> = Vec::new();
        for unit in self.missing_units_in_order() {
            let block = self.block(unit);
            match ranges.last_mut() {
                Some(last) if last.end() == block.offset => last.length += block.length,
                _ => ranges.push(block),
            }
        }
        ranges
    }

    /// The missing parts, block by block, for one more source: the second source goes from the end
    /// backwards to meet the first, later ones start further on.
    pub(super) fn missing_backwards(&self, max_sources: usize) -> Vec<FetchRange> {
        let mut blocks: Vec<_> =
            self.missing_units_in_order().map(|unit| self.block(unit)).collect();
        blocks.reverse();
        let others = self.sources.len().saturating_sub(1);
        let start = others * blocks.len() / max_sources.max(1);
        let start = start.min(blocks.len());
        blocks.rotate_left(start);
        self.of_attempt(blocks)
    }

    fn of_attempt(&self, ranges: Vec<BlockRange>) -> Vec<FetchRange> {
        let attempt = self.attempt;
        ranges.into_iter().map(|range| FetchRange { attempt, range }).collect()
    }

    fn missing_units_in_order(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.units()).filter(|unit| self.arrived[*unit as usize / 64] >> (unit % 64) & 1 == 0)
    }

    fn block(&self, unit: u32) -> BlockRange {
        let offset = unit * BLOCK_UNIT;
        let length = BLOCK_UNIT.min(self.length - offset);
        BlockRange { piece: self.piece, offset, length }
    }

    fn units(&self) -> u32 {
        self.length.div_ceil(BLOCK_UNIT)
    }

    fn insert(&mut self, unit: u32) -> bool {
        let (word, bit) = (&mut self.arrived[unit as usize / 64], 1 << (unit % 64));
        let is_new = *word & bit == 0;
        *word |= bit;
        self.missing_units -= u32::from(is_new);
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: PieceIndex = PieceIndex::new(3);
    const UNIT: u32 = BLOCK_UNIT;

    fn block(offset: u32, length: u32) -> BlockRange {
        BlockRange { piece: PIECE, offset, length }
    }

    #[test]
    fn two_sources_meet_in_the_middle() {
        let mut pending = Pending::new(Attempt(7), block(0, 4 * UNIT - 5));
        let of_attempt = |range| FetchRange { attempt: Attempt(7), range };
        pending.sources.push(FetchKey(1));
        let backwards = pending.missing_backwards(4);
        assert_eq!(backwards[0], of_attempt(block(3 * UNIT, UNIT - 5)));
        assert_eq!(backwards[3], of_attempt(block(0, UNIT)));
        pending.take(backwards[0].range);
        pending.take(block(0, UNIT));
        assert_eq!(pending.missing(), [of_attempt(block(UNIT, 2 * UNIT))]);
        let again = pending.take(block(0, 2 * UNIT));
        assert_eq!(again, Taken { duplicate: UNIT, completed: false });
        assert!(pending.take(block(2 * UNIT, UNIT)).completed);
        assert!(!pending.take(block(2 * UNIT, UNIT)).completed);
        assert_eq!(pending.arrived_bytes, u64::from(4 * UNIT - 5));
    }

    #[test]
    fn blocks_smaller_than_a_unit_complete_it_with_the_last() {
        let mut pending = Pending::new(Attempt(7), block(0, UNIT + 100));
        for part in 0..4 {
            assert_eq!(pending.missing_units, 2, "part {part}");
            pending.take(block(part * UNIT / 4, UNIT / 4));
        }
        assert!(pending.take(block(UNIT, 100)).completed);
    }
}
