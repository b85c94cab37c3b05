//! A map from the positions of the circle to values, stored as ranges with one value each.

use std::{collections::BTreeMap, ops::Bound};

use super::{KeyRange, Position};

const FIRST: Position = Position::from_u128(0);
const LAST: Position = Position::from_u128(u128::MAX);

/// A value, or none, for each position. Adjacent positions with equal values form one range.
///
/// Invariant: there is an entry at position 0, and no two consecutive entries are equal. An entry
/// applies from its position to the one before the next entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RangeMap<T> {
    starts: BTreeMap<Position, Option<T>>,
}

impl<T> Default for RangeMap<T> {
    fn default() -> Self {
        Self { starts: BTreeMap::from([(FIRST, None)]) }
    }
}

impl<T: Clone + PartialEq> RangeMap<T> {
    /// The value at a position.
    pub fn at(&self, position: Position) -> Option<&T> {
        self.starts.range(..=position).next_back().and_then(|(_, value)| value.as_ref())
    }

    /// The range with one value around a position, as far as it goes without wrapping around
    /// position 0.
    pub fn around(&self, position: Position) -> Option<(KeyRange, &T)> {
        let (first, value) = self.starts.range(..=position).next_back()?;
        let after = (Bound::Excluded(position), Bound::Unbounded);
        let last = self.starts.range(after).next().map_or(LAST, |(start, _)| start.previous());
        Some((KeyRange { after: first.previous(), last }, value.as_ref()?))
    }

    /// The ranges that make up `range`, cut at its ends, clockwise.
    pub fn over(&self, range: KeyRange) -> Vec<(KeyRange, Option<&T>)> {
        let mut parts: Vec<(KeyRange, Option<&T>)> = Vec::new();
        for (first, last) in lines(range) {
            for (from, to) in self.cuts(first, last) {
                let value = self.at(from);
                match parts.last_mut() {
                    // A range that continues after position 0.
                    Some((before, known)) if *known == value => before.last = to,
                    _ => parts.push((KeyRange { after: from.previous(), last: to }, value)),
                }
            }
        }
        parts
    }

    /// The number of ranges, including those without a value.
    pub fn count(&self) -> usize {
        self.starts.len()
    }

    /// The ranges with a value, in the order of positions.
    pub fn known(&self) -> impl Iterator<Item = (KeyRange, &T)> {
        let ranges = self.over(KeyRange::whole(LAST));
        ranges.into_iter().filter_map(|(range, value)| Some((range, value?)))
    }

    /// Changes the values of the parts of a range.
    pub fn update(&mut self, range: KeyRange, mut change: impl FnMut(&mut Option<T>)) {
        for (first, last) in lines(range) {
            self.cut_before(first);
            if last != LAST {
                self.cut_before(last.next());
            }
            for (_, value) in self.starts.range_mut(first..=last) {
                change(value);
            }
            self.join(first, last);
        }
    }

    /// Makes a range begin at `position`.
    fn cut_before(&mut self, position: Position) {
        if !self.starts.contains_key(&position) {
            let value = self.at(position).cloned();
            self.starts.insert(position, value);
        }
    }

    /// Joins equal adjacent ranges, from the one before `first` to the one after `last`.
    fn join(&mut self, first: Position, last: Position) {
        let before = self.starts.range(..first).next_back().map_or(FIRST, |(start, _)| *start);
        let after = (Bound::Excluded(last), Bound::Unbounded);
        let end = self.starts.range(after).next().map_or(LAST, |(start, _)| *start);
        let mut previous = self.starts.get(&before).cloned();
        let starts: Vec<_> = self.starts.range(before..=end).map(|(start, _)| *start).collect();
        for start in starts.into_iter().skip(1) {
            let value = self.starts.get(&start).cloned();
            if value == previous {
                self.starts.remove(&start);
            } else {
                previous = value;
            }
        }
    }

    /// The first and last position of each range between two positions.
    fn cuts(&self, first: Position, last: Position) -> Vec<(Position, Position)> {
        let inside = (Bound::Excluded(first), Bound::Included(last));
        let starts = if first == last {
            Vec::new()
        } else {
            self.starts.range(inside).map(|(start, _)| *start).collect()
        };
        let froms = std::iter::once(first).chain(starts.iter().copied());
        let tos = starts.iter().map(|start| start.previous()).chain([last]);
        froms.zip(tos).collect()
    }
}

/// A range as one or two lines from a first to a last position that do not wrap around position 0.
fn lines(range: KeyRange) -> Vec<(Position, Position)> {
    let (first, last) = (range.first(), range.last);
    if first <= last { vec![(first, last)] } else { vec![(first, LAST), (FIRST, last)] }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ring::Bits;

    fn four(value: u128) -> Position {
        Bits::new(4).expect("four bits are a ring").position(value)
    }

    fn range(after: u128, last: u128) -> KeyRange {
        KeyRange { after: four(after), last: four(last) }
    }

    #[test]
    fn nothing_is_known_at_first() {
        let map = RangeMap::<u8>::default();
        assert_eq!(map.at(four(3)), None);
        assert_eq!(map.over(range(5, 5)), [(range(5, 5), None)]);
    }

    #[test]
    fn a_range_that_passes_zero_is_in_one_part() {
        let mut map = RangeMap::default();
        map.update(range(12, 3), |value| *value = Some('a'));
        assert_eq!(map.over(range(12, 3)), [(range(12, 3), Some(&'a'))]);
        assert_eq!(
            map.over(range(10, 5)),
            [(range(10, 12), None), (range(12, 3), Some(&'a')), (range(3, 5), None)]
        );
    }

    #[test]
    fn equal_adjacent_ranges_are_one() {
        let mut map = RangeMap::default();
        map.update(range(1, 4), |value| *value = Some('a'));
        map.update(range(4, 8), |value| *value = Some('a'));
        assert_eq!(map.known().collect::<Vec<_>>(), [(range(1, 8), &'a')]);
    }

    proptest! {
        /// Sixteen values, one per position: the obvious way to do the same.
        #[test]
        fn it_is_as_if_each_position_had_its_value(
            changes in proptest::collection::vec((0_u128..16, 0_u128..16, 0_u8..3), 0..20),
            asked in (0_u128..16, 0_u128..16),
        ) {
            let mut map = RangeMap::default();
            let mut plain = [None; 16];
            for (after, last, new) in changes {
                map.update(range(after, last), |value| *value = Some(value.unwrap_or(0) ^ new));
                for (at, value) in plain.iter_mut().enumerate() {
                    if range(after, last).contains(four(at as u128)) {
                        *value = Some(value.unwrap_or(0) ^ new);
                    }
                }
                let mut entries = map.starts.values();
                let mut before = entries.next();
                for entry in entries {
                    prop_assert_ne!(before, Some(entry));
                    before = Some(entry);
                }
            }
            let asked = range(asked.0, asked.1);
            let parts = map.over(asked);
            prop_assert_eq!(parts[0].0.after, asked.after);
            prop_assert_eq!(parts[parts.len() - 1].0.last, asked.last);
            for (at, value) in plain.iter().enumerate() {
                let at = four(at as u128);
                prop_assert_eq!(map.at(at), value.as_ref());
                let around = map.around(at);
                prop_assert_eq!(around.map(|(_, value)| value), value.as_ref());
                prop_assert!(around.is_none_or(|(range, _)| range.contains(at)));
                let holding = parts.iter().filter(|(part, _)| part.contains(at));
                let values: Vec<_> = holding.map(|(_, value)| *value).collect();
                let expected = if asked.contains(at) { vec![value.as_ref()] } else { vec![] };
                prop_assert_eq!(values, expected);
            }
        }
    }
}
