//! The summary of a download: its time, rate and sources, and the lower bound of its time.

use std::{
    num::NonZeroU64,
    time::{Duration, Instant},
};

use shoal_core::bound::Distribution;

use crate::{
    output::{bytes, count, duration, rate},
    progress::Snapshot,
};

/// A link's capacity is the highest rate over this time; shorter bursts come from buffers.
const WINDOW: Duration = Duration::from_secs(1);

/// The observations of a download.
pub(crate) struct DownloadStats {
    started: Instant,
    /// The first and the last one.
    snapshots: Option<(Snapshot, Snapshot)>,
    peers: u32,
    window: Option<(Instant, Snapshot)>,
    /// The highest rates over a window: all downloads, those from seeders, and uploads.
    down: u64,
    from_seeders: u64,
    up: u64,
}

impl DownloadStats {
    pub(crate) const fn new(started: Instant) -> Self {
        Self { started, snapshots: None, peers: 0, window: None, down: 0, from_seeders: 0, up: 0 }
    }

    pub(crate) fn add(&mut self, now: Instant, snapshot: Snapshot) {
        self.peers = self.peers.max(snapshot.neighbours);
        let first = self.snapshots.map_or(snapshot, |(first, _)| first);
        self.snapshots = Some((first, snapshot));
        let (start, before) = *self.window.get_or_insert((now, snapshot));
        let took = now.duration_since(start);
        if took < WINDOW {
            return;
        }
        let per_s =
            |now: u64, before: u64| (now.saturating_sub(before) as f64 / took.as_secs_f64()) as u64;
        self.down = self.down.max(per_s(snapshot.downloaded_bytes, before.downloaded_bytes));
        self.from_seeders =
            self.from_seeders.max(per_s(snapshot.from_seeders_bytes, before.from_seeders_bytes));
        self.up = self.up.max(per_s(snapshot.uploaded_bytes, before.uploaded_bytes));
        self.window = Some((now, snapshot));
    }

    /// The last snapshot.
    pub(crate) fn last(&self) -> Option<&Snapshot> {
        self.snapshots.as_ref().map(|(_, last)| last)
    }

    /// The largest number of neighbours at a time; at least one if anything was downloaded, even if
    /// none was observed.
    pub(crate) fn peers(&self) -> u32 {
        let fetched = self.last().is_some_and(|last| last.downloaded_bytes > 0);
        self.peers.max(u32::from(fetched))
    }

    pub(crate) fn took(&self, now: Instant) -> Duration {
        now.duration_since(self.started)
    }

    /// One line for people.
    pub(crate) fn summary(&self, now: Instant) -> String {
        let Some((first, last)) = &self.snapshots else { return "nothing was fetched".to_owned() };
        let fetched = last.downloaded_bytes.saturating_sub(first.downloaded_bytes);
        let seeders = last.from_seeders_bytes.saturating_sub(first.from_seeders_bytes);
        let wasted = last.wasted_bytes.saturating_sub(first.wasted_bytes);
        let came = fetched.saturating_sub(wasted);
        if came == 0 {
            // They were here before, or are zeros.
            return format!("{} are here; nothing had to be fetched", bytes(last.total_bytes));
        }
        let took = self.took(now);
        let pace = rate((came as f64 / took.as_secs_f64()) as u64);
        let mut parts = vec![
            format!("{} in {}, {pace}", bytes(came), duration(took)),
            format!(
                "{:.0} % from seeders, {:.0} % from leechers",
                percent(seeders, fetched),
                percent(fetched.saturating_sub(seeders), fetched),
            ),
            count(u64::from(self.peers()), "neighbour"),
            format!("{:.1} % wasted", percent(wasted, fetched)),
        ];
        if let Some(bound) = self.bound(took, came, seeders) {
            parts.push(format!(
                "the textbook's bound at the observed rates is {} ({:.2} x)",
                duration(bound),
                took.as_secs_f64() / bound.as_secs_f64()
            ));
        }
        parts.join("; ")
    }

    /// max{F/us, F/dmin, N*F/(us + sum ui)}, with each link's capacity as observed.
    ///
    /// A peer observes only its own links, so the other peers are assumed to be like it: each of N
    /// gets an N-th of what seeders send, so us is N times what this peer received from seeders.
    fn bound(&self, took: Duration, bytes: u64, from_seeders: u64) -> Option<Duration> {
        if self.down == 0 {
            return None;
        }
        // The highest rate is at least the average over the whole download.
        let fastest =
            |observed: u64, sum: u64| observed.max((sum as f64 / took.as_secs_f64()) as u64);
        let down = NonZeroU64::new(fastest(self.down, bytes))?;
        let from_seeders = fastest(self.from_seeders, from_seeders);
        let peers = NonZeroU64::new(u64::from(self.peers()))?;
        let server_up_per_s = NonZeroU64::new(from_seeders.saturating_mul(peers.get()))
            .unwrap_or(down.saturating_mul(peers));
        // What leechers sent here left their uplinks, even if this peer uploaded less itself.
        let up = self.up.max(down.get().saturating_sub(from_seeders));
        let distribution = Distribution {
            bytes,
            peers,
            server_up_per_s,
            peers_up_per_s: up.saturating_mul(peers.get()),
            slowest_down_per_s: Some(down),
        };
        Some(distribution.peer_to_peer().time)
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::State;

    fn snapshot(held: u64, from_seeders: u64, wasted: u64) -> Snapshot {
        Snapshot {
            neighbours: 4,
            downloaded_bytes: held + wasted,
            from_seeders_bytes: from_seeders,
            wasted_bytes: wasted,
            ..Snapshot::local(State::Downloading, held, 40_000_000)
        }
    }

    #[test]
    fn a_summary_has_time_rate_sources_waste_and_bound() {
        let start = Instant::now();
        let mut stats = DownloadStats::new(start);
        stats.add(start, snapshot(0, 0, 0));
        let at = |seconds| start + Duration::from_secs(seconds);
        stats.add(at(1), snapshot(10_000_000, 5_000_000, 0));
        stats.add(at(2), snapshot(30_000_000, 10_000_000, 0));
        stats.add(at(4), snapshot(40_000_000, 10_000_000, 400_000));
        assert_eq!(
            stats.summary(at(4)),
            "40.00 MB in 4.00 s, 10.00 MB/s; \
             25 % from seeders, 75 % from leechers; \
             4 neighbours; 1.0 % wasted; \
             the textbook's bound at the observed rates is 2.00 s (2.00 x)"
        );
    }

    #[test]
    fn bytes_that_did_not_come_are_not_counted_as_fetched() {
        let start = Instant::now();
        let mut stats = DownloadStats::new(start);
        stats.add(start, snapshot(40_000_000, 0, 0));
        assert_eq!(stats.summary(start), "40.00 MB are here; nothing had to be fetched");
    }

    #[test]
    fn a_download_too_short_to_measure_has_no_bound() {
        let start = Instant::now();
        let mut stats = DownloadStats::new(start);
        stats.add(start, snapshot(0, 0, 0));
        let end = start + Duration::from_millis(100);
        stats.add(end, snapshot(40_000_000, 40_000_000, 0));
        let summary = stats.summary(end);
        assert!(!summary.contains("bound"), "{summary}");
    }
}
