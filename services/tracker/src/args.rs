//! The tracker's command line.

use clap::{Args as Flatten, Parser};
use serde::Serialize;
use shoal_common::{
    command_line::VERSION,
    process::{CommandLine, LogFlags},
};

const EXAMPLES: &str = "\
Examples:
  shoal-tracker                                     listen on all addresses, port 7070
  shoal-tracker --listen 127.0.0.1:7170 --admin off
  SHOAL__LIMITS__SWARMS=1000 shoal-tracker          the same as --limits-swarms 1000
  shoal-tracker --config /etc/shoal/tracker.toml --check-config
  shoal-tracker health                              exit 0 if the tracker here is ready, else 1

Settings come from defaults, then the file, then the environment (SHOAL__SECTION__KEY), then flags.
RUST_LOG filters the log; OTEL_EXPORTER_OTLP_ENDPOINT names a collector of traces.";

/// The tracker of shoal: gives peers the addresses of other peers of a swarm
#[derive(Debug, Parser)]
#[command(name = "shoal-tracker", version = VERSION, after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) line: CommandLine,
    #[command(flatten)]
    pub(crate) flags: Flags,
}

/// The same structure as the settings. The values are parsed together, to report all mistakes at
/// once.
#[derive(Debug, Flatten, Serialize)]
pub(crate) struct Flags {
    /// Address to listen on [default: 0.0.0.0:7070]
    #[arg(long, value_name = "ADDR:PORT", global = true)]
    listen: Option<String>,
    /// Address of /metrics and gRPC health, in plaintext [default: 0.0.0.0:9070]
    #[arg(long, value_name = "ADDR:PORT|off")]
    admin: Option<String>,
    /// Time between two announces of a peer; it is removed when it misses two [default: 30s]
    #[arg(long, value_name = "DURATION")]
    interval: Option<String>,
    /// Percentage of an answer that is filled with peers of the asking peer's node and zone first
    /// [default: 25]
    #[arg(long, value_name = "PERCENT")]
    near_percent: Option<String>,
    /// Addresses that peers may announce: the one they are observed at, or any [default: observed]
    #[arg(long, value_name = "observed|any")]
    advertised_addresses: Option<String>,
    #[command(flatten)]
    limits: LimitFlags,
    #[command(flatten)]
    log: LogFlags,
}

#[derive(Debug, Flatten, Serialize)]
struct LimitFlags {
    /// Open connections [default: 20000]
    #[arg(long = "limits-connections", value_name = "N")]
    connections: Option<String>,
    /// Open connections from one source, an IPv4 address or an IPv6 /64; half of all if not given
    #[arg(long = "limits-connections-per-source", value_name = "N")]
    connections_per_source: Option<String>,
    /// Swarms [default: 100000]
    #[arg(long = "limits-swarms", value_name = "N")]
    swarms: Option<String>,
    /// Peers in all swarms together, each counted once per swarm [default: 200000]
    #[arg(long = "limits-peers", value_name = "N")]
    peers: Option<String>,
    /// Peers in one swarm [default: 100000]
    #[arg(long = "limits-peers-per-swarm", value_name = "N")]
    peers_per_swarm: Option<String>,
    /// Peers that announce from one address, in each 16th of all swarms [default: 1000]
    #[arg(long = "limits-peers-per-address", value_name = "N")]
    peers_per_address: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }
}
