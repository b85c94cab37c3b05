//! The command line of `shoal-loadgen`, and its help.

use std::{num::NonZeroU64, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use shoal_common::{
    command_line::VERSION,
    units::{ByteSize, duration},
};
use shoal_core::{Address, content::Link};

const EXAMPLES: &str = "\
Examples:
  shoal-loadgen announce --tracker tracker:7070                    as fast as 16 callers can
  shoal-loadgen announce --tracker tracker:7070 --rate 5000        5,000 a second, even if slow
  shoal-loadgen lookup --dht dht-node:7071 --duration 1m --json report.json --plot report.svg
  shoal-loadgen kv --dht dht-node:7071 --reads 0.5 --value-size 1KiB
  shoal-loadgen swarm --content ID --tracker tracker:7070          pieces from all its seeders
  shoal-loadgen swarm --content ID --peer peer:7072 --concurrency 4
  shoal-loadgen mixed --tracker tracker:7070 --dht dht-node:7071 --content ID --peer peer:7072
  shoal-loadgen echo --listen 0.0.0.0:7079                         the server for --baseline
  shoal-loadgen lookup --dht dht-node:7071 --baseline echo:7079

A name with several addresses is several targets. All targets are called in turn.

Without --rate the loop is closed: each of --concurrency callers waits for its answer before it
calls again, so a slow service is called less often. With --rate the loop is open: calls are due at
fixed times, and latency counts from the time when a call was due, even if no caller was free then.
Calls that did not begin before the end are counted as NOT_BEGUN.

Exit status: 0, or 1 if no call was answered, 2 for a wrong command line.";

/// Calls the services of shoal at a chosen rate, and measures their answers
#[derive(Debug, Parser)]
#[command(name = "shoal-loadgen", version = VERSION, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Announce fictitious peers of fictitious contents to trackers
    Announce {
        #[command(flatten)]
        target: TrackerArgs,
        #[command(flatten)]
        load: LoadArgs,
    },
    /// Look up the owners of random keys in the ring
    Lookup {
        #[command(flatten)]
        target: DhtArgs,
        #[command(flatten)]
        load: LoadArgs,
    },
    /// Read and write small values in the ring
    Kv {
        #[command(flatten)]
        target: DhtArgs,
        #[command(flatten)]
        values: ValueArgs,
        #[command(flatten)]
        load: LoadArgs,
    },
    /// Request pieces of a content from peers; the bytes are counted and discarded
    Swarm {
        #[command(flatten)]
        target: SwarmArgs,
        #[command(flatten)]
        load: LoadArgs,
    },
    /// All of these in turn, if their targets are given
    Mixed {
        #[command(flatten)]
        target: MixedArgs,
        #[command(flatten)]
        values: ValueArgs,
        #[command(flatten)]
        load: LoadArgs,
    },
    /// Run an echo server: it answers each call with the number of bytes requested
    Echo {
        /// Address to listen on
        #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:7079")]
        listen: Address,
    },
}

#[derive(Debug, Args)]
pub(crate) struct TrackerArgs {
    /// A tracker; may be repeated
    #[arg(long = "tracker", value_name = "HOST:PORT", required = true)]
    pub(crate) trackers: Vec<Address>,
}

#[derive(Debug, Args)]
pub(crate) struct DhtArgs {
    /// A ring node; may be repeated
    #[arg(long = "dht", value_name = "HOST:PORT", required = true)]
    pub(crate) nodes: Vec<Address>,
}

#[derive(Debug, Args)]
pub(crate) struct SwarmArgs {
    /// A peer that has the content; may be repeated
    #[arg(long = "peer", value_name = "HOST:PORT", required_unless_present = "trackers")]
    pub(crate) peers: Vec<Address>,
    /// A tracker to ask for seeders; may be repeated
    #[arg(long = "tracker", value_name = "HOST:PORT")]
    pub(crate) trackers: Vec<Address>,
    /// The content to fetch
    #[arg(long, value_name = "ID|LINK")]
    pub(crate) content: Link,
}

#[derive(Debug, Args)]
pub(crate) struct MixedArgs {
    /// A tracker; may be repeated
    #[arg(
        long = "tracker",
        value_name = "HOST:PORT",
        required_unless_present_any = ["nodes", "peers"]
    )]
    pub(crate) trackers: Vec<Address>,
    /// A ring node; may be repeated
    #[arg(long = "dht", value_name = "HOST:PORT")]
    pub(crate) nodes: Vec<Address>,
    /// A peer that has the content; may be repeated
    #[arg(long = "peer", value_name = "HOST:PORT", requires = "content")]
    pub(crate) peers: Vec<Address>,
    /// The content to fetch from peers
    #[arg(long, value_name = "ID|LINK")]
    pub(crate) content: Option<Link>,
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct ValueArgs {
    /// Fraction of the calls that read, from 0 to 1
    #[arg(long, value_name = "FRACTION", default_value = "0.9", value_parser = fraction)]
    pub(crate) reads: f64,
    /// Number of keys; they are written once before the run, and expire later
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) keys: u32,
    /// Size of each value, at most 64 KiB
    #[arg(long, value_name = "SIZE", default_value = "100B", value_parser = value_size)]
    pub(crate) value_size: ByteSize,
}

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Calls a second, even if answers are late [default: as fast as they are answered]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(crate) rate: Option<u64>,
    /// Callers: the most calls in flight [default: 16, or 1000 with --rate]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) concurrency: Option<u32>,
    /// How long calls are made; at most a day
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = run_time)]
    pub(crate) duration: Duration,
    /// End after this many calls
    #[arg(long, value_name = "N")]
    pub(crate) calls: Option<NonZeroU64>,
    /// Connections to each address
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) connections: u32,
    /// Longest wait for an answer
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration::parse)]
    pub(crate) timeout: Duration,
    /// Echo server (shoal-loadgen echo) to call in the same way afterwards, for comparison
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) baseline: Option<Address>,
    /// Write the report as JSON, to a file or to stdout
    #[arg(long, value_name = "FILE|-")]
    pub(crate) json: Option<PathBuf>,
    /// Draw latency over time into a file
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,
}

fn fraction(text: &str) -> Result<f64, String> {
    let fraction: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if (0.0..=1.0).contains(&fraction) {
        Ok(fraction)
    } else {
        Err(format!("{text} is not from 0 to 1"))
    }
}

fn value_size(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse().map_err(|error| format!("{error}"))?;
    if size.bytes() <= 64 << 10 { Ok(size) } else { Err("a value has at most 64 KiB".to_owned()) }
}

fn run_time(text: &str) -> Result<Duration, String> {
    let time = duration::parse(text).map_err(|error| error.to_string())?;
    let longest = Duration::from_secs(24 * 3600);
    if time <= longest { Ok(time) } else { Err("at most a day".to_owned()) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_scenario_needs_its_targets() {
        let id = "0".repeat(64);
        for good in [
            "l announce --tracker a:1 --tracker b:1 --rate 10",
            "l kv --dht a:1 --reads 0 --value-size 64KiB",
            &format!("l swarm --peer a:1 --content {id}"),
            &format!("l swarm --tracker a:1 --content {id}"),
            "l mixed --dht a:1",
            "l echo",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in [
            "l announce",
            "l lookup --tracker a:1",
            "l kv --dht a:1 --reads 1.5",
            "l kv --dht a:1 --reads nan",
            "l kv --dht a:1 --value-size 65KiB",
            "l lookup --dht a:1 --rate 0",
            "l lookup --dht a:1 --duration 25h",
            "l lookup --dht a:1 --connections 0",
            &format!("l swarm --content {id}"),
            "l swarm --peer a:1",
            "l mixed",
            "l mixed --peer a:1",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
