//! Which asks of a lookup go together.
//!
//! A round is what is asked at once. An answer that brings the lookup closer begins a new one, and
//! what was asked before no longer counts as under way; a failure has the next round take its place.

/// The rounds of one lookup.
#[derive(Clone, Debug, Default)]
pub(super) struct Rounds {
    asked: Vec<Round>,
    /// The first that nothing better has come after.
    current: usize,
    /// To which asks made now belong.
    next: usize,
    timeouts: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Round {
    under_way: usize,
    answered: bool,
}

impl Rounds {
    /// Asks of the rounds that count.
    pub(super) fn under_way(&self) -> usize {
        self.asked.iter().skip(self.current).map(|round| round.under_way).sum()
    }

    /// Rounds that ended without an answer before anything better was known.
    pub(super) const fn timeouts(&self) -> usize {
        self.timeouts
    }

    /// What is asked from now on is a round of its own, and the only one that counts.
    pub(super) const fn begin_anew(&mut self) {
        self.current = self.asked.len();
        self.next = self.current;
    }

    /// A node is asked. Returns the number of its round.
    pub(super) fn ask(&mut self) -> usize {
        if self.asked.len() <= self.next {
            self.asked.resize(self.next + 1, Round::default());
        }
        self.asked[self.next].under_way += 1;
        self.next
    }

    /// A node of a round answered.
    pub(super) fn answered(&mut self, round: usize) {
        self.end(round).answered = true;
    }

    /// A node of a round failed.
    pub(super) fn failed(&mut self, round: usize) {
        let Round { under_way, answered } = *self.end(round);
        if round >= self.current && under_way == 0 && !answered {
            self.timeouts += 1;
        }
    }

    fn end(&mut self, round: usize) -> &mut Round {
        self.next = self.next.max(round + 1);
        let round = &mut self.asked[round];
        round.under_way -= 1;
        round
    }
}
