//! What happens to messages on their way.

use std::{collections::BTreeSet, time::Duration};

use rand::{Rng, RngExt as _};

/// A network that delays messages, loses some, and may be cut in two.
#[derive(Clone, Debug)]
pub struct Network {
    /// One way, on average; delays are distributed exponentially, as in the Chord paper.
    pub mean_delay: Duration,
    /// The part of the messages that is lost.
    pub loss: f64,
    /// Hosts that reach each other, and nobody else.
    pub cut_off: BTreeSet<usize>,
}

impl Network {
    /// The network of the Chord paper: 50 ms one way.
    pub const fn of_the_paper() -> Self {
        Self { mean_delay: Duration::from_millis(50), loss: 0.0, cut_off: BTreeSet::new() }
    }

    /// A data centre: 0.5 ms one way, and one message of a thousand is lost.
    pub const fn local() -> Self {
        Self { mean_delay: Duration::from_micros(500), loss: 0.001, cut_off: BTreeSet::new() }
    }

    /// How long a message takes; none if it never arrives.
    pub(super) fn delay(&self, from: usize, to: usize, rng: &mut impl Rng) -> Option<Duration> {
        if self.cut_off.contains(&from) != self.cut_off.contains(&to) || rng.random_bool(self.loss)
        {
            return None;
        }
        Some(exponential(self.mean_delay, rng))
    }
}

/// A random duration, of which the shorter are the more likely.
pub(super) fn exponential(mean: Duration, rng: &mut impl Rng) -> Duration {
    mean.mul_f64(-(1.0 - rng.random::<f64>()).ln())
}
