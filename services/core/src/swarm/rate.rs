//! Bytes per second over a rolling time span.

use std::time::{Duration, Instant};

/// Equal parts of the span, forgotten one at a time.
const BUCKETS: u64 = 20;

/// Counts bytes and forgets those older than its span.
#[derive(Clone, Debug)]
pub(super) struct Rate {
    buckets: [u64; BUCKETS as usize],
    bucket_length: Duration,
    since: Instant,
    /// Number of the last written bucket, counted from `since`.
    head: u64,
}

impl Rate {
    pub(super) fn new(span: Duration, now: Instant) -> Self {
        let bucket_length = (span / BUCKETS as u32).max(Duration::from_micros(1));
        Self { buckets: [0; BUCKETS as usize], bucket_length, since: now, head: 0 }
    }

    pub(super) fn add(&mut self, now: Instant, bytes: u64) {
        let bucket = self.bucket_at(now);
        if bucket > self.head {
            for stale in self.head + 1..=bucket.min(self.head + BUCKETS) {
                self.buckets[(stale % BUCKETS) as usize] = 0;
            }
            self.head = bucket;
        }
        self.buckets[(self.head % BUCKETS) as usize] += bytes;
    }

    /// Bytes within the span.
    pub(super) fn bytes(&self, now: Instant) -> u64 {
        let bucket = self.bucket_at(now).max(self.head);
        let oldest = (bucket + 1).saturating_sub(BUCKETS);
        (oldest..=self.head).map(|bucket| self.buckets[(bucket % BUCKETS) as usize]).sum()
    }

    /// Over the span, or over the time since the start if that is shorter.
    pub(super) fn bytes_per_s(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.since);
        let span = age.min(self.bucket_length * BUCKETS as u32).max(MIN_AGE);
        self.bytes(now) as f64 / span.as_secs_f64()
    }

    fn bucket_at(&self, now: Instant) -> u64 {
        let age = now.saturating_duration_since(self.since);
        (age.as_nanos() / self.bucket_length.as_nanos()) as u64
    }
}

/// A rate is not computed over a shorter time: the first bytes only fill the transport's buffers.
const MIN_AGE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::swarm::testing::epoch;

    #[test]
    fn bytes_older_than_the_span_are_forgotten() {
        let start = epoch();
        let mut rate = Rate::new(Duration::from_secs(20), start);
        rate.add(start, 20_000);
        let at = |s| start + Duration::from_secs(s);
        assert!((rate.bytes_per_s(at(10)) - 2_000.0).abs() < 1.0);
        assert!((rate.bytes_per_s(at(19)) - 1_052.6).abs() < 1.0);
        assert_eq!(rate.bytes(at(20)), 0);
        rate.add(at(100), 40_000);
        assert!((rate.bytes_per_s(at(100)) - 2_000.0).abs() < 1.0);
    }

    proptest! {
        #[test]
        fn it_counts_bytes_within_its_span(adds in prop::collection::vec((0_u64..3_000, 0_u64..1_000), 1..60)) {
            let start = epoch();
            let mut rate = Rate::new(Duration::from_secs(20), start);
            let mut now = 0;
            let mut all = Vec::new();
            for (wait_ms, bytes) in adds {
                now += wait_ms;
                rate.add(start + Duration::from_millis(now), bytes);
                all.push((now / 1_000, bytes));
            }
            let bucket = now / 1_000;
            let expected: u64 = all.iter().filter(|(at, _)| at + BUCKETS > bucket).map(|(_, bytes)| bytes).sum();
            prop_assert_eq!(rate.bytes(start + Duration::from_millis(now)), expected);
        }
    }
}
