//! The delay and loss of messages.

use std::{collections::BTreeSet, time::Duration};

use rand::{Rng, RngExt as _};

/// A network that delays messages, loses some, and may be partitioned.
#[derive(Clone, Debug)]
pub struct Network {
    /// The mean one-way delay. Delays are distributed exponentially, as in the Chord paper.
    pub mean_delay: Duration,
    /// The share of the messages that is lost.
    pub loss: f64,
    /// The hosts that reach only each other.
    pub cut_off: BTreeSet<usize>,
}

impl Network {
    /// The network of the Chord paper: 50 ms one way.
    pub const fn of_the_paper() -> Self {
        Self { mean_delay: Duration::from_millis(50), loss: 0.0, cut_off: BTreeSet::new() }
    }

    /// A data centre: 0.5 ms one way, and one message in a thousand is lost.
    pub const fn local() -> Self {
        Self { mean_delay: Duration::from_micros(500), loss: 0.001, cut_off: BTreeSet::new() }
    }

    /// The delay of a message; `None` if it is lost.
    pub(super) fn delay(&self, from: usize, to: usize, rng: &mut impl Rng) -> Option<Duration> {
        if self.cut_off.contains(&from) != self.cut_off.contains(&to) || rng.random_bool(self.loss)
        {
            return None;
        }
        Some(exponential(self.mean_delay, rng))
    }
}

/// A random duration with an exponential distribution.
pub(super) fn exponential(mean: Duration, rng: &mut impl Rng) -> Duration {
    mean.mul_f64(-(1.0 - rng.random::<f64>()).ln())
}
