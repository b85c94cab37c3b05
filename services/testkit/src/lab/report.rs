//! The result of a run, and the median of several runs.

use std::{fmt, time::Duration};

use indicatif::DecimalBytes;

use super::setup::Setup;
use crate::fleet::Usage;

/// The result of a run in which every copy was complete and equal to the published file.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// The settings of the run.
    pub setup: Setup,
    /// The peers in the order of their completion. Never empty.
    pub(super) peers: Vec<Peer>,
    /// The usage of all processes, including tracker and publisher.
    pub(super) usage: Usage,
    /// The share of processor time that the hypervisor gave to other virtual machines.
    pub(super) stolen_percent: f64,
}

/// A peer that completed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    /// Time from the start of the first peer's process.
    pub(super) time: Duration,
    /// Bytes received and discarded.
    pub(super) wasted_bytes: u64,
}

/// Several runs of one setup.
#[derive(Clone, Debug)]
pub struct Summary {
    runs: Vec<Measurement>,
}

/// The median and the range of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
    count: usize,
}

impl Measurement {
    /// The completion time of the last peer, in seconds.
    fn last(&self) -> f64 {
        self.peers.iter().map(|peer| peer.time.as_secs_f64()).fold(0.0, f64::max)
    }

    /// The mean completion time of the peers, in seconds.
    fn mean(&self) -> f64 {
        self.peers.iter().map(|peer| peer.time.as_secs_f64()).sum::<f64>() / self.peers.len() as f64
    }

    fn gb(&self) -> f64 {
        self.setup.copies() as f64 / 1e9
    }

    fn gb_per_s(&self) -> f64 {
        self.gb() / self.last()
    }

    fn gb_per_cpu_s(&self) -> f64 {
        self.gb() / self.usage.cpu.as_secs_f64()
    }

    fn wasted_percent(&self) -> f64 {
        let wasted: u64 = self.peers.iter().map(|peer| peer.wasted_bytes).sum();
        100.0 * wasted as f64 / self.setup.copies() as f64
    }

    fn peak_mib(&self) -> f64 {
        self.usage.peak_memory as f64 / f64::from(1 << 20)
    }

    /// The textbook's lower bound for a swarm, in seconds.
    fn bound(&self) -> Option<f64> {
        Some(self.setup.distribution()?.peer_to_peer().time.as_secs_f64())
    }
}

impl Summary {
    /// Summarises one or more runs.
    pub fn new(runs: Vec<Measurement>) -> Self {
        assert!(!runs.is_empty(), "a summary needs at least one run");
        Self { runs }
    }

    /// The headings of the columns.
    pub const COLUMNS: [&str; 9] = [
        "swarm",
        "last / bound",
        "mean / bound",
        "last, s",
        "GB/s in total",
        "duplicates, %",
        "GB per CPU-second",
        "peak VmRSS, MiB",
        "stolen, %",
    ];

    /// A row of the table.
    pub fn row(&self) -> [String; 9] {
        let over_bound = |figure: fn(&Measurement) -> f64| match self.runs[0].bound() {
            Some(bound) => self.spread(|run| figure(run) / bound).with_decimals(3),
            None => "-".to_owned(),
        };
        [
            self.runs[0].setup.to_string(),
            over_bound(Measurement::last),
            over_bound(Measurement::mean),
            self.spread(Measurement::last).with_decimals(2),
            self.spread(Measurement::gb_per_s).with_decimals(3),
            self.spread(Measurement::wasted_percent).with_decimals(2),
            self.spread(Measurement::gb_per_cpu_s).with_decimals(2),
            self.spread(Measurement::peak_mib).with_decimals(0),
            self.spread(|run| run.stolen_percent).with_decimals(1),
        ]
    }

    fn spread(&self, figure: impl Fn(&Measurement) -> f64) -> Spread {
        Spread::of(self.runs.iter().map(figure).collect())
    }
}

/// One figure per line.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [swarm, last_ratio, mean_ratio, last, sum, wasted, per_cpu, memory, stolen] =
            self.row();
        let cpu = self.spread(|run| run.usage.cpu.as_secs_f64()).with_decimals(2);
        let mean = self.spread(Measurement::mean).with_decimals(2);
        writeln!(f, "{swarm}")?;
        if let Some(distribution) = self.runs[0].setup.distribution() {
            let (bound, server) = (distribution.peer_to_peer(), distribution.client_server());
            writeln!(
                f,
                "bound       {:.2} s, {}; client-server {:.2} s, {}",
                bound.time.as_secs_f64(),
                bound.term,
                server.time.as_secs_f64(),
                server.term
            )?;
            writeln!(f, "last peer   {last} s, {last_ratio} x the bound")?;
            writeln!(f, "mean peer   {mean} s, {mean_ratio} x the bound")?;
        } else {
            writeln!(f, "last peer   {last} s")?;
            writeln!(f, "mean peer   {mean} s")?;
        }
        writeln!(f, "rate        {sum} GB/s in total")?;
        let bytes: u64 = self.runs.iter().flat_map(|run| &run.peers).map(|p| p.wasted_bytes).sum();
        writeln!(f, "duplicates  {wasted} %, {} in total", DecimalBytes(bytes))?;
        writeln!(f, "processor   {cpu} s, {per_cpu} GB per CPU-second")?;
        writeln!(f, "stolen      {stolen} % of the processor time went to other virtual machines")?;
        writeln!(f, "memory      {memory} MiB, the largest peak of any process")?;
        let copies = self.runs.iter().map(|run| run.peers.len()).sum::<usize>();
        write!(f, "copies      {copies}, each with the BLAKE3 of the published file")
    }
}

impl Spread {
    fn of(mut figures: Vec<f64>) -> Self {
        figures.sort_by(f64::total_cmp);
        let count = figures.len();
        Self {
            median: f64::midpoint(figures[(count - 1) / 2], figures[count / 2]),
            min: figures[0],
            max: figures[count - 1],
            count,
        }
    }

    /// `1.05 (1.04-1.07)`, or the median alone if there is only one run.
    fn with_decimals(self, decimals: usize) -> String {
        let Self { median, min, max, count } = self;
        if !max.is_finite() {
            // GB per CPU-second, if the run was too short for the kernel to count processor time.
            return "-".to_owned();
        }
        if count == 1 {
            return format!("{median:.decimals$}");
        }
        format!("{median:.decimals$} ({min:.decimals$}-{max:.decimals$})")
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::{
        super::setup::{LinkRate, PublisherFate},
        *,
    };

    fn run(last_ms: u64) -> Measurement {
        let peer = |time, wasted_bytes| Peer { time: Duration::from_millis(time), wasted_bytes };
        Measurement {
            setup: Setup {
                peers: NonZeroU32::new(2).unwrap(),
                size: "50MB".parse().unwrap(),
                server_up: "200mbit".parse().unwrap(),
                peer_up: vec!["100mbit".parse().unwrap()],
                down: LinkRate::UNSHAPED,
                late: None,
                publisher: PublisherFate::Stays,
                limit: Duration::from_secs(300),
            },
            peers: vec![peer(2000, 0), peer(last_ms, 1_000_000)],
            usage: Usage { cpu: Duration::from_millis(500), peak_memory: 20 << 20 },
            stolen_percent: 1.25,
        }
    }

    #[test]
    fn a_run_is_compared_with_the_bound() {
        let summary = Summary::new(vec![run(2500)]);
        assert_eq!(
            summary.row(),
            [
                "2 peers, 50MB, us 200mbit, ui 100mbit, di unshaped",
                "1.250",
                "1.125",
                "2.50",
                "0.040",
                "1.00",
                "0.20",
                "20",
                "1.2"
            ]
        );
        let text = summary.to_string();
        assert!(text.contains("bound       2.00 s, "), "{text}");
        assert!(text.contains("last peer   2.50 s, 1.250 x the bound"), "{text}");
    }

    #[test]
    fn several_runs_give_a_median_and_a_range() {
        let summary = Summary::new(vec![run(3000), run(2200), run(2400)]);
        assert_eq!(summary.row()[1], "1.200 (1.100-1.500)");
        assert_eq!(Spread::of(vec![4.0, 1.0]).with_decimals(1), "2.5 (1.0-4.0)");
    }

    #[test]
    fn an_unshaped_run_has_no_bound() {
        let mut unshaped = run(2500);
        unshaped.setup.server_up = LinkRate::UNSHAPED;
        let summary = Summary::new(vec![unshaped]);
        assert_eq!(summary.row()[1], "-");
        assert!(!summary.to_string().contains("bound"));
    }
}
