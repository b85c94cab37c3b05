//! `shoal-chaos`: tests the guarantees of a swarm and a ring under random faults and attacks.

use std::{process::ExitCode, time::Duration};

use anyhow::bail;
use clap::Parser;
use shoal_testkit::{
    chaos::{self, Setup, plan::plan},
    interrupt::{self, Interrupt},
};

const EXAMPLES: &str = "\
Examples:
  shoal-chaos --minutes 10                 with a random seed, which is printed
  shoal-chaos --seed 7 --seconds 60        with the faults of this seed
  shoal-chaos --seed 7 --seconds 60 --plan print the faults and their times only

As root on Linux every process has its own host, whose network can be cut, and some have a small
disk, which can be filled. Otherwise these faults are left out, and the report says so.";

/// Injects random faults and attacks into a ring, trackers and peers while clients use them, and
/// checks their guarantees: linearizable keys, correct copies, and full recovery soon after the
/// faults.
///
/// Exits with 1 if a guarantee was violated; then the logs of all processes are kept.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Args {
    /// Determines the faults and their times [default: random]
    #[arg(long)]
    seed: Option<u64>,
    /// For how many minutes faults are injected [default: 1]
    #[arg(long, conflicts_with = "seconds")]
    minutes: Option<u64>,
    /// For how many seconds faults are injected
    #[arg(long)]
    seconds: Option<u64>,
    /// Print the faults of the seed and exit
    #[arg(long)]
    plan: bool,
    /// Keep the logs even if no guarantee was violated
    #[arg(long)]
    keep_logs: bool,
}

fn main() -> ExitCode {
    interrupt::exit_code("shoal-chaos", run())
}

fn run() -> anyhow::Result<()> {
    let Args { seed, minutes, seconds, plan: only_plan, keep_logs } = Args::parse();
    let seed = seed.unwrap_or_else(rand::random);
    let length = Duration::from_secs(seconds.unwrap_or_else(|| 60 * minutes.unwrap_or(1)));
    if only_plan {
        for fault in plan(seed, length) {
            println!("{:>7.1} s {fault}", fault.begins.as_secs_f64());
        }
        return Ok(());
    }
    let report = chaos::run(&Setup { seed, length, keep_logs }, &Interrupt::listen()?)?;
    println!("{report}");
    match report.violations.first() {
        None => Ok(()),
        Some(first) => bail!("{first}"),
    }
}
