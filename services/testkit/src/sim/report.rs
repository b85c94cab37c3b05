//! The result of a simulation.

use std::{fmt, time::Duration};

/// Why an uplink has nothing to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// No neighbour is interested.
    NobodyInterested,
    /// The interested neighbours are choked.
    Choked,
    /// The unchoked neighbours have no open request.
    PipelineEmpty,
    /// The granted blocks wait for their receiver.
    ReceiverFull,
}

/// How long an uplink was idle, by reason, in ns.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct IdleTimes([u64; 4]);

impl IdleTimes {
    pub(super) fn add(&mut self, reason: Idle, nanos: u64) {
        self.0[reason as usize] += nanos;
    }
}

/// The result of a simulation.
#[derive(Clone, Debug)]
pub struct Report {
    /// The textbook's bound.
    pub bound: Duration,
    /// The completion time of each peer from its start; `None` if it never completed.
    pub completions: Vec<Option<Duration>>,
    /// Bytes received and used.
    pub useful: u64,
    /// Bytes received and discarded.
    pub duplicate: u64,
    /// Bytes that each peer sent, divided by its uplink rate in bytes per second.
    pub effort: Vec<f64>,
    /// Idle time of all uplinks in seconds: nobody interested, choked, pipeline empty, receiver
    /// full.
    pub idle_seconds: [f64; 4],
    /// Number of banned peers.
    pub bans: usize,
    /// Number of simulated events.
    pub events: u64,
}

impl Report {
    /// The completion time of the last peer; `None` if a peer never completed.
    pub fn last(&self) -> Option<Duration> {
        self.completions.iter().copied().collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// The mean completion time; `None` if a peer never completed.
    pub fn mean(&self) -> Option<Duration> {
        let all: Vec<_> = self.completions.iter().copied().collect::<Option<_>>()?;
        all.iter().sum::<Duration>().checked_div(all.len() as u32)
    }

    /// The last peer's time divided by the bound; infinite if a peer never completed.
    pub fn ratio(&self) -> f64 {
        self.last().map_or(f64::INFINITY, |last| last.as_secs_f64() / self.bound.as_secs_f64())
    }

    /// The discarded share of the received bytes.
    pub fn duplicate_share(&self) -> f64 {
        self.duplicate as f64 / (self.useful + self.duplicate).max(1) as f64
    }

    /// Jain's index of how much of its uplink each peer used: 1 if all used the same share.
    pub fn fairness(&self) -> f64 {
        let sum: f64 = self.effort.iter().sum();
        let squares: f64 = self.effort.iter().map(|effort| effort * effort).sum();
        if squares == 0.0 { 1.0 } else { sum * sum / (self.effort.len() as f64 * squares) }
    }

    pub(super) fn sum_idle<'a>(hosts: impl Iterator<Item = &'a IdleTimes>) -> [f64; 4] {
        let mut sums = [0.0; 4];
        for times in hosts {
            for (sum, nanos) in sums.iter_mut().zip(times.0) {
                *sum += nanos as f64 / 1e9;
            }
        }
        sums
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: Option<Duration>| {
            time.map_or("never".to_owned(), |time| format!("{:.3} s", time.as_secs_f64()))
        };
        writeln!(f, "bound       {:.3} s", self.bound.as_secs_f64())?;
        writeln!(f, "last peer   {} = {:.3} x bound", seconds(self.last()), self.ratio())?;
        writeln!(f, "mean peer   {}", seconds(self.mean()))?;
        writeln!(f, "duplicates  {:.2} %", 100.0 * self.duplicate_share())?;
        writeln!(
            f,
            "fairness    {:.3} (Jain's index of the peers' use of their uplinks)",
            self.fairness()
        )?;
        let [nobody, choked, empty, full] = self.idle_seconds;
        writeln!(f, "idle uplinks, seconds in total")?;
        writeln!(f, "            {nobody:.2} nobody interested, {choked:.2} choked")?;
        writeln!(f, "            {empty:.2} pipeline empty, {full:.2} receiver full")?;
        write!(f, "events      {}", self.events)
    }
}
