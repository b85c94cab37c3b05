//! How long the distribution took, and how long one server alone would have taken.

use std::{
    fmt,
    num::{NonZeroU32, NonZeroU64},
    thread,
    time::Duration,
};

use indicatif::DecimalBytes;
use shoal_common::units::Rate;
use shoal_core::bound::Distribution;

/// Measured values, except for configured upload limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    /// F: size of the file in bytes.
    pub(super) bytes: u64,
    /// N: number of peers.
    pub(super) peers: NonZeroU32,
    /// Completion time of the last peer.
    pub(super) last: Duration,
    pub(super) sent_by_seeder: u64,
    /// us, if limited.
    pub(super) server_up: Option<Rate>,
    /// ui, if limited.
    pub(super) peer_up: Option<Rate>,
}

impl Report {
    fn copies(&self) -> u64 {
        self.bytes * u64::from(self.peers.get())
    }

    /// The mean upload rate of the seeder until the last peer was complete.
    fn measured_up(&self) -> Option<NonZeroU64> {
        NonZeroU64::new((self.sent_by_seeder as f64 / self.last.as_secs_f64()) as u64)
    }

    /// The textbook's formulas with this uplink of the server.
    fn textbook(&self, server_up: NonZeroU64) -> Distribution {
        let uplink = self.peer_up.map_or(u64::MAX, |rate| rate.bytes_per_s().get());
        Distribution {
            bytes: self.bytes,
            peers: self.peers.into(),
            server_up_per_s: server_up,
            peers_up_per_s: uplink.saturating_mul(u64::from(self.peers.get())),
            slowest_down_per_s: None,
        }
    }

    /// Prints the time of one server with the seeder's uplink, configured or measured.
    fn one_server(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (up, origin) = match (self.server_up, self.measured_up()) {
            (Some(cap), _) => (cap.bytes_per_s(), "the seeder's limit".to_owned()),
            (None, Some(measured)) => {
                let cores = thread::available_parallelism().map_or(1, usize::from);
                let shared = format!("the measured rate; all processes shared {cores} cores");
                (measured, shared)
            }
            (None, None) => return Ok(()),
        };
        let needed = self.textbook(up).client_server();
        write!(
            f,
            "\none server  would need {:.2} s, {:.1} times as long: {} with us = {}/s, {origin} \
             (computed, not measured)",
            needed.time.as_secs_f64(),
            needed.time.as_secs_f64() / self.last.as_secs_f64(),
            needed.term,
            DecimalBytes(up.get()),
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.last.as_secs_f64();
        let from_peers = self.copies().saturating_sub(self.sent_by_seeder);
        writeln!(f, "time        {seconds:.2} s until the last peer was complete")?;
        writeln!(
            f,
            "rate        {}/s in total",
            DecimalBytes((self.copies() as f64 / seconds) as u64)
        )?;
        write!(
            f,
            "seeder      sent {}, {:.1} copies; the peers sent each other the rest, {:.0} %",
            DecimalBytes(self.sent_by_seeder),
            self.sent_by_seeder as f64 / self.bytes as f64,
            100.0 * from_peers as f64 / self.copies() as f64
        )?;
        self.one_server(f)?;
        if let (Some(server), Some(_)) = (self.server_up, self.peer_up) {
            let bound = self.textbook(server.bytes_per_s()).peer_to_peer();
            write!(
                f,
                "\nbound       {:.2} s ({}); the swarm took {:.2} times as long",
                bound.time.as_secs_f64(),
                bound.term,
                seconds / bound.time.as_secs_f64()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            bytes: 100_000_000,
            peers: NonZeroU32::new(8).unwrap(),
            last: Duration::from_secs(2),
            sent_by_seeder: 200_000_000,
            server_up: None,
            peer_up: None,
        }
    }

    #[test]
    fn one_server_is_computed_at_the_measured_rate() {
        let text = report().to_string();
        assert!(text.contains("400.00 MB/s in total"), "{text}");
        assert!(text.contains("sent 200.00 MB, 2.0 copies"), "{text}");
        assert!(text.contains("the rest, 75 %"), "{text}");
        assert!(text.contains("would need 8.00 s, 4.0 times as long: N*F/us"), "{text}");
        assert!(!text.contains("bound"), "{text}");
    }

    #[test]
    fn limited_uplinks_give_the_textbooks_bound() {
        let rate = |text: &str| Some(text.parse().unwrap());
        let capped = Report { server_up: rate("100MB/s"), peer_up: rate("50MB/s"), ..report() };
        let text = capped.to_string();
        assert!(text.contains("would need 8.00 s, 4.0 times as long"), "{text}");
        assert!(text.contains("bound       1.60 s (N*F/(us + sum ui)); the swarm took 1.25 times"));
    }
}
