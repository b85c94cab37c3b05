//! The report of a run, as a table.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use super::{clients::Tally, plan::Target, swarm::Counts};

/// The order of the rows.
const KINDS: [&str; 6] = ["kill", "stop", "cut network", "full disk", "clock step", "attack"];

/// The result of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The seed, with which the run can be repeated.
    pub seed: u64,
    /// For how long faults were injected.
    pub length: Duration,
    /// Injected faults, by kind of fault and kind of process.
    pub faults: BTreeMap<&'static str, [u64; 3]>,
    /// Attacks that did not reach their victim, and why.
    pub missed: Vec<String>,
    /// Kinds of faults that are not possible here, and why.
    pub skipped: Vec<String>,
    /// Counts of the swarm.
    pub swarm: Counts,
    /// Counts of the ring's clients.
    pub ring: Tally,
    /// Time from the last fault until the nodes formed one ring and all processes were ready.
    pub ready_after: Option<Duration>,
    /// Time from the last fault until all downloads were complete.
    pub complete_after: Option<Duration>,
    /// The peak memory of any ring node, any tracker and any peer, in bytes.
    pub peak_memory: [u64; 3],
    /// Guarantees that were violated.
    pub violations: Vec<String>,
    /// Where the logs are, if they were kept.
    pub logs: Option<PathBuf>,
}

impl Report {
    pub(super) fn count(&mut self, kind: &'static str, target: Target) {
        self.faults.entry(kind).or_default()[column(target)] += 1;
    }

    /// The number of faults of all kinds.
    pub fn fault_count(&self) -> u64 {
        self.faults.values().flatten().sum()
    }
}

/// The index of a kind of process in arrays of counts.
pub(super) fn column(target: Target) -> usize {
    match target {
        Target::Ring(_) => 0,
        Target::Tracker(_) => 1,
        Target::Peer(_) => 2,
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<14}{:>8}{:>10}{:>8}", "faults", "ring", "trackers", "peers")?;
        for kind in KINDS {
            let [ring, trackers, peers] = self.faults.get(kind).copied().unwrap_or_default();
            writeln!(f, "{kind:<14}{ring:>8}{trackers:>10}{peers:>8}")?;
        }
        for missed in &self.missed {
            writeln!(f, "missed: {missed}")?;
        }
        for skipped in &self.skipped {
            writeln!(f, "skipped: {skipped}")?;
        }
        let Counts { published, compared, compared_bytes, asked_again, removed } = self.swarm;
        let mb = compared_bytes as f64 / 1e6;
        writeln!(
            f,
            "swarm: {published} files published, {compared} downloads complete and compared byte by \
             byte ({mb:.1} MB), {asked_again} failed and requested again, {removed} contents removed"
        )?;
        let Tally { read, written, swapped, refused, unknown, unread, rewritten, keys } = self.ring;
        writeln!(
            f,
            "ring: {keys} keys, {read} reads, {written} writes, {swapped} compare-and-sets, {refused} \
             with a false condition, {unknown} with an unknown outcome, {unread} reads without an \
             answer, {rewritten} values rewritten by the ring"
        )?;
        let after = |time: Option<Duration>| {
            time.map_or("never".to_owned(), |time| format!("{:.1} s", time.as_secs_f64()))
        };
        writeln!(
            f,
            "after the last fault: one ring and all processes ready after {}, all downloads complete \
             after {}",
            after(self.ready_after),
            after(self.complete_after)
        )?;
        let [ring, tracker, peer] = self.peak_memory.map(|bytes| bytes as f64 / f64::from(1 << 20));
        writeln!(
            f,
            "peak memory: ring node {ring:.0} MiB, tracker {tracker:.0} MiB, peer {peer:.0} MiB"
        )?;
        for violation in &self.violations {
            writeln!(f, "VIOLATION: {violation}")?;
        }
        match &self.logs {
            None => write!(f, "verdict: no violations"),
            Some(logs) => write!(
                f,
                "verdict: {} violations; the logs are in {}; to repeat the faults: \
                 shoal-chaos --seed {} --seconds {}",
                self.violations.len(),
                logs.display(),
                self.seed,
                self.length.as_secs()
            ),
        }
    }
}
