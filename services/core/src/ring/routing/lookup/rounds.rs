//! The rounds of a lookup.
//!
//! A round is a set of questions asked at once. An answer that brings the lookup closer begins a
//! new one, and earlier questions no longer count as in flight; a failure lets the next question
//! take its place.

/// The rounds of one lookup.
#[derive(Clone, Debug, Default)]
pub(super) struct Rounds {
    asked: Vec<Round>,
    /// The first round that nothing better has followed.
    current: usize,
    /// The round of questions asked now.
    next: usize,
    timeouts: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Round {
    under_way: usize,
    answered: bool,
}

impl Rounds {
    /// Questions of the rounds that count.
    pub(super) fn under_way(&self) -> usize {
        self.asked.iter().skip(self.current).map(|round| round.under_way).sum()
    }

    /// Rounds that ended without an answer before anything better was known.
    pub(super) const fn timeouts(&self) -> usize {
        self.timeouts
    }

    /// Questions asked from now on form a new round, the only one that counts.
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
