//! The leaves of the circle: 4,096 equal parts, whose records are summed up together.

use std::ops::Range;

use shoal_core::ring::{KeyRange, Position};

/// Bits of a position that select its leaf. The index of ends on disk is ordered by leaf, too.
const LEAF_BITS: u32 = 12;

pub(super) const LEAVES: usize = 1 << LEAF_BITS;

/// Bits by which one level of [`split`] is finer than the previous one.
const LEVEL_BITS: u32 = 4;

/// Parts of a range, at most.
const MAX_PARTS: usize = 1 << LEVEL_BITS;

/// The leaf of a position.
pub(super) const fn leaf_of(position: u128) -> usize {
    (position >> (128 - LEAF_BITS)) as usize
}

/// The first position of a leaf. The first leaf follows the last one.
const fn start_of(leaf: usize) -> u128 {
    (leaf as u128) << (128 - LEAF_BITS)
}

/// Positions from the first to the last, inclusive, that do not wrap around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: u128,
    pub(super) last: u128,
}

impl Span {
    pub(super) fn contains(&self, position: Position) -> bool {
        (self.first..=self.last).contains(&position.to_u128())
    }
}

/// A range as one or two spans, clockwise.
pub(super) fn spans(range: KeyRange) -> impl Iterator<Item = Span> {
    let (first, last) = (range.first().to_u128(), range.last.to_u128());
    let (one, other) = if first <= last {
        (Span { first, last }, None)
    } else {
        (Span { first, last: u128::MAX }, Some(Span { first: 0, last }))
    };
    [Some(one), other].into_iter().flatten()
}

/// A span as whole leaves, and the rest at both ends.
pub(super) fn cover(span: Span) -> (Range<usize>, impl Iterator<Item = Span>) {
    let is_start = start_of(leaf_of(span.first)) == span.first;
    let is_end = start_of(leaf_of(span.last) + 1).wrapping_sub(1) == span.last;
    let begin = leaf_of(span.first) + usize::from(!is_start);
    let end = leaf_of(span.last) + usize::from(is_end);
    let ends = if begin >= end {
        [Some(span), None]
    } else {
        let head = Span { first: span.first, last: start_of(begin).wrapping_sub(1) };
        let tail = Span { first: start_of(end), last: span.last };
        [(!is_start).then_some(head), (!is_end).then_some(tail)]
    };
    (begin..end.max(begin), ends.into_iter().flatten())
}

/// Splits a range into up to 16 parts, clockwise, to descend to where two nodes differ.
///
/// The parts end where leaves do, or sixteenths of leaves, or sixteenths of those. A range of a
/// single position is returned as one part.
pub fn split(range: KeyRange) -> Vec<KeyRange> {
    let first = range.first();
    let length = first.distance_to(range.last);
    // The coarsest level at which the range touches two cells: it then touches at most 16, or both
    // ends of one.
    let bits = (LEVEL_BITS..=128)
        .step_by(LEVEL_BITS as usize)
        .find(|bits| length > last_of_cell(*bits) || cell(first, *bits) != cell(range.last, *bits));
    let Some(bits) = bits else { return vec![range] };
    let mut parts = Vec::with_capacity(MAX_PARTS);
    let mut after = range.after;
    loop {
        let part_first = after.advanced(1).to_u128();
        let end = Position::from_u128(part_first | last_of_cell(bits));
        let is_last = first.distance_to(end) >= length || parts.len() + 1 == MAX_PARTS;
        let last = if is_last { range.last } else { end };
        parts.push(KeyRange { after, last });
        if is_last {
            return parts;
        }
        after = last;
    }
}

/// The number of a position's cell, out of 2^`bits` cells.
const fn cell(position: Position, bits: u32) -> u128 {
    position.to_u128() >> (128 - bits)
}

/// The offset of the last position of a cell, if there are 2^`bits` cells.
const fn last_of_cell(bits: u32) -> u128 {
    (1 << (128 - bits)) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Ends of ranges: anywhere, or beside the ends of leaves and of their parts.
    fn positions() -> impl Strategy<Value = u128> {
        let beside = (0..4_096_u128, 108..=116_u32, 0..3_u128)
            .prop_map(|(cell, shift, off)| (cell << shift).wrapping_add(off).wrapping_sub(1));
        prop_oneof![any::<u128>(), beside]
    }

    fn range((after, last): (u128, u128)) -> KeyRange {
        KeyRange { after: Position::from_u128(after), last: Position::from_u128(last) }
    }

    #[test]
    fn the_whole_circle_is_all_leaves_wherever_it_is_cut_between_leaves() {
        for at in [u128::MAX, start_of(7) - 1] {
            let whole = KeyRange::whole(Position::from_u128(at));
            let covers: Vec<_> = spans(whole).map(cover).collect();
            let leaves: usize = covers.iter().map(|(leaves, _)| leaves.len()).sum();
            let ends: usize = covers.into_iter().map(|(_, ends)| ends.count()).sum();
            assert_eq!((leaves, ends), (LEAVES, 0));
        }
    }

    #[test]
    fn a_split_descends_from_the_circle_to_one_position() {
        let mut range = KeyRange::whole(Position::from_u128(5));
        let mut depth = 0;
        loop {
            let parts = split(range);
            if let [single] = &parts[..] {
                assert_eq!(*single, range);
                assert_eq!(range.after.advanced(1), range.last);
                break;
            }
            range = parts[1];
            depth += 1;
        }
        assert_eq!(depth, 32);
    }

    proptest! {
        #[test]
        fn leaves_and_ends_make_up_a_span(ends in (positions(), positions())) {
            for span in spans(range(ends)) {
                let (leaves, ends) = cover(span);
                let mut parts: Vec<_> = ends.collect();
                if !leaves.is_empty() {
                    let last = start_of(leaves.end).wrapping_sub(1);
                    parts.push(Span { first: start_of(leaves.start), last });
                }
                parts.sort_by_key(|part| part.first);
                prop_assert!(parts.len() <= 3);
                prop_assert_eq!(parts[0].first, span.first);
                prop_assert_eq!(parts[parts.len() - 1].last, span.last);
                for pair in parts.windows(2) {
                    prop_assert_eq!(pair[0].last + 1, pair[1].first);
                }
            }
        }

        #[test]
        fn spans_hold_what_their_range_holds(ends in (positions(), positions()), at in positions()) {
            let at = Position::from_u128(at);
            let inside = spans(range(ends)).any(|span| span.contains(at));
            prop_assert_eq!(inside, range(ends).contains(at));
        }

        #[test]
        fn parts_make_up_their_range_and_end_where_leaves_do(ends in (positions(), positions())) {
            let whole = range(ends);
            let parts = split(whole);
            prop_assert!((1..=MAX_PARTS).contains(&parts.len()));
            prop_assert_eq!(parts[0].after, whole.after);
            prop_assert_eq!(parts[parts.len() - 1].last, whole.last);
            for pair in parts.windows(2) {
                prop_assert_eq!(pair[0].last, pair[1].after);
                prop_assert!(whole.contains(pair[0].last) && pair[0].last != whole.last);
            }
            let inner_ends = parts[..parts.len() - 1].iter().map(|part| part.last.to_u128());
            let shared = inner_ends.map(u128::trailing_ones).min().unwrap_or(0);
            for inner in parts.iter().skip(1).take(parts.len().saturating_sub(2)) {
                let cell = 1 << (shared - shared % LEVEL_BITS);
                prop_assert_eq!(inner.after.distance_to(inner.last), cell);
            }
            prop_assert_eq!(parts.len() == 1, whole.first() == whole.last);
        }
    }
}
