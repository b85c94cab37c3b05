//! What happens to messages on their way.

use std::{collections::BTreeSet, time::Duration};

use rand::{Rng, RngExt as _};

/// A network that delays messages, loses some, and may be cut in two.
#[derive(Clone, Debug)]
pub struct Network {
    /// One way, on average; a message takes from half as long to half as long again.
    pub mean_delay: Duration,
    /// The part of the messages that is lost.
    pub loss: f64,
    /// Hosts that reach each other, and nobody else.
    pub cut_off: BTreeSet<usize>,
}

impl Network {
    /// A network that loses nothing.
    pub const fn reliable(mean_delay: Duration) -> Self {
        Self { mean_delay, loss: 0.0, cut_off: BTreeSet::new() }
    }

    /// How long a message takes; none if it never arrives.
    pub(super) fn delay(&self, from: usize, to: usize, rng: &mut impl Rng) -> Option<Duration> {
        if self.cut_off.contains(&from) != self.cut_off.contains(&to) || rng.random_bool(self.loss)
        {
            return None;
        }
        Some(self.mean_delay.mul_f64(rng.random_range(0.5..1.5)))
    }
}

/// A random duration, of which the shorter are the more likely.
pub(super) fn exponential(mean: Duration, rng: &mut impl Rng) -> Duration {
    mean.mul_f64(-(1.0 - rng.random::<f64>()).ln())
}
