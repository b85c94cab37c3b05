//! The tables of the Chord paper (Stoica et al., "Chord: A Scalable Peer-to-peer Lookup Protocol
//! for Internet Applications", IEEE/ACM Transactions on Networking 11(1), 2003), measured with
//! shoal's code, beside the published figures.

use std::{fmt::Write as _, thread, time::Duration};

use clap::ValueEnum;
use rand::{SeedableRng as _, rngs::Xoshiro256PlusPlus};
use shoal_core::ring::{LookupSettings, NodeSettings, TimeoutSettings};

use super::{
    Churn, Network, Setup, Shape, StillRing, Sum, key_load, mass_crash, mass_join, partition,
};

/// The lookup of the Chord paper.
pub const ONE_BY_ONE: LookupSettings =
    LookupSettings { branches: 1, branches_after_timeout: 1, max_asks: 128 };

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Table {
    /// Path lengths.
    Hops,
    /// Lookups after many nodes failed at once (table II).
    Failures,
    /// Lookups while nodes join and crash (table III).
    Churn,
    /// Keys per node.
    Keys,
    /// How long a ring takes to become one again after an outage.
    Repair,
}

impl Table {
    /// Measures the table. The same seed gives the same table.
    pub fn measure(self, seed: u64) -> String {
        match self {
            Self::Hops => hops(seed),
            Self::Failures => failures(seed),
            Self::Churn => churn(seed),
            Self::Keys => keys(seed),
            Self::Repair => repair(seed),
        }
    }
}

/// Lookups in several random rings, in each of which the share `failed` of the nodes failed.
pub fn lookups_in(
    shape: Shape,
    failed: f64,
    settings: &LookupSettings,
    [rings, lookups]: [usize; 2],
    seed: u64,
) -> Sum {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut sum = Sum::default();
    for _ in 0..rings {
        let mut ring = StillRing::random(shape, &mut rng);
        ring.fail((failed * shape.nodes as f64) as usize, &mut rng);
        sum += ring.look_up_many(lookups / rings, settings, &mut rng);
    }
    sum
}

/// A ring as in table III of the paper: 500 nodes 50 ms apart, each of which stabilises and renews
/// all fingers every 30 s, and waits half a second for an answer. Lookups are more frequent than
/// the paper's one per second, to simulate fewer hours.
pub fn paper_churn(rate: f64, lookups: usize, seed: u64) -> (Churn, Setup) {
    const STABILISE_EVERY: Duration = Duration::from_secs(30);
    /// Fingers beyond the successor list at this size.
    const FINGERS: u32 = 21;
    let wait = Duration::from_millis(500);
    let node = NodeSettings {
        min_successors: 20,
        max_successors: 20,
        stabilise_every: STABILISE_EVERY,
        gossip_every: None,
        probe_every: Duration::from_secs(120),
        fix_finger_every: STABILISE_EVERY / FINGERS,
        ..NodeSettings::default()
    };
    let timeouts =
        TimeoutSettings { min: wait, max: wait, unknown: wait, ..TimeoutSettings::default() };
    let network = Network::of_the_paper();
    let setup = Setup { seed, node, lookup: LookupSettings::default(), timeouts, network };
    // By then all fingers are set.
    let warm_up = 10 * STABILISE_EVERY;
    (Churn { nodes: 500, rate, lookups, lookups_per_s: 10.0, warm_up }, setup)
}

fn hops(seed: u64) -> String {
    let mut text = String::from(
        "Path length: steps to the key's predecessor, mean of 10,000 lookups in 10 rings\n\
         \x20   N  classic  1/2 log2 N  base 16, lists  nodes asked\n",
    );
    let rows = (4..=12).map(|doublings| {
        move || {
            let nodes = 1 << doublings;
            let classic = lookups_in(Shape::classic(nodes), 0.0, &ONE_BY_ONE, [10, 10_000], seed);
            let settings = LookupSettings::default();
            let ours = lookups_in(Shape::of(nodes), 0.0, &settings, [10, 10_000], seed);
            let half = f64::from(doublings) / 2.0;
            format!(
                "{nodes:>6} {:>8.2} {half:>11.1} {:>15.2} {:>12.2}\n",
                classic.mean_hops(),
                ours.mean_hops(),
                ours.mean_asked()
            )
        }
    });
    text.extend(in_parallel(rows));
    text.push_str(
        "classic: fingers to the base 2, a list of 1, one branch; the paper finds 1/2 log2 N\n",
    );
    text
}

/// Table II: share of failed nodes, mean path length, mean number of timeouts.
const TABLE_II: [[f64; 3]; 6] = [
    [0.0, 3.84, 0.0],
    [0.1, 4.03, 0.60],
    [0.2, 4.22, 1.17],
    [0.3, 4.44, 2.02],
    [0.4, 4.69, 3.23],
    [0.5, 5.09, 5.10],
];

fn failures(seed: u64) -> String {
    let mut text = String::from(
        "Table II: nodes failed at once, N = 1,000, list of 20; 100,000 lookups in 100 rings\n\
         failed  hops (paper)  timeouts (paper)  failures  wrong  nodes asked\n",
    );
    let rows = TABLE_II.map(|[failed, paper_hops, paper_timeouts]| {
        move || {
            let settings = LookupSettings::default();
            let sum = lookups_in(Shape::of(1_000), failed, &settings, [100, 100_000], seed);
            format!(
                "{failed:>6.1} {:>5.2} ({paper_hops:.2}) {:>9.2} ({paper_timeouts:.2}) {:>9} {:>6} {:>12.2}\n",
                sum.mean_hops(),
                sum.mean_timeouts(),
                sum.failures,
                sum.wrong,
                sum.mean_asked()
            )
        }
    });
    text.extend(in_parallel(rows));
    text
}

/// Table III: joins per second, and as many leaves, mean path length, mean number of timeouts,
/// lookup failures per 10,000.
const TABLE_III: [(f64, f64, f64, u32); 8] = [
    (0.05, 3.90, 0.05, 0),
    (0.10, 3.83, 0.11, 0),
    (0.15, 3.84, 0.16, 2),
    (0.20, 3.81, 0.23, 5),
    (0.25, 3.83, 0.30, 6),
    (0.30, 3.91, 0.34, 8),
    (0.35, 3.94, 0.42, 16),
    (0.40, 4.06, 0.46, 15),
];

fn churn(seed: u64) -> String {
    let mut text = String::from(
        "Table III: joins and crashes (paper: leaves) per second, N = 500, stabilised every 30 s, 10,000 lookups\n\
         \x20rate  hops (paper)  timeouts (paper)  failed + wrong (paper)  asked  one ring after\n",
    );
    let rows = TABLE_III.map(|(rate, paper_hops, paper_timeouts, paper_failures)| {
        move || {
            let (churn, setup) = paper_churn(rate, 10_000, seed);
            let report = churn.run(setup);
            let sum = report.sum;
            format!(
                "{rate:>5.2} {:>5.2} ({paper_hops:.2}) {:>9.2} ({paper_timeouts:.2}) {:>12} + {} ({paper_failures}) {:>12.2} {:>15}\n",
                sum.mean_hops(),
                sum.mean_timeouts(),
                sum.failures,
                sum.wrong,
                sum.mean_asked(),
                seconds(report.one_ring_after)
            )
        }
    });
    text.extend(in_parallel(rows));

    let churn = Churn {
        nodes: 500,
        rate: 0.4,
        lookups: 10_000,
        lookups_per_s: 100.0,
        warm_up: Duration::from_secs(10),
    };
    let report = churn.run(Setup::deployed(seed));
    let sum = report.sum;
    let _ = writeln!(
        text,
        "as deployed, at 0.40: {:.2} hops, {:.3} timeouts, {} failed + {} wrong, {:.2} asked, \
         the first node asked was the owner in {:.2} %, one ring after {}",
        sum.mean_hops(),
        sum.mean_timeouts(),
        sum.failures,
        sum.wrong,
        sum.mean_asked(),
        100.0 * sum.first_try as f64 / sum.lookups as f64,
        seconds(report.one_ring_after)
    );
    text
}

fn keys(seed: u64) -> String {
    const SEEDS: u64 = 20;
    let rows = (seed..seed + SEEDS).map(|seed| move || key_load(1_000, 20, 1_000_000, seed));
    let loads = in_parallel(rows);
    let mean =
        |of: fn(&super::KeyLoad) -> f64| loads.iter().map(of).sum::<f64>() / loads.len() as f64;
    format!(
        "Keys per node, N = 1,000, 20 positions each, 10^6 keys: 99th percentile {:.2} x the mean \
         (by arc lengths {:.2}), mean of {SEEDS} seeds\n",
        mean(|load| load.keys),
        mean(|load| load.arcs)
    )
}

fn repair(seed: u64) -> String {
    type Scenario = (&'static str, fn(u64) -> Option<Duration>);
    let mut text = String::from("Time until there is one ring again, nodes as deployed\n");
    let scenarios: [Scenario; 4] = [
        ("8 nodes cut into 4 + 4 for 30 s", |seed| {
            partition(Setup::deployed(seed), 8, Duration::from_secs(30))
        }),
        ("200 nodes cut into 100 + 100 for 30 s", |seed| {
            partition(Setup::deployed(seed), 200, Duration::from_secs(30))
        }),
        ("500 nodes join a ring of 8 at once", |seed| mass_join(Setup::deployed(seed), 8, 500)),
        ("250 of 500 nodes die at once", |seed| mass_crash(Setup::deployed(seed), 500, 250)),
    ];
    for (name, run) in scenarios {
        let mut times = in_parallel((seed..seed + 5).map(|seed| move || run(seed)));
        times.sort_by_key(|time| time.unwrap_or(Duration::MAX));
        let _ = writeln!(
            text,
            "{name:<40} median {}, {} to {} in 5 seeds",
            seconds(times[2]),
            seconds(times[0]),
            seconds(times[4])
        );
    }
    text
}

fn seconds(time: Option<Duration>) -> String {
    time.map_or_else(|| "never".into(), |time| format!("{:.1} s", time.as_secs_f64()))
}

/// Runs each job in its own thread. Returns the results in the order of the jobs.
fn in_parallel<T: Send>(jobs: impl IntoIterator<Item = impl FnOnce() -> T + Send>) -> Vec<T> {
    thread::scope(|scope| {
        let threads: Vec<_> = jobs.into_iter().map(|job| scope.spawn(job)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no simulation panics")).collect()
    })
}
