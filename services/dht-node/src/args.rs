//! The ring node's command line.

use clap::{Args as Flatten, Parser};
use serde::Serialize;
use shoal_common::{
    command_line::VERSION,
    process::{CommandLine, LogFlags},
};

const EXAMPLES: &str = "\
Examples:
  shoal-dht-node --data-dir /var/lib/shoal-dht                  the first node of a ring
  shoal-dht-node --join ring.example:7071                       a further one
  shoal-dht-node --join 10.0.0.1:7071 --join 10.0.0.2:7071      several to try
  shoal-dht-node --join dht-node.shoal.svc:7071                 one name with many addresses
  shoal-dht-node --config /etc/shoal/dht-node.toml --check-config
  shoal-dht-node health                        exit 0 if the node here is ready, else 1

Nodes that are started together and are told of each other found one ring: the one with the
smallest address begins it. Settings come from defaults, then the file, then the environment
(SHOAL__SECTION__KEY), then flags. RUST_LOG filters the log; OTEL_EXPORTER_OTLP_ENDPOINT names a
collector of traces. Look into the ring with the command shoal dht.";

/// A node of shoal's ring: a distributed hash table that finds peers without a tracker, and stores
/// names
#[derive(Debug, Parser)]
#[command(name = "shoal-dht-node", version = VERSION, after_help = EXAMPLES)]
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
    /// Address to listen on for clients and other nodes [default: 0.0.0.0:7071]
    #[arg(long, value_name = "ADDR:PORT", global = true)]
    listen: Option<String>,
    /// Address of /metrics and gRPC health, in plaintext [default: 0.0.0.0:9071]
    #[arg(long, value_name = "ADDR:PORT|off")]
    admin: Option<String>,
    /// Data directory [default: shoal-dht-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// A node of the ring to join, or a name with several addresses; may be repeated
    #[arg(long, value_name = "HOST:PORT")]
    join: Option<Vec<String>>,
    /// Address that other nodes dial [default: that of the interface that routes to them]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// How long a removed key is remembered, so that no replica restores it [default: 1day]
    #[arg(long, value_name = "DURATION")]
    tombstones_for: Option<String>,
    /// How long a leaving node waits for others to take over its ranges [default: 50s]
    #[arg(long, value_name = "DURATION")]
    leave_patience: Option<String>,
    /// Addresses that nodes and peers of swarms may advertise: the one they are observed at, or any
    /// [default: observed]
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
    /// Open connections from one source, an IPv4 address or an IPv6 /64 [default: half of all]
    #[arg(long = "limits-connections-per-source", value_name = "N")]
    connections_per_source: Option<String>,
    /// Approximate bytes on disk after which writes of clients are refused; the file may be twice
    /// as large [default: 256MiB]
    #[arg(long = "limits-quota", value_name = "SIZE")]
    quota: Option<String>,
    /// Keys after which writes of clients are refused [default: 1000000]
    #[arg(long = "limits-keys", value_name = "N")]
    keys: Option<String>,
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
