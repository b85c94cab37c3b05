//! What can be typed after `shoal`, and its help.

mod ring;
mod values;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use shoal_common::{
    Address,
    units::{ByteSize, Rate},
};
use shoal_core::content::{ContentId, Wanted};
use shoal_peer::Control as ControlAddress;

pub(crate) use ring::{
    DhtArgs, DhtCommand, DhtGetArgs, DhtPutArgs, DhtRingArgs, DhtRmArgs, NameArgs, NameCommand,
};
pub(crate) use values::{FilePriority, PeerCounts, SeedFor};

const EXAMPLES: &str = "\
Examples:
  One-shot, without a daemon:
    shoal seed model/ --tracker tracker:7070         on the machine that has it; prints an id
    shoal get ID --tracker tracker:7070 -o /models   on every machine that wants it

  Without a tracker: any node of the ring (shoal-dht-node) finds the peers:
    shoal seed model/ --dht ring:7071
    shoal name set llama-3 ID --dht ring:7071        a name for the id
    shoal get llama-3 --dht ring:7071 -o /models

  With a peer running on this machine (shoal-peer):
    shoal publish model/                             hands a copy to the peer; prints the id
    shoal fetch ID --to /models                      has the peer fetch it; shows how it goes
    shoal ls
    shoal explain ID                                 why is it slow?

  The textbook's figure:
    shoal bound --us 200mbit --ui 20mbit -n 1..50 --size 50MB --plot figure.svg

Exit status:
  0 done   1 failed   2 wrong usage   3 not found   4 a service cannot be reached
  5 disk full, or no permission to read or write   130 interrupted

Environment:
  SHOAL_CONTROL                where the peer's control API is, as --control
  SHOAL__DATA_DIR              data directory of a peer, whose control socket is looked for there first
  SHOAL_DHT                    nodes of the ring, with commas between them, as --dht
  RUST_LOG                     how much is logged to stderr, such as debug or shoal_peer=trace
  OTEL_EXPORTER_OTLP_ENDPOINT  collector that traces are sent to, such as http://localhost:4317";

/// Distributes large files to many machines at the speed of the whole cluster.
#[derive(Debug, Parser)]
#[command(name = "shoal", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Print JSON: one document, or for what takes a while one object a line (`--progress json`)
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Print results and errors only
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

/// What results on stdout look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Human,
    Json,
}

impl Cli {
    pub(crate) const fn format(&self) -> Format {
        if self.json { Format::Json } else { Format::Human }
    }

    /// How progress is shown, `--json` being short for `--progress json`.
    pub(crate) fn progress_mode(&self) -> ProgressMode {
        let chosen = match &self.command {
            Command::Seed(SeedArgs { progress, .. })
            | Command::Get(GetArgs { progress, .. })
            | Command::Publish(PublishArgs { progress, .. })
            | Command::Fetch(FetchArgs { progress, .. })
            | Command::Watch(WatchArgs { progress, .. }) => progress.mode,
            // The rest answers with one document, and no events.
            _ if self.json => return ProgressMode::None,
            _ => ProgressMode::Auto,
        };
        if self.json { ProgressMode::Json } else { chosen }
    }

    /// Whoever reads JSON looks for errors there too.
    pub(crate) fn reports_json(&self) -> bool {
        self.json || self.progress_mode() == ProgressMode::Json
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Seed(SeedArgs),
    Get(GetArgs),
    Publish(PublishArgs),
    Fetch(FetchArgs),
    Ls(LsArgs),
    Rm(RmArgs),
    Pin(PinArgs),
    Watch(WatchArgs),
    Explain(ExplainArgs),
    Swarm(SwarmArgs),
    Swarms(SwarmsArgs),
    Name(NameArgs),
    Dht(DhtArgs),
    Hash(HashArgs),
    Bound(BoundArgs),
    Completions(CompletionsArgs),
}

impl Command {
    /// For traces.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Seed(_) => "seed",
            Self::Get(_) => "get",
            Self::Publish(_) => "publish",
            Self::Fetch(_) => "fetch",
            Self::Ls(_) => "ls",
            Self::Rm(_) => "rm",
            Self::Pin(_) => "pin",
            Self::Watch(_) => "watch",
            Self::Explain(_) => "explain",
            Self::Swarm(_) => "swarm",
            Self::Swarms(_) => "swarms",
            Self::Name(_) => "name",
            Self::Dht(_) => "dht",
            Self::Hash(_) => "hash",
            Self::Bound(_) => "bound",
            Self::Completions(_) => "completions",
        }
    }
}

/// Where the control API of a running peer is.
#[derive(Args, Debug)]
pub(crate) struct ControlArgs {
    /// Control API of the peer: unix:PATH or HOST:PORT [default: the socket control.sock in
    /// $SHOAL__DATA_DIR, ./shoal-data or /var/lib/shoal]
    #[arg(long, value_name = "ADDR", env = "SHOAL_CONTROL")]
    pub(crate) control: Option<ControlAddress>,
}

/// Which ring is asked for peers beside trackers.
#[derive(Args, Debug)]
pub(crate) struct SwarmRingArgs {
    /// Node of the ring to find peers by; may be repeated, any one that answers is enough
    #[arg(
        long = "dht",
        value_name = "HOST:PORT",
        env = "SHOAL_DHT",
        value_delimiter = ',',
        value_hint = ValueHint::Hostname
    )]
    pub(crate) nodes: Vec<Address>,
}

/// How progress is shown.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct ProgressArgs {
    /// How progress is shown
    #[arg(long = "progress", value_name = "HOW", value_enum, default_value_t)]
    pub(crate) mode: ProgressMode,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    /// A bar on stderr if that is a terminal, else nothing
    #[default]
    Auto,
    /// A line on stderr from time to time
    Plain,
    /// One JSON object a line on stdout: published, progress, completed, error
    Json,
    /// Nothing
    None,
}

/// How a one-shot command takes part in the swarm.
#[derive(Args, Debug)]
pub(crate) struct TakePartArgs {
    /// Tracker to announce to; may be repeated
    #[arg(long = "tracker", value_name = "HOST:PORT", value_hint = ValueHint::Hostname)]
    pub(crate) trackers: Vec<Address>,

    #[command(flatten)]
    pub(crate) ring: SwarmRingArgs,

    /// Where other peers are listened for; port 0 is any free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:0")]
    pub(crate) listen: Address,

    /// Address that other peers dial, if it is not the one they see
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) advertise: Option<Address>,

    /// Upload at most this fast, such as 20MB/s or 200mbit
    #[arg(long, value_name = "RATE")]
    pub(crate) up: Option<Rate>,

    /// Download at most this fast
    #[arg(long, value_name = "RATE")]
    pub(crate) down: Option<Rate>,
}

/// Share a file or directory until interrupted, without a daemon
///
/// Prints the id, and on stderr a link that carries the trackers and ring nodes too.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  shoal seed model/ --tracker tracker:7070
  shoal seed model/ --dht ring-1:7071 --dht ring-2:7071
  shoal seed data.bin --tracker 10.0.0.1:7070 --listen 10.0.0.1:7072 --progress json")]
pub(crate) struct SeedArgs {
    /// File or directory
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) path: PathBuf,

    #[command(flatten)]
    pub(crate) take_part: TakePartArgs,

    /// Tell each neighbour of few pieces at a time, so that each leaves this machine about once
    #[arg(long)]
    pub(crate) super_seeding: bool,

    #[command(flatten)]
    pub(crate) progress: ProgressArgs,
}

/// Fetch a content, without a daemon
///
/// Interrupted, the same command resumes: what was fetched is kept in `.NAME.shoal` beside the
/// destination until it is complete.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  shoal get ID --tracker tracker:7070                 into the current directory
  shoal get 'shoal:ID?tr=tracker:7070' -o /models     into /models, if that is a directory
  shoal get llama-3 --dht ring:7071                   what the ring knows under that name
  shoal get ID --tracker tracker:7070 --seed=10m      and share it for ten minutes more")]
pub(crate) struct GetArgs {
    /// Id, a link (shoal:ID?tr=HOST:PORT&dht=HOST:PORT), or a name that the ring knows
    #[arg(value_name = "ID_LINK_OR_NAME")]
    pub(crate) wanted: Wanted,

    /// As cp does: into PATH if it is a directory, else to that name
    #[arg(short, long, value_name = "PATH", default_value = ".", value_hint = ValueHint::AnyPath)]
    pub(crate) output: PathBuf,

    #[command(flatten)]
    pub(crate) take_part: TakePartArgs,

    /// Share it when complete: until interrupted, or for so long (30s, 10m, 1h)
    #[arg(
        long,
        value_name = "DURATION",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = SeedFor::UNTIL_INTERRUPTED
    )]
    pub(crate) seed: Option<SeedFor>,

    /// First piece first, for readers that stream
    #[arg(long)]
    pub(crate) sequential: bool,

    /// PATH=high or PATH=low, for a file or directory of the content; may be repeated
    #[arg(long = "priority", value_name = "PATH=LEVEL")]
    pub(crate) priorities: Vec<FilePriority>,

    #[command(flatten)]
    pub(crate) progress: ProgressArgs,
}

/// Hand a file or directory to the peer, which keeps and serves a copy
///
/// Prints the id, and on stderr a link.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  shoal publish model/
  shoal publish --in-place /data/images        the peer reads it where it lies, and copies nothing
  ID=$(shoal publish -q data.bin)")]
pub(crate) struct PublishArgs {
    /// File or directory
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) path: PathBuf,

    /// The peer shares PATH as it lies on its own machine
    #[arg(long)]
    pub(crate) in_place: bool,

    /// Protect the copy from eviction
    #[arg(long, conflicts_with = "in_place")]
    pub(crate) pin: bool,

    /// Tell each neighbour of few pieces at a time, so that each leaves the peer about once
    #[arg(long, requires = "in_place")]
    pub(crate) super_seeding: bool,

    /// Bytes in a piece: a power of two from 64KiB to 16MiB; chosen by size unless given
    #[arg(long, value_name = "SIZE")]
    pub(crate) piece_length: Option<ByteSize>,

    #[command(flatten)]
    pub(crate) progress: ProgressArgs,

    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

/// Have the peer fetch a content
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  shoal fetch ID                               into the peer's store; follows until it is complete
  shoal fetch ID --to /models --pin            and puts a copy there
  shoal fetch ID --detach                      returns at once; `shoal watch ID` shows how it goes
  shoal fetch ID --priority docs=skip --priority weights/0.bin=high")]
pub(crate) struct FetchArgs {
    /// Id, a link (shoal:ID?tr=HOST:PORT&dht=HOST:PORT), or a name that the ring knows
    #[arg(value_name = "ID_LINK_OR_NAME")]
    pub(crate) wanted: Wanted,

    /// Where on the peer's machine a copy is put once complete
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub(crate) to: Option<PathBuf>,

    /// Tracker to ask beside the peer's own; may be repeated
    #[arg(long = "tracker", value_name = "HOST:PORT", value_hint = ValueHint::Hostname)]
    pub(crate) trackers: Vec<Address>,

    #[command(flatten)]
    pub(crate) ring: SwarmRingArgs,

    /// First piece first, for readers that stream
    #[arg(long)]
    pub(crate) sequential: bool,

    /// PATH=high|low|skip, for a file or directory of the content; may be repeated
    #[arg(long = "priority", value_name = "PATH=LEVEL")]
    pub(crate) priorities: Vec<FilePriority>,

    /// Protect it from eviction
    #[arg(long)]
    pub(crate) pin: bool,

    /// Follow until it is complete (the default)
    #[arg(long, overrides_with = "detach")]
    pub(crate) wait: bool,

    /// Return at once
    #[arg(long, overrides_with = "wait")]
    pub(crate) detach: bool,

    #[command(flatten)]
    pub(crate) progress: ProgressArgs,

    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

/// List what the peer holds
#[derive(Args, Debug)]
pub(crate) struct LsArgs {
    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

/// Have the peer leave a swarm and delete its copy
#[derive(Args, Debug)]
pub(crate) struct RmArgs {
    /// One or several ids
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<ContentId>,

    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

/// Protect contents from eviction, or no longer
#[derive(Args, Debug)]
pub(crate) struct PinArgs {
    /// One or several ids
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<ContentId>,

    /// Protect them no longer
    #[arg(long)]
    pub(crate) off: bool,

    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

/// Follow a content of the peer until it is removed, or until interrupted
#[derive(Args, Debug)]
pub(crate) struct WatchArgs {
    /// Its id
    pub(crate) id: ContentId,

    #[command(flatten)]
    pub(crate) progress: ProgressArgs,

    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

/// Say why a download is as slow as it is, neighbour by neighbour
#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// Its id
    pub(crate) id: ContentId,

    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

/// Ask a tracker, or the ring, who is in a swarm
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  shoal swarm ID --tracker tracker:7070
  shoal swarm ID --dht ring:7071")]
pub(crate) struct SwarmArgs {
    /// Id, a link (shoal:ID?tr=HOST:PORT&dht=HOST:PORT), or a name that the ring knows
    #[arg(value_name = "ID_LINK_OR_NAME")]
    pub(crate) wanted: Wanted,

    /// The tracker; may be left out if the link names one
    #[arg(long, value_name = "HOST:PORT", value_hint = ValueHint::Hostname)]
    pub(crate) tracker: Option<Address>,

    #[command(flatten)]
    pub(crate) ring: SwarmRingArgs,

    /// Peers to show; at most 200 are given, chosen at random
    #[arg(long, value_name = "COUNT", default_value_t = 200)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=200))]
    pub(crate) max_peers: u32,
}

/// List the swarms that a tracker knows
#[derive(Args, Debug)]
pub(crate) struct SwarmsArgs {
    /// The tracker
    #[arg(long, value_name = "HOST:PORT", value_hint = ValueHint::Hostname)]
    pub(crate) tracker: Address,
}

/// Print the id of a file or directory, and the BLAKE3 hash of each file as b3sum does
#[derive(Args, Debug)]
pub(crate) struct HashArgs {
    /// File or directory
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) path: PathBuf,
}

/// Print the textbook's least times to distribute a file, or draw its figure
///
/// Client-server: max{ N*F/us, F/dmin }. P2P: max{ F/us, F/dmin, N*F/(us + sum ui) }.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  shoal bound --us 200mbit --ui 20mbit --di 400mbit -n 30 --size 50MB
  shoal bound --us 100mbit --ui 5mbit,20mbit,80mbit -n 9 --size 20MB    peers of three kinds in turn
  shoal bound --us 200mbit --ui 20mbit -n 1..50 --size 50MB --plot figure.svg")]
pub(crate) struct BoundArgs {
    /// us: uplink of the server
    #[arg(long, value_name = "RATE")]
    pub(crate) us: Rate,

    /// ui: uplink of each peer; of several, peers have one after the other
    #[arg(long, value_name = "RATE", required = true, value_delimiter = ',')]
    pub(crate) ui: Vec<Rate>,

    /// di: downlink of each peer, as --ui; never the bottleneck unless given
    #[arg(long, value_name = "RATE", value_delimiter = ',')]
    pub(crate) di: Vec<Rate>,

    /// N: how many peers want the file, or a range such as 1..50, both ends included
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub(crate) peers: PeerCounts,

    /// F: size of the file
    #[arg(long, value_name = "SIZE")]
    pub(crate) size: ByteSize,

    /// Draw both times against N into an SVG file
    #[arg(long, value_name = "FILE.svg", value_hint = ValueHint::FilePath)]
    pub(crate) plot: Option<PathBuf>,
}

/// Print a completion script for a shell
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  shoal completions bash > ~/.local/share/bash-completion/completions/shoal
  shoal completions zsh > \"${fpath[1]}/_shoal\"
  shoal completions fish > ~/.config/fish/completions/shoal.fish")]
pub(crate) struct CompletionsArgs {
    /// Which shell
    #[arg(action = ArgAction::Set)]
    pub(crate) shell: Shell,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn seeding_after_a_get_may_have_a_duration() {
        let id = "0".repeat(64);
        let seed = |flag: &[&str]| {
            let cli = Cli::try_parse_from(["shoal", "get", &id].iter().chain(flag)).unwrap();
            let Command::Get(args) = cli.command else { unreachable!("it was a get") };
            args.seed
        };
        assert_eq!(seed(&[]), None);
        assert_eq!(seed(&["--seed"]), Some(SeedFor::UntilInterrupted));
        assert_eq!(seed(&["--seed=1h"]), Some(SeedFor::Duration(Duration::from_secs(3600))));
    }
}
