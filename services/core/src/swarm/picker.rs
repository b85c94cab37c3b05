//! The piece picker: rarest first, in O(1) per HAVE.
//!
//! Each open piece is in exactly one level, by its priority and its number of copies; a level is a
//! bitfield. A HAVE moves one bit from a level to the next. A pick intersects the lowest levels
//! with the pieces of the neighbour, 64 pieces at a time: 8,192 pieces are 128 words.

use rand::{Rng, RngExt};

use super::interface::Priority;
use crate::content::{Bitfield, PieceIndex};

/// The order in which pieces of equal priority are picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Those with the fewest copies first, ties at random.
    RarestFirst,
    /// By number, for streaming readers.
    Sequential,
}

/// Counts the copies of each piece, and picks among the open ones.
#[derive(Debug)]
pub(super) struct Picker {
    order: Order,
    piece_count: u32,
    /// Neighbours that hold everything; they count for each piece.
    complete: u32,
    /// Copies at the other neighbours.
    copies: Vec<u32>,
    priorities: Vec<Priority>,
    /// Open pieces, by priority and copies.
    levels: [Vec<Bitfield>; PRIORITIES],
    open: Bitfield,
}

/// Priorities with which a piece can be picked, which excludes [`Priority::Skip`].
const PRIORITIES: usize = 3;

impl Picker {
    /// No copies known, and no piece open.
    pub(super) fn new(piece_count: u32, order: Order) -> Self {
        Self {
            order,
            piece_count,
            complete: 0,
            copies: vec![0; piece_count as usize],
            priorities: vec![Priority::default(); piece_count as usize],
            levels: Default::default(),
            open: Bitfield::empty(piece_count),
        }
    }

    /// One more neighbour holds this piece.
    pub(super) fn gain(&mut self, piece: PieceIndex) {
        self.change_level(piece, |picker| picker.copies[piece.get() as usize] += 1);
    }

    /// One neighbour fewer holds this piece.
    pub(super) fn lose(&mut self, piece: PieceIndex) {
        self.change_level(piece, |picker| {
            let copies = &mut picker.copies[piece.get() as usize];
            *copies = copies.saturating_sub(1);
        });
    }

    /// One more neighbour holds every piece.
    pub(super) fn gain_complete(&mut self) {
        self.complete += 1;
    }

    /// One neighbour fewer holds every piece.
    pub(super) fn lose_complete(&mut self) {
        self.complete = self.complete.saturating_sub(1);
    }

    /// Neighbours that hold every piece.
    pub(super) const fn complete(&self) -> u32 {
        self.complete
    }

    /// Copies of a piece at the other neighbours.
    pub(super) fn partial_copies(&self, piece: PieceIndex) -> u32 {
        self.copies[piece.get() as usize]
    }

    pub(super) fn priority(&self, piece: PieceIndex) -> Priority {
        self.priorities[piece.get() as usize]
    }

    pub(super) fn set_priority(&mut self, piece: PieceIndex, priority: Priority) {
        self.change_level(piece, |picker| picker.priorities[piece.get() as usize] = priority);
    }

    /// The piece may be picked.
    pub(super) fn open(&mut self, piece: PieceIndex) {
        self.change_level(piece, |picker| {
            picker.open.insert(piece);
        });
    }

    /// The piece may not be picked any more.
    pub(super) fn close(&mut self, piece: PieceIndex) {
        self.change_level(piece, |picker| {
            picker.open.remove(piece);
        });
    }

    pub(super) fn is_open(&self, piece: PieceIndex) -> bool {
        self.open.has(piece) && self.priority(piece) != Priority::Skip
    }

    /// Open pieces.
    pub(super) fn open_count(&self) -> u32 {
        self.levels.iter().flatten().map(Bitfield::held).sum()
    }

    /// No open piece has a higher priority than this one.
    pub(super) fn is_of_top_priority(&self, piece: PieceIndex) -> bool {
        let above = class(self.priority(piece)).unwrap_or(PRIORITIES);
        self.levels[..above].iter().flatten().all(|level| level.held() == 0)
    }

    /// The first open piece that the neighbour holds, in the picker's order.
    pub(super) fn pick(&self, from: &Bitfield, rng: &mut impl Rng) -> Option<PieceIndex> {
        let from = from.words();
        self.levels.iter().flatten().find_map(|level| self.among(level, |at| from[at], rng))
    }

    /// Any open piece that the neighbour holds, of the highest priority.
    pub(super) fn pick_at_random(&self, from: &Bitfield, rng: &mut impl Rng) -> Option<PieceIndex> {
        let from = from.words();
        self.levels.iter().find_map(|levels| {
            let sizes = levels.iter().map(|level| common(level, |at| from[at]));
            let mut nth = draw(sizes.sum(), rng)?;
            levels.iter().find_map(|level| {
                nth_common(level, |at| from[at], nth).inspect_err(|rest| nth = *rest).ok()
            })
        })
    }

    /// The first open piece that is in neither set, in the picker's order.
    pub(super) fn pick_outside(
        &self,
        held: &Bitfield,
        promised: &Bitfield,
        rng: &mut impl Rng,
    ) -> Option<PieceIndex> {
        let (held, promised) = (held.words(), promised.words());
        let outside = |at: usize| !(held[at] | promised[at]);
        self.levels.iter().flatten().find_map(|level| self.among(level, outside, rng))
    }

    fn among(
        &self,
        level: &Bitfield,
        mask: impl Fn(usize) -> u64 + Copy,
        rng: &mut impl Rng,
    ) -> Option<PieceIndex> {
        if level.held() == 0 {
            return None;
        }
        let nth = match self.order {
            Order::RarestFirst => draw(common(level, mask), rng)?,
            Order::Sequential => 0,
        };
        nth_common(level, mask, nth).ok()
    }

    /// Changes what determines a piece's level, and moves it there.
    fn change_level(&mut self, piece: PieceIndex, change: impl FnOnce(&mut Self)) {
        if piece.get() >= self.piece_count {
            return;
        }
        if let Some(level) = self.level_of(piece) {
            level.remove(piece);
        }
        change(self);
        if let Some(level) = self.level_of(piece) {
            level.insert(piece);
        }
    }

    /// The level of an open piece.
    fn level_of(&mut self, piece: PieceIndex) -> Option<&mut Bitfield> {
        if !self.open.has(piece) {
            return None;
        }
        let copies = match self.order {
            Order::RarestFirst => self.copies[piece.get() as usize] as usize,
            Order::Sequential => 0,
        };
        let levels = &mut self.levels[class(self.priority(piece))?];
        if levels.len() <= copies {
            levels.resize(copies + 1, Bitfield::empty(self.piece_count));
        }
        Some(&mut levels[copies])
    }
}

/// The index of a priority among the levels, the highest first.
fn class(priority: Priority) -> Option<usize> {
    match priority {
        Priority::High => Some(0),
        Priority::Normal => Some(1),
        Priority::Low => Some(2),
        Priority::Skip => None,
    }
}

/// A random number below `count`; none if that is 0.
fn draw(count: u32, rng: &mut impl Rng) -> Option<u32> {
    (count > 0).then(|| rng.random_range(0..count))
}

/// Pieces of a level under a mask.
fn common(level: &Bitfield, mask: impl Fn(usize) -> u64) -> u32 {
    if level.held() == 0 {
        return 0;
    }
    level.words().iter().enumerate().map(|(at, word)| (word & mask(at)).count_ones()).sum()
}

/// The nth piece of a level under a mask; else by how many it has too few.
fn nth_common(
    level: &Bitfield,
    mask: impl Fn(usize) -> u64,
    mut nth: u32,
) -> Result<PieceIndex, u32> {
    for (at, word) in level.words().iter().enumerate() {
        let mut word = word & mask(at);
        let ones = word.count_ones();
        if nth >= ones {
            nth -= ones;
            continue;
        }
        for _ in 0..nth {
            word &= word - 1;
        }
        return Ok(PieceIndex::new(at as u32 * 64 + word.trailing_zeros()));
    }
    Err(nth)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::Xoshiro256PlusPlus};

    use super::*;
    use crate::swarm::testing::bitfield;

    const COUNT: u32 = 150;

    /// A simple implementation of the same.
    struct Model {
        copies: Vec<u32>,
        priorities: Vec<Priority>,
        open: BTreeSet<u32>,
    }

    impl Model {
        fn rank(&self, piece: u32) -> (std::cmp::Reverse<Priority>, u32) {
            let at = piece as usize;
            (std::cmp::Reverse(self.priorities[at]), self.copies[at])
        }

        fn is_open(&self, piece: u32) -> bool {
            self.open.contains(&piece) && self.priorities[piece as usize] != Priority::Skip
        }

        /// The pieces of these that may be picked.
        fn best(&self, from: impl Iterator<Item = u32>) -> BTreeSet<u32> {
            let open: Vec<_> = from.filter(|piece| self.is_open(*piece)).collect();
            let least = open.iter().map(|piece| self.rank(*piece)).min();
            open.into_iter().filter(|piece| Some(self.rank(*piece)) == least).collect()
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Gain(u32),
        Lose(u32),
        Open(u32),
        Close(u32),
        Prioritise(u32, Priority),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let piece = 0..COUNT;
        let priority = prop_oneof![
            Just(Priority::Skip),
            Just(Priority::Low),
            Just(Priority::Normal),
            Just(Priority::High)
        ];
        let step = prop_oneof![
            4 => piece.clone().prop_map(Step::Gain),
            1 => piece.clone().prop_map(Step::Lose),
            4 => piece.clone().prop_map(Step::Open),
            1 => piece.clone().prop_map(Step::Close),
            1 => (piece, priority).prop_map(|(piece, priority)| Step::Prioritise(piece, priority)),
        ];
        prop::collection::vec(step, 0..400)
    }

    fn play(steps: Vec<Step>) -> (Picker, Model) {
        let mut picker = Picker::new(COUNT, Order::RarestFirst);
        let size = COUNT as usize;
        let priorities = vec![Priority::Normal; size];
        let mut model = Model { copies: vec![0; size], priorities, open: BTreeSet::new() };
        for step in steps {
            match step {
                Step::Gain(piece) => {
                    picker.gain(PieceIndex::new(piece));
                    model.copies[piece as usize] += 1;
                }
                Step::Lose(piece) => {
                    picker.lose(PieceIndex::new(piece));
                    let copies = &mut model.copies[piece as usize];
                    *copies = copies.saturating_sub(1);
                }
                Step::Open(piece) => {
                    picker.open(PieceIndex::new(piece));
                    model.open.insert(piece);
                }
                Step::Close(piece) => {
                    picker.close(PieceIndex::new(piece));
                    model.open.remove(&piece);
                }
                Step::Prioritise(piece, priority) => {
                    picker.set_priority(PieceIndex::new(piece), priority);
                    model.priorities[piece as usize] = priority;
                }
            }
        }
        (picker, model)
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_naive_picker(
            steps in steps(),
            has in prop::collection::btree_set(0..COUNT, 0..100),
            rng_seed: u64,
        ) {
            let (picker, model) = play(steps);
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(rng_seed);
            for piece in 0..COUNT {
                let index = PieceIndex::new(piece);
                prop_assert_eq!(picker.partial_copies(index), model.copies[piece as usize]);
                prop_assert_eq!(picker.is_open(index), model.is_open(piece));
            }
            let open = (0..COUNT).filter(|piece| model.is_open(*piece));
            prop_assert_eq!(picker.open_count() as usize, open.count());
            let held = bitfield(COUNT, has.iter().copied());
            let check = |picked: Option<PieceIndex>, best: BTreeSet<u32>| match picked {
                Some(piece) => best.contains(&piece.get()),
                None => best.is_empty(),
            };
            let best = model.best(has.iter().copied());
            prop_assert!(check(picker.pick(&held, &mut rng), best));
            let none = Bitfield::empty(COUNT);
            let outside = model.best((0..COUNT).filter(|piece| !has.contains(piece)));
            prop_assert!(check(picker.pick_outside(&held, &none, &mut rng), outside));
            let any = picker.pick_at_random(&held, &mut rng).map(PieceIndex::get);
            prop_assert_eq!(any.is_some(), has.iter().any(|piece| model.is_open(*piece)));
            prop_assert!(any.is_none_or(|piece| has.contains(&piece) && model.is_open(piece)));
        }
    }

    #[test]
    fn pieces_the_content_does_not_have_are_ignored() {
        let mut picker = Picker::new(3, Order::RarestFirst);
        for piece in [3, u32::MAX] {
            picker.gain(PieceIndex::new(piece));
            picker.open(PieceIndex::new(piece));
        }
        assert_eq!(picker.open_count(), 0);
    }
}
