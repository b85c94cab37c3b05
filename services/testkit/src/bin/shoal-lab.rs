//! `shoal-lab`: measures the shipped binaries on shaped links, against the textbook's bound.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use shoal_common::units::{ByteSize, duration};
use shoal_testkit::{
    interrupt::{self, Interrupt},
    lab::{self, Late, LinkRate, PublisherFate, Setup},
};

const EXAMPLES: &str = "\
Examples:
  shoal-lab                                           the textbook's figure at N = 10
  shoal-lab -n 30 --runs 3                            median and range of three runs
  shoal-lab -n 9 --size 20MB --us 100mbit --uplinks 5mbit,20mbit,80mbit
  shoal-lab -n 8 --size 500MB --us 0 --ui 0 --di 0    as fast as this machine
  shoal-lab --table                                   all of docs/BENCHMARKS.md";

/// Measures the shipped binaries on shaped links, one network namespace per host (root, Linux).
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Args {
    /// Peers besides the publisher
    #[arg(short, default_value = "10")]
    n: NonZeroU32,
    /// Size of the file
    #[arg(long, default_value = "50MB")]
    size: ByteSize,
    /// Uplink of the publisher; 0: unshaped, as fast as the machine
    #[arg(long, default_value = "200mbit")]
    us: LinkRate,
    /// Uplink of a peer
    #[arg(long, default_value = "20mbit")]
    ui: LinkRate,
    /// Downlink of every host
    #[arg(long, default_value = "400mbit")]
    di: LinkRate,
    /// Uplinks assigned to the peers in turn, instead of --ui
    #[arg(long, value_delimiter = ',', value_name = "RATES")]
    uplinks: Vec<LinkRate>,
    /// The last K peers start S seconds later
    #[arg(long, value_name = "K:S")]
    late: Option<Late>,
    /// Kill the publisher when the first peer is complete
    #[arg(long)]
    seed_dies: bool,
    /// Fail after this time
    #[arg(long, default_value = "300s", value_parser = duration::parse, value_name = "DURATION")]
    limit: Duration,
    /// Repeat the run, and print median and range
    #[arg(long, default_value = "1")]
    runs: NonZeroUsize,
    /// Run the whole set of docs/BENCHMARKS.md and print a Markdown table; takes --runs and --limit
    #[arg(long)]
    table: bool,
}

fn main() -> ExitCode {
    interrupt::exit_code("shoal-lab", run(Args::parse()))
}

fn run(args: Args) -> anyhow::Result<()> {
    lab::check_requirements()?;
    let interrupt = Interrupt::listen()?;
    lab::remove_leftovers()?;
    if args.table {
        return lab::table(args.runs, args.limit, &interrupt);
    }
    let runs = args.runs;
    let summary = lab::repeat(&args.into(), runs, &interrupt)?;
    println!("{summary}");
    Ok(())
}

impl From<Args> for Setup {
    fn from(args: Args) -> Self {
        let Args { n, size, us, ui, di, uplinks, late, seed_dies, limit, .. } = args;
        Self {
            peers: n,
            size,
            server_up: us,
            peer_up: if uplinks.is_empty() { vec![ui] } else { uplinks },
            down: di,
            late,
            publisher: if seed_dies {
                PublisherFate::DiesAfterOneCopy
            } else {
                PublisherFate::Stays
            },
            limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(arguments: &[&str]) -> Setup {
        let arguments = std::iter::once("shoal-lab").chain(arguments.iter().copied());
        Args::try_parse_from(arguments).unwrap().into()
    }

    #[test]
    fn the_default_is_the_textbooks_figure() {
        assert_eq!(setup(&[]).to_string(), "10 peers, 50MB, us 200mbit, ui 20mbit, di 400mbit");
    }

    #[test]
    fn every_condition_can_be_requested() {
        let flags = "-n 9 --us 100mbit --uplinks 5mbit,20mbit --di 0 --late 2:3 --seed-dies";
        assert_eq!(
            setup(&flags.split(' ').collect::<Vec<_>>()).to_string(),
            "9 peers, 50MB, us 100mbit, ui 5mbit/20mbit, di unshaped, 2 of them 3 s late, \
             the publisher dies after one copy"
        );
    }
}
