//! A piece that was begun and is not yet stored.

use super::event::{FetchKey, LinkKey};
use crate::content::{BLOCK_UNIT, BlockRange, PieceIndex};

/// What of a piece has arrived, and who is asked for the rest.
#[derive(Debug)]
pub(super) struct Pending {
    piece: PieceIndex,
    length: u32,
    /// One bit for each [`BLOCK_UNIT`] that has arrived.
    arrived: Vec<u64>,
    missing_units: u32,
    /// The fetches that have ranges of it left.
    pub(super) sources: Vec<FetchKey>,
    /// Who sent bytes of it.
    contributors: Vec<LinkKey>,
}

/// Whether bytes were needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// Bytes that another source had already sent.
    pub(super) duplicate: u32,
    /// These were the last bytes missing.
    pub(super) completed: bool,
}

impl Pending {
    pub(super) fn new(whole: BlockRange) -> Self {
        let units = whole.length.div_ceil(BLOCK_UNIT);
        Self {
            piece: whole.piece,
            length: whole.length,
            arrived: vec![0; units.div_ceil(64) as usize],
            missing_units: units,
            sources: Vec::new(),
            contributors: Vec::new(),
        }
    }

    /// Counts a block in. Blocks of one range come in order, so a unit is there with its last byte.
    pub(super) fn take(&mut self, block: BlockRange, from: LinkKey) -> Taken {
        if !self.contributors.contains(&from) {
            self.contributors.push(from);
        }
        let end = block.end().min(self.length);
        let past_last = if end == self.length { self.units() } else { end / BLOCK_UNIT };
        let (mut fresh, mut units) = (0, 0);
        for unit in block.offset / BLOCK_UNIT..past_last {
            units += 1;
            fresh += u32::from(self.insert(unit));
        }
        let completed = fresh > 0 && self.missing_units == 0;
        // A block of less than a unit counts as whatever its unit does.
        let duplicate = (block.length / BLOCK_UNIT).min(units - fresh) * BLOCK_UNIT;
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

    /// Who sent bytes of it.
    pub(super) fn contributors(&self) -> &[LinkKey] {
        &self.contributors
    }

    /// What is missing, in order.
    pub(super) fn missing(&self) -> Vec<BlockRange> {
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

    /// What is missing, block by block, for one more source: the second goes from the end backwards
    /// to meet the first, those after it start further on.
    pub(super) fn missing_backwards(&self, max_sources: usize) -> Vec<BlockRange> {
        let mut blocks: Vec<_> =
            self.missing_units_in_order().map(|unit| self.block(unit)).collect();
        blocks.reverse();
        let others = self.sources.len().saturating_sub(1);
        let start = others * blocks.len() / max_sources.max(1);
        let start = start.min(blocks.len());
        blocks.rotate_left(start);
        blocks
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
        let mut pending = Pending::new(block(0, 4 * UNIT - 5));
        pending.sources.push(FetchKey(1));
        let backwards = pending.missing_backwards(4);
        assert_eq!(backwards[0], block(3 * UNIT, UNIT - 5));
        assert_eq!(backwards[3], block(0, UNIT));
        pending.take(backwards[0], LinkKey(2));
        pending.take(block(0, UNIT), LinkKey(1));
        assert_eq!(pending.missing(), [block(UNIT, 2 * UNIT)]);
        let again = pending.take(block(0, 2 * UNIT), LinkKey(2));
        assert_eq!(again, Taken { duplicate: UNIT, completed: false });
        assert!(pending.take(block(2 * UNIT, UNIT), LinkKey(1)).completed);
        assert!(!pending.take(block(2 * UNIT, UNIT), LinkKey(2)).completed);
    }

    #[test]
    fn blocks_smaller_than_a_unit_complete_it_with_the_last() {
        let mut pending = Pending::new(block(0, UNIT + 100));
        for part in 0..4 {
            assert_eq!(pending.missing_units, 2, "part {part}");
            pending.take(block(part * UNIT / 4, UNIT / 4), LinkKey(1));
        }
        assert!(pending.take(block(UNIT, 100), LinkKey(1)).completed);
    }
}
