//! Contents without a manifest: how often they were tried, and when they are retried.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rand::Rng;
use shoal_core::{backoff::Backoff, content::ContentId};

/// A content that was tried this often in vain is dropped.
pub(super) const MAX_TRIES: u32 = 6;
/// The pause after the first try, doubled after each, and the longest.
const FIRST_WAIT: Duration = Duration::from_secs(60);
const MAX_WAIT: Duration = Duration::from_secs(3600);
/// A dropped content counts as new after this long: its seeder may have returned.
const DROPPED_FOR: Duration = Duration::from_secs(24 * 3600);
/// Contents remembered; beyond that, one counts as new.
const MAX_CONTENTS: usize = 20_000;

/// Contents that were tried in vain.
#[derive(Debug, Default)]
pub(super) struct Tries(BTreeMap<ContentId, Tried>);

#[derive(Clone, Debug)]
struct Tried {
    times: u32,
    backoff: Backoff,
    next: Instant,
}

impl Tries {
    /// How often it was tried in vain.
    pub(super) fn count(&self, id: ContentId) -> u32 {
        self.0.get(&id).map_or(0, |tried| tried.times)
    }

    /// Whether it may be tried now.
    pub(super) fn is_due(&mut self, now: Instant, id: ContentId) -> bool {
        let Some(tried) = self.0.get(&id) else { return true };
        let is_due = tried.next <= now;
        if is_due && tried.times >= MAX_TRIES {
            self.0.remove(&id);
        }
        is_due
    }

    /// It was tried in vain once more. Returns the pause; none if it is dropped.
    pub(super) fn failed(
        &mut self,
        now: Instant,
        id: ContentId,
        rng: &mut impl Rng,
    ) -> Option<Duration> {
        if self.0.len() >= MAX_CONTENTS && !self.0.contains_key(&id) {
            self.0.pop_first();
        }
        let backoff = Backoff::new(FIRST_WAIT, MAX_WAIT);
        let tried = self.0.entry(id).or_insert(Tried { times: 0, backoff, next: now });
        tried.times += 1;
        if tried.times >= MAX_TRIES {
            tried.next = now + DROPPED_FOR;
            return None;
        }
        let wait = tried.backoff.next(rng);
        tried.next = now + wait;
        Some(wait)
    }

    /// Its manifest was found.
    pub(super) fn found(&mut self, id: ContentId) {
        self.0.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    fn id(number: usize) -> ContentId {
        ContentId::of_descriptor(&number.to_le_bytes())
    }

    #[test]
    fn pauses_grow_from_a_minute_until_it_is_dropped_for_a_day() {
        let (mut tries, mut rng) = (Tries::default(), StdRng::seed_from_u64(1));
        let mut now = Instant::now();
        for minutes in [1, 2, 4, 8, 16] {
            let wait = tries.failed(now, id(1), &mut rng).expect("it is tried again");
            let longest = Duration::from_secs(60 * minutes);
            assert!((longest / 2..=longest).contains(&wait), "{wait:?}");
            assert!(!tries.is_due(now + wait.saturating_sub(Duration::from_secs(1)), id(1)));
            now += wait;
            assert!(tries.is_due(now, id(1)));
        }
        assert_eq!(tries.failed(now, id(1), &mut rng), None);
        assert_eq!(tries.count(id(1)), MAX_TRIES);
        assert!(!tries.is_due(now + DROPPED_FOR.saturating_sub(Duration::from_secs(1)), id(1)));
        assert!(tries.is_due(now + DROPPED_FOR, id(1)));
        assert_eq!(tries.count(id(1)), 0, "it is new again");
    }

    #[test]
    fn the_number_of_entries_is_bounded() {
        let (mut tries, mut rng) = (Tries::default(), StdRng::seed_from_u64(1));
        for number in 0..2 * MAX_CONTENTS {
            tries.failed(Instant::now(), id(number), &mut rng);
        }
        assert_eq!(tries.0.len(), MAX_CONTENTS);
    }
}
