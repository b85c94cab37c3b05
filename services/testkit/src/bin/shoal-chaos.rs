//! `shoal-chaos`: a swarm and a ring under random faults and attacks, and what they promise all the same.

use std::{process::ExitCode, time::Duration};

use anyhow::bail;
use clap::Parser;
use shoal_testkit::{
    chaos::{self, Setup, plan::plan},
    interrupt::{self, Interrupt},
};

const EXAMPLES: &str = "\
Examples:
  shoal-chaos --minutes 10                 with a seed of chance, which is printed
  shoal-chaos --seed 7 --seconds 60        with the faults of that seed
  shoal-chaos --seed 7 --seconds 60 --plan only print what would happen, and when

As root on Linux every process has a host of its own, whose network can be cut, and some have a small
disk, which can be full. Otherwise these faults are left out, and the report says so.";

/// Troubles a ring, trackers and peers with random faults and attacks while clients use them, and checks
/// what they promise: linearizable keys, true copies, and that all is well soon after.
///
/// Exits with 1 if a promise was broken; the logs of all processes are kept then.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Args {
    /// Decides which faults there are, and when [default: random]
    #[arg(long)]
    seed: Option<u64>,
    /// For how long there are faults [default: 1]
    #[arg(long, conflicts_with = "seconds")]
    minutes: Option<u64>,
    /// The same, in seconds
    #[arg(long)]
    seconds: Option<u64>,
    /// Print the faults of the seed, and do nothing
    #[arg(long)]
    plan: bool,
    /// Keep the logs although all promises were kept
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
