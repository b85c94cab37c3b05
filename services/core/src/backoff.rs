//! The pauses between retries.

use std::time::Duration;

use rand::{Rng, RngExt as _};

/// Exponential backoff, capped and jittered: retries of many processes must not coincide.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses around `first`, then doubling, never longer than `cap`.
    pub const fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, next: first }
    }

    /// The next pause: uniformly from half of the unjittered one to all of it.
    pub fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let full = self.next.min(self.cap);
        self.next = full.saturating_mul(2);
        full.mul_f64(rng.random_range(0.5..=1.0))
    }

    /// Success: the next pause is the first again.
    pub const fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_start_over_after_a_reset() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        for full in [1, 2, 4, 5, 5] {
            let full = Duration::from_secs(full);
            let wait = backoff.next(&mut rng);
            assert!((full / 2..=full).contains(&wait), "{wait:?} for {full:?}");
        }
        backoff.reset();
        assert!(backoff.next(&mut rng) <= Duration::from_secs(1));
    }
}
