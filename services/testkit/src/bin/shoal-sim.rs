//! `shoal-sim`: simulates a swarm and compares it with the textbook's bound; `shoal-sim ring`
//! simulates rings and compares the cost of lookups with the figures of the Chord paper.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Parser, Subcommand, ValueEnum};
use shoal_core::content::PieceLength;
use shoal_testkit::sim::{self, Fault, HostSetup, MBIT, Setup, ring::Table};

/// Simulates a swarm. The same seed gives the same trace.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Seed of the random generator.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of seeds to run, from --seed on.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Peers besides the publisher.
    #[arg(short, default_value_t = 10)]
    n: usize,
    /// Size of the content, such as 50MB or 1GiB.
    #[arg(long, default_value = "50MB", value_parser = parse_size)]
    size: u64,
    /// Uplink of the publisher, Mbit/s.
    #[arg(long, default_value_t = 200)]
    us: u64,
    /// Uplink of a peer, Mbit/s.
    #[arg(long, default_value_t = 20)]
    ui: u64,
    /// Downlink of a peer, Mbit/s.
    #[arg(long, default_value_t = 400)]
    di: u64,
    /// Uplinks assigned to the peers in turn, Mbit/s; instead of --ui.
    #[arg(long, value_delimiter = ',')]
    uplinks: Vec<u64>,
    /// One-way latency, ms.
    #[arg(long, default_value_t = 1.0)]
    latency: f64,
    /// Size of a piece, such as 256KiB; default: by the size of the content.
    #[arg(long, value_parser = parse_size)]
    piece: Option<u64>,
    /// Maximum number of links of a peer.
    #[arg(long, default_value_t = 50)]
    neighbours: usize,
    /// Publish with super-seeding.
    #[arg(long)]
    super_seeding: bool,
    /// Fetch the pieces in order.
    #[arg(long)]
    sequential: bool,
    /// Number of peers that send wrong bytes.
    #[arg(long, default_value_t = 0)]
    poisoners: usize,
    /// Number of peers that claim every piece and never send.
    #[arg(long, default_value_t = 0)]
    silent: usize,
    /// Number of peers that unchoke nobody.
    #[arg(long, default_value_t = 0)]
    free_riders: usize,
    /// Kill the publisher once the other peers hold every piece among them.
    #[arg(long)]
    publisher_dies: bool,
    /// Number of peers that leave after one second and return two seconds later.
    #[arg(long, default_value_t = 0)]
    leavers: usize,
    /// What to simulate: one swarm, or the swarms of the design's table.
    #[arg(long, value_enum, default_value_t = Scenario::One)]
    scenario: Scenario,
    /// Write every event to a file.
    #[arg(long)]
    trace: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Simulates rings and prints tables beside those of the Chord paper.
    Ring {
        /// Seed of the random generator.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// The tables to print; default: all.
        #[arg(long, value_enum, value_delimiter = ',')]
        tables: Vec<Table>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    One,
    Table,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(Command::Ring { seed, tables }) = &args.command {
        let all = Table::value_variants();
        for table in if tables.is_empty() { all } else { tables } {
            println!("{}", table.measure(*seed));
        }
        return Ok(());
    }
    match args.scenario {
        Scenario::One => simulate_one(&args),
        Scenario::Table => simulate_table(&args),
    }
}

fn simulate_one(args: &Args) -> anyhow::Result<()> {
    for seed in args.seed..args.seed + args.seeds {
        let setup = Setup { seed, ..setup_of(args)? };
        let report = match &args.trace {
            None => sim::run(&setup, None)?,
            Some(path) => {
                let file = File::create(path)
                    .with_context(|| format!("cannot write the trace {}", path.display()))?;
                let mut file = BufWriter::new(file);
                let report = sim::run(&setup, Some(&mut file))?;
                file.flush()?;
                report
            }
        };
        println!("seed        {seed}\n{report}");
        if report.last().is_none() {
            bail!(
                "a peer never completed; to repeat: shoal-sim --seed {seed}, and the same other flags"
            );
        }
    }
    Ok(())
}

fn simulate_table(args: &Args) -> anyhow::Result<()> {
    println!("{:<42} last/bound  mean/bound  duplicates  fairness", "swarm");
    for row in sim::rows() {
        let mut sums = [0.0; 4];
        for seed in args.seed..args.seed + args.seeds {
            let report = sim::run(&Setup { seed, ..row.setup.clone() }, None)?;
            let mean = report.mean().map_or(f64::INFINITY, |mean| mean.as_secs_f64());
            let mean = mean / report.bound.as_secs_f64();
            let figures =
                [report.ratio(), mean, 100.0 * report.duplicate_share(), report.fairness()];
            for (sum, figure) in sums.iter_mut().zip(figures) {
                *sum += figure / args.seeds as f64;
            }
        }
        let [ratio, mean, duplicates, fairness] = sums;
        println!(
            "{:<42} {ratio:>10.3}  {mean:>10.3}  {duplicates:>9.2}%  {fairness:>8.3}",
            row.name
        );
    }
    Ok(())
}

fn setup_of(args: &Args) -> anyhow::Result<Setup> {
    let uplinks = if args.uplinks.is_empty() { vec![args.ui] } else { args.uplinks.clone() };
    let peers = uplinks.into_iter().cycle().take(args.n);
    let peers = peers.map(|up| HostSetup::new(up * MBIT, args.di * MBIT));
    let publisher = HostSetup::new(args.us * MBIT, args.di * MBIT);
    let mut setup = Setup::with_hosts(args.size, std::iter::once(publisher).chain(peers).collect());
    let mut odd = setup.hosts[1..].iter_mut();
    odd.by_ref().take(args.poisoners).for_each(|host| host.poisons = true);
    odd.by_ref().take(args.silent).for_each(|host| host.silent = true);
    odd.take(args.free_riders).for_each(|host| host.free_rides = true);
    let piece_length = args.piece.map(PieceLength::new).transpose()?;
    let leavers = (1..setup.hosts.len()).take(args.leavers).map(|host| Fault::Leaves {
        host,
        at: Duration::from_secs(1),
        away: Some(Duration::from_secs(2)),
    });
    let faults = leavers.chain(args.publisher_dies.then_some(Fault::PublisherDiesAfterOneCopy));
    Ok(Setup {
        piece_length,
        latency: Duration::from_secs_f64(args.latency / 1e3),
        neighbours: args.neighbours,
        super_seeding: args.super_seeding,
        sequential: args.sequential,
        faults: faults.collect(),
        ..setup
    })
}

/// Parses a number of bytes with an optional unit.
fn parse_size(text: &str) -> anyhow::Result<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" | "B" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        unit => bail!("{unit} is not a unit; use B, KB, MB, GB, KiB, MiB or GiB"),
    };
    let number: u64 = digits.parse().with_context(|| format!("{text} is not a size"))?;
    number.checked_mul(factor).with_context(|| format!("{text} is too large"))
}
