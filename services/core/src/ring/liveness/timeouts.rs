//! How long to wait for each node, by its measured round trips.
//!
//! As TCP does (RFC 6298): the smoothed round trip plus four times its variation, doubled for each
//! consecutive timeout; otherwise a node that became slow would never be measured again. As TCP has
//! one timer for all data in flight, calls that waited at the same time count as one.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use super::failure_detector::Unanswered;
use crate::ring::NodeId;

/// Limits of timeouts.
#[derive(Clone, Debug)]
pub struct TimeoutSettings {
    /// Never shorter: a busy node is not dead.
    pub min: Duration,
    /// Never longer.
    pub max: Duration,
    /// For a node that was never measured.
    pub unknown: Duration,
    /// Nodes remembered; the one measured longest ago is forgotten for a new one.
    pub max_nodes: usize,
}

impl Default for TimeoutSettings {
    fn default() -> Self {
        Self {
            min: Duration::from_millis(50),
            max: Duration::from_secs(2),
            unknown: Duration::from_millis(500),
            max_nodes: 4_096,
        }
    }
}

/// The timeouts of all nodes that were called.
#[derive(Clone, Debug)]
pub struct Timeouts {
    settings: TimeoutSettings,
    estimates: HashMap<NodeId, Estimate>,
    /// By the counter of the last event of each; the first is the oldest.
    ages: BTreeMap<u64, NodeId>,
    events: u64,
}

#[derive(Clone, Copy, Debug)]
struct Estimate {
    /// None: all calls to it have timed out.
    measured: Option<Measured>,
    /// Timeouts since the last answer.
    given_up: Unanswered,
    last_event: u64,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    smoothed: Duration,
    variation: Duration,
}

impl Timeouts {
    /// Nothing is measured yet.
    pub fn new(settings: TimeoutSettings) -> Self {
        Self { settings, estimates: HashMap::new(), ages: BTreeMap::new(), events: 0 }
    }

    /// How long to wait for this node's answer.
    pub fn timeout(&self, node: NodeId) -> Duration {
        let TimeoutSettings { min, max, unknown, .. } = self.settings;
        let estimate = self.estimates.get(&node);
        let measured = estimate.and_then(|estimate| estimate.measured);
        let base = measured.map_or(unknown, |Measured { smoothed, variation }| {
            smoothed.saturating_add(variation.saturating_mul(4)).max(min)
        });
        let given_up = estimate.map_or(0, |estimate| estimate.given_up.count());
        base.saturating_mul(2_u32.saturating_pow(given_up)).min(max)
    }

    /// A node answered after this long.
    pub fn answered(&mut self, node: NodeId, after: Duration) {
        // A longer time has the same effect, and could overflow.
        let after = after.min(self.settings.max);
        let estimate = self.touch(node);
        estimate.given_up = Unanswered::default();
        estimate.measured = Some(match estimate.measured {
            None => Measured { smoothed: after, variation: after / 2 },
            Some(Measured { smoothed, variation }) => Measured {
                smoothed: (smoothed * 7 + after) / 8,
                variation: (variation * 3 + smoothed.abs_diff(after)) / 4,
            },
        });
    }

    /// A call that was made at `asked` times out now.
    pub fn expired(&mut self, node: NodeId, asked: Instant, now: Instant) {
        self.touch(node).given_up.note(asked, now);
    }

    /// The estimate of a node, which becomes the newest.
    fn touch(&mut self, node: NodeId) -> &mut Estimate {
        self.events += 1;
        if let Some(known) = self.estimates.get(&node) {
            self.ages.remove(&known.last_event);
        } else if self.estimates.len() >= self.settings.max_nodes.max(1)
            && let Some((_, oldest)) = self.ages.pop_first()
        {
            self.estimates.remove(&oldest);
        }
        self.ages.insert(self.events, node);
        let given_up = Unanswered::default();
        let new = Estimate { measured: None, given_up, last_event: self.events };
        let estimate = self.estimates.entry(node).or_insert(new);
        estimate.last_event = self.events;
        estimate
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::ring::testing::{epoch, node};

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_steady_node_is_waited_for_little_longer_than_it_takes() {
        let mut timeouts = Timeouts::new(TimeoutSettings::default());
        let id = node(1).id;
        assert_eq!(timeouts.timeout(id), ms(500));
        timeouts.answered(id, ms(100));
        assert_eq!(timeouts.timeout(id), ms(300), "RFC 6298, 2.2: R + 4 * R/2");
        for _ in 0..50 {
            timeouts.answered(id, ms(100));
        }
        assert!((ms(100)..ms(101)).contains(&timeouts.timeout(id)));
        assert_eq!(timeouts.timeout(node(2).id), ms(500));
    }

    #[test]
    fn waits_stay_within_their_limits() {
        let mut timeouts = Timeouts::new(TimeoutSettings::default());
        let [fast, slow] = [1, 2].map(|number| node(number).id);
        for _ in 0..50 {
            timeouts.answered(fast, ms(1));
            timeouts.answered(slow, Duration::MAX);
        }
        assert_eq!(timeouts.timeout(fast), ms(50));
        assert_eq!(timeouts.timeout(slow), ms(2_000));
    }

    #[test]
    fn a_node_that_became_slow_is_given_ever_more_time_until_it_answers() {
        let mut timeouts = Timeouts::new(TimeoutSettings::default());
        let id = node(1).id;
        for _ in 0..50 {
            timeouts.answered(id, ms(1));
        }
        let (mut now, mut waits) = (epoch(), Vec::new());
        for _ in 0..8 {
            let asked = now;
            now += timeouts.timeout(id);
            timeouts.expired(id, asked, now);
            timeouts.expired(id, asked, now);
            waits.push(timeouts.timeout(id));
        }
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 2_000, 2_000, 2_000].map(ms));
        timeouts.answered(id, ms(1));
        assert_eq!(timeouts.timeout(id), ms(50));
    }

    #[test]
    fn the_node_measured_longest_ago_is_forgotten_for_another() {
        let settings = TimeoutSettings { max_nodes: 2, ..TimeoutSettings::default() };
        let mut timeouts = Timeouts::new(settings);
        for number in [1, 2, 1, 3] {
            timeouts.answered(node(number).id, ms(1));
        }
        assert_eq!(
            [1, 2, 3].map(|number| timeouts.timeout(node(number).id)),
            [50, 500, 50].map(ms)
        );
    }

    proptest! {
        #[test]
        fn memory_and_waits_are_bounded_whatever_happens(
            events in vec((0..16_u128, prop::option::of(any::<u64>())), 0..200)
        ) {
            let settings = TimeoutSettings { max_nodes: 4, ..TimeoutSettings::default() };
            let (now, mut timeouts) = (epoch(), Timeouts::new(settings.clone()));
            for (number, after) in events {
                let id = node(number).id;
                match after {
                    Some(after) => timeouts.answered(id, Duration::from_nanos(after)),
                    None => timeouts.expired(id, now, now),
                }
                prop_assert!((settings.min..=settings.max).contains(&timeouts.timeout(id)));
                prop_assert!(timeouts.estimates.len() <= 4);
                prop_assert_eq!(timeouts.ages.len(), timeouts.estimates.len());
            }
        }
    }
}
