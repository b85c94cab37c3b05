//! The peer's command line.

use clap::{Args as Flatten, Parser};
use serde::Serialize;
use shoal_common::{
    command_line::VERSION,
    process::{CommandLine, LogFlags},
};

const EXAMPLES: &str = "\
Examples:
  shoal-peer --tracker tracker.example:7070 --data-dir /var/lib/shoal
  shoal-peer --tracker a:7070 --tracker b:7070 --control unix:/run/shoal/control.sock
  shoal-peer --dht ring-1:7071 --dht ring-2:7071    finds peers through the ring, without a tracker
  shoal-peer --tracker a:7070 --replicate all       has and serves all that the tracker knows
  shoal-peer --dht ring:7071 --replicate listed --contents llama-3 --contents ID
  shoal-peer --limits-upload 200mbit --limits-quota 500GB
  SHOAL__SWARM__REGULAR_SLOTS=8 shoal-peer          every setting has a variable
  shoal-peer --config /etc/shoal/peer.toml --check-config
  shoal-peer health                                 exit 0 if the peer here is ready, else 1

Settings come from defaults, then the file, then the environment (SHOAL__SECTION__KEY), then flags.
RUST_LOG filters the log; OTEL_EXPORTER_OTLP_ENDPOINT names a collector of traces.
Publish and fetch with the command shoal, which finds the socket in shoal-data and /var/lib/shoal by
itself, and another one by its --control.";

/// A peer of shoal: fetches contents from the swarm, verifies every byte, and shares what it has
#[derive(Debug, Parser)]
#[command(name = "shoal-peer", version = VERSION, after_help = EXAMPLES)]
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
    /// Address to listen on for peers [default: 0.0.0.0:7072]
    #[arg(long, value_name = "ADDR:PORT", global = true)]
    listen: Option<String>,
    /// Address of the local API. A TCP port is unauthenticated: anyone who can connect controls the
    /// peer; a Unix socket is for its own user alone [default: unix:DATA_DIR/control.sock]
    #[arg(long, value_name = "unix:PATH|ADDR:PORT")]
    control: Option<String>,
    /// Address of /metrics and gRPC health, in plaintext [default: 0.0.0.0:9072]
    #[arg(long, value_name = "ADDR:PORT|off")]
    admin: Option<String>,
    /// Data directory [default: shoal-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// A tracker to announce to; may be repeated
    #[arg(long, value_name = "HOST:PORT")]
    tracker: Option<Vec<String>>,
    /// A ring node to announce to and to ask for peers; may be repeated, any one is enough
    #[arg(long, value_name = "HOST:PORT")]
    dht: Option<Vec<String>>,
    /// Address that other peers dial [default: the one they observe]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Addresses that peers which dial this one may advertise: the one they are observed at, or any
    /// [default: observed]
    #[arg(long, value_name = "observed|any")]
    advertised_addresses: Option<String>,
    /// A directory in which clients may publish files in place; may be repeated [default: any, for
    /// this user over the Unix socket; none for others]
    #[arg(long = "publish-root", value_name = "DIR")]
    publish_roots: Option<Vec<String>>,
    /// A directory in which clients may have copies created; may be repeated [default: the same]
    #[arg(long = "export-root", value_name = "DIR")]
    export_roots: Option<Vec<String>>,
    /// What to fetch and share without a request: none, listed or all [default: none]
    #[arg(long, value_name = "WHAT")]
    replicate: Option<String>,
    /// A content for --replicate listed: an id, a link, or a name of the ring; may be repeated
    #[arg(long, value_name = "ID|LINK|NAME")]
    contents: Option<Vec<String>>,
    #[command(flatten)]
    limits: LimitFlags,
    #[command(flatten)]
    log: LogFlags,
}

#[derive(Debug, Flatten, Serialize)]
struct LimitFlags {
    /// Upload limit, such as 200mbit or 25MB/s [default: none]
    #[arg(long = "limits-upload", value_name = "RATE")]
    upload: Option<String>,
    /// Download limit [default: none]
    #[arg(long = "limits-download", value_name = "RATE")]
    download: Option<String>,
    /// Bytes of stored contents; the least recently used ones make room [default: none]
    #[arg(long = "limits-quota", value_name = "SIZE")]
    quota: Option<String>,
    /// Bytes of the file system that stored contents leave free [default: 0]
    #[arg(long = "limits-min-free", value_name = "SIZE")]
    min_free: Option<String>,
    /// Connections from one source, an IPv4 address or an IPv6 /64 [default: 512, of 4096]
    #[arg(long = "limits-connections-per-source", value_name = "N")]
    connections_per_source: Option<String>,
    /// Threads that move blocks [default: one per processor, from 2 to 8]
    #[arg(long = "limits-io-threads", value_name = "N")]
    io_threads: Option<String>,
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
