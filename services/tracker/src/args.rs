//! The tracker's command line.

use clap::{Args as Flatten, Parser};
use serde::Serialize;
use shoal_common::process::{CommandLine, LogFlags};

const EXAMPLES: &str = "\
Examples:
  shoal-tracker                                     listen on all addresses, port 7070
  shoal-tracker --listen 127.0.0.1:7170 --admin off
  SHOAL__LIMITS__SWARMS=1000 shoal-tracker      the same as --limits-swarms 1000
  shoal-tracker --config /etc/shoal/tracker.toml --check-config
  shoal-tracker health                              exit 0 if the tracker here is ready, else 1

Settings come from defaults, then the file, then the environment (SHOAL__SECTION__KEY), then flags.
RUST_LOG filters the log; OTEL_EXPORTER_OTLP_ENDPOINT names a collector of traces.";

/// The tracker of shoal: tells peers who else takes part in a swarm.
#[derive(Debug, Parser)]
#[command(name = "shoal-tracker", version, after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) line: CommandLine,
    #[command(flatten)]
    pub(crate) flags: Flags,
}

/// Shaped like the settings. The values are read with all others, to tell all mistakes at once.
#[derive(Debug, Flatten, Serialize)]
pub(crate) struct Flags {
    /// Where to listen [default: 0.0.0.0:7070]
    #[arg(long, value_name = "ADDR:PORT", global = true)]
    listen: Option<String>,
    /// Where /metrics and gRPC health are served in plaintext [default: 0.0.0.0:9070]
    #[arg(long, value_name = "ADDR:PORT|off")]
    admin: Option<String>,
    /// Time between two announces of a peer, which is forgotten after two missed ones [default: 30s]
    #[arg(long, value_name = "DURATION")]
    interval: Option<String>,
    /// Part of a handout, in percent, for peers of the asker's node and zone first [default: 25]
    #[arg(long, value_name = "PERCENT")]
    near_percent: Option<String>,
    /// Addresses that peers may announce: where they are observed, or any [default: observed]
    #[arg(long, value_name = "observed|any")]
    advertised_addresses: Option<String>,
    #[command(flatten)]
    limits: LimitFlags,
    #[command(flatten)]
    log: LogFlags,
}

#[derive(Debug, Flatten, Serialize)]
struct LimitFlags {
    /// Connections open at a time [default: 20000]
    #[arg(long = "limits-connections", value_name = "N")]
    connections: Option<String>,
    /// Of them, those from one source, an IPv4 address or an IPv6 /64; half if not given
    #[arg(long = "limits-connections-per-source", value_name = "N")]
    connections_per_source: Option<String>,
    /// Swarms kept [default: 100000]
    #[arg(long = "limits-swarms", value_name = "N")]
    swarms: Option<String>,
    /// Peers kept in all swarms together, each counted once a swarm [default: 200000]
    #[arg(long = "limits-peers", value_name = "N")]
    peers: Option<String>,
    /// Peers kept in one swarm [default: 100000]
    #[arg(long = "limits-peers-per-swarm", value_name = "N")]
    peers_per_swarm: Option<String>,
    /// Peers kept that announce from one address, in each 16th of all swarms [default: 1000]
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
