//! The command line of `shoal`, and its help.

mod content;
mod ring;
mod values;

use std::{path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use shoal_common::{
    command_line::VERSION,
    units::{ByteSize, Rate, duration},
};
use shoal_core::{
    Address,
    content::{ContentId, Wanted},
};
use shoal_peer::Control as ControlAddress;

pub(crate) use content::{ContentArgs, LinkPolicy};
pub(crate) use ring::{
    DhtArgs, DhtCommand, DhtGetArgs, DhtPutArgs, DhtRingArgs, DhtRmArgs, NameArgs, NameCommand,
};
pub(crate) use values::{FilePriority, PeerCounts, SeedFor};

const EXAMPLES: &str = "\
Examples:
  One-shot, without a daemon:
    shoal seed model/ --tracker tracker:7070         on the machine with the files; prints the id
    shoal get ID --tracker tracker:7070 -o /models   on every machine that wants them

  Without a tracker: any node of the ring (shoal-dht-node) finds the peers:
    shoal seed model/ --dht ring:7071
    shoal name set llama-3 ID --dht ring:7071        gives the id a name
    shoal get llama-3 --dht ring:7071 -o /models

  With a peer running on this machine (shoal-peer):
    shoal publish model/                             hands a copy to the peer; prints the id
    shoal fetch ID --to /models                      fetches it with the peer; shows the progress
    shoal ls                                         lists the peer's contents
    shoal explain ID                                 explains why a download is slow

  The textbook's figure of distribution times:
    shoal bound --us 200mbit --ui 20mbit -n 1..50 --size 50MB --plot figure.svg

Exit status:
  0 done   1 failed   2 wrong usage   3 not found   4 a service cannot be reached
  5 disk full, or no permission to read or write
  6 not complete within --timeout   7 nothing arrived within --stall-timeout
  8 shoal verify found damaged files   130 interrupted

Environment:
  SHOAL_CONTROL                address of the peer's control API, as --control
  SHOAL__DATA_DIR              data directory of a peer; its control socket is tried first
  SHOAL_DHT                    ring nodes, separated by commas, as --dht
  RUST_LOG                     filter of the log on stderr, such as debug or shoal_peer=trace
  OTEL_EXPORTER_OTLP_ENDPOINT  collector of traces, such as http://localhost:4317";

/// Distributes large files to many machines at the speed of the whole cluster.
#[derive(Debug, Parser)]
#[command(name = "shoal", version = VERSION, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Print JSON: one document, or one object per line if there is progress (`--progress json`)
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Print results and errors only
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

/// The format of results on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Human,
    Json,
}

impl Cli {
    pub(crate) const fn format(&self) -> Format {
        if self.json { Format::Json } else { Format::Human }
    }

    /// How progress is shown; `--json` implies `--progress json`.
    pub(crate) fn progress_mode(&self) -> ProgressMode {
        let chosen = match &self.command {
            Command::Seed(SeedArgs { progress, .. })
            | Command::Get(GetArgs { progress, .. })
            | Command::Publish(PublishArgs { progress, .. })
            | Command::Fetch(FetchArgs { progress, .. })
            | Command::Watch(WatchArgs { progress, .. }) => progress.mode,
            // The other commands print one document and no events.
            _ if self.json => return ProgressMode::None,
            _ => ProgressMode::Auto,
        };
        if self.json { ProgressMode::Json } else { chosen }
    }

    /// Errors are JSON events too, for the program that reads stdout.
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
    Verify(VerifyArgs),
    Swarm(SwarmArgs),
    Swarms(SwarmsArgs),
    Name(NameArgs),
    Dht(DhtArgs),
    Hash(HashArgs),
    Bound(BoundArgs),
    Completions(CompletionsArgs),
}

impl Command {
    /// The name in traces.
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
            Self::Verify(_) => "verify",
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

/// The address of a running peer's control API.
#[derive(Args, Debug)]
pub(crate) struct ControlArgs {
    /// Address of the peer's control API: unix:PATH or HOST:PORT [default: the socket control.sock
    /// in $SHOAL__DATA_DIR, ./shoal-data or /var/lib/shoal]
    #[arg(long, value_name = "ADDR", env = "SHOAL_CONTROL")]
    pub(crate) control: Option<ControlAddress>,
}

/// The ring to find peers with, in addition to trackers.
#[derive(Args, Debug)]
pub(crate) struct SwarmRingArgs {
    /// Ring node to find peers with; may be repeated, one that answers is enough
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
    /// A bar on stderr if stderr is a terminal, else a line every 10 s while a content is fetched
    #[default]
    Auto,
    /// A line on stderr every 2 s
    Plain,
    /// One JSON object per line on stdout: published, progress, completed, error
    Json,
    /// Nothing
    None,
}

/// How long a download may take.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct PatienceArgs {
    /// Fail with exit status 6 if it takes longer than this (30s, 10m, 1h)
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) timeout: Option<Duration>,

    /// Fail with exit status 7 if no byte arrives for this long
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) stall_timeout: Option<Duration>,
}

/// The peer of a one-shot command.
#[derive(Args, Debug)]
pub(crate) struct OneShotArgs {
    /// Tracker to announce to; may be repeated
    #[arg(long = "tracker", value_name = "HOST:PORT", value_hint = ValueHint::Hostname)]
    pub(crate) trackers: Vec<Address>,

    #[command(flatten)]
    pub(crate) ring: SwarmRingArgs,

    /// Address to listen on for other peers; port 0 is any free port
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:0")]
    pub(crate) listen: Address,

    /// Address that other peers dial, if it differs from the one they observe
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
/// Prints the id on stdout, and on stderr a link with the id, the trackers and the ring nodes.
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
    pub(crate) one_shot: OneShotArgs,

    #[command(flatten)]
    pub(crate) content: ContentArgs,

    /// Offer each neighbour few pieces at a time, so that each piece leaves this machine about once
    #[arg(long)]
    pub(crate) super_seeding: bool,

    #[command(flatten)]
    pub(crate) progress: ProgressArgs,
}

/// Fetch a content, without a daemon
///
/// After an interruption, the same command resumes: until the content is complete, its pieces are
/// kept next to the destination, in a directory whose name starts with a dot and ends in .shoal.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  shoal get ID --tracker tracker:7070                 into the current directory
  shoal get 'shoal:ID?tr=tracker:7070' -o /models     into /models, if that is a directory
  shoal get llama-3 --dht ring:7071                   by its name in the ring
  shoal get ID --tracker tracker:7070 --seed=10m      and seeds it for ten more minutes")]
pub(crate) struct GetArgs {
    /// Id, link (shoal:ID?tr=HOST:PORT&dht=HOST:PORT), or name in the ring
    #[arg(value_name = "ID_LINK_OR_NAME")]
    pub(crate) wanted: Wanted,

    /// Destination, as for cp: into PATH if it is a directory, else to that name
    #[arg(short, long, value_name = "PATH", default_value = ".", value_hint = ValueHint::AnyPath)]
    pub(crate) output: PathBuf,

    #[command(flatten)]
    pub(crate) one_shot: OneShotArgs,

    /// Seed it once complete: until interrupted, or for this long (30s, 10m, 1h)
    #[arg(
        long,
        value_name = "DURATION",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = SeedFor::UNTIL_INTERRUPTED
    )]
    pub(crate) seed: Option<SeedFor>,

    /// Fetch the pieces in order, for readers that stream
    #[arg(long)]
    pub(crate) sequential: bool,

    /// Priority of a file or directory of the content: PATH=high or PATH=low; may be repeated
    #[arg(long = "priority", value_name = "PATH=LEVEL")]
    pub(crate) priorities: Vec<FilePriority>,

    #[command(flatten)]
    pub(crate) patience: PatienceArgs,

    #[command(flatten)]
    pub(crate) progress: ProgressArgs,
}

/// Publish a file or directory with the running peer, which stores and serves a copy
///
/// Prints the id on stdout, and a link on stderr.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  shoal publish model/
  shoal publish --in-place /data/images        the peer serves these files, and makes no copy
  ID=$(shoal publish -q data.bin)")]
pub(crate) struct PublishArgs {
    /// File or directory
    #[arg(value_hint = ValueHint::AnyPath)]
    pub(crate) path: PathBuf,

    /// Have the peer serve PATH of its own machine, without a copy
    #[arg(long)]
    pub(crate) in_place: bool,

    /// Protect the copy from eviction
    #[arg(long, conflicts_with = "in_place")]
    pub(crate) pin: bool,

    /// Offer each neighbour few pieces at a time, so that each piece leaves the peer about once
    #[arg(long, requires = "in_place")]
    pub(crate) super_seeding: bool,

    #[command(flatten)]
    pub(crate) content: ContentArgs,

    #[command(flatten)]
    pub(crate) progress: ProgressArgs,

    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

/// Fetch a content with the running peer
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  shoal fetch ID                               into the peer's store; shows the progress
  shoal fetch ID --to /models --pin            and puts a copy into /models
  shoal fetch ID --detach                      returns at once; `shoal watch ID` shows the progress
  shoal fetch ID --priority docs=skip --priority weights/0.bin=high")]
pub(crate) struct FetchArgs {
    /// Id, link (shoal:ID?tr=HOST:PORT&dht=HOST:PORT), or name in the ring
    #[arg(value_name = "ID_LINK_OR_NAME")]
    pub(crate) wanted: Wanted,

    /// Path on the peer's machine for a copy, made once the content is complete
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub(crate) to: Option<PathBuf>,

    /// Tracker to ask in addition to the peer's own; may be repeated
    #[arg(long = "tracker", value_name = "HOST:PORT", value_hint = ValueHint::Hostname)]
    pub(crate) trackers: Vec<Address>,

    #[command(flatten)]
    pub(crate) ring: SwarmRingArgs,

    /// Fetch the pieces in order, for readers that stream
    #[arg(long)]
    pub(crate) sequential: bool,

    /// Priority of a file or directory of the content: PATH=high|low|skip; may be repeated
    #[arg(long = "priority", value_name = "PATH=LEVEL")]
    pub(crate) priorities: Vec<FilePriority>,

    /// Protect the content from eviction
    #[arg(long)]
    pub(crate) pin: bool,

    /// Show the progress until the content is complete (the default)
    #[arg(long, overrides_with = "detach")]
    pub(crate) wait: bool,

    /// Return at once
    #[arg(long, overrides_with = "wait")]
    pub(crate) detach: bool,

    #[command(flatten)]
    pub(crate) patience: PatienceArgs,

    #[command(flatten)]
    pub(crate) progress: ProgressArgs,

    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

/// List the peer's contents
#[derive(Args, Debug)]
pub(crate) struct LsArgs {
    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

/// Remove contents: the peer leaves the swarm and deletes its copy
#[derive(Args, Debug)]
pub(crate) struct RmArgs {
    /// One or more ids
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<ContentId>,

    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

/// Protect contents from eviction, or stop protecting them
#[derive(Args, Debug)]
pub(crate) struct PinArgs {
    /// One or more ids
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<ContentId>,

    /// Stop protecting them
    #[arg(long)]
    pub(crate) off: bool,

    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

/// Show the progress of the peer's content until it is removed, or until interrupted
#[derive(Args, Debug)]
pub(crate) struct WatchArgs {
    /// The content's id
    pub(crate) id: ContentId,

    #[command(flatten)]
    pub(crate) progress: ProgressArgs,

    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

/// Explain why a download is slow, neighbour by neighbour
#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// The content's id
    pub(crate) id: ContentId,

    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

/// Read what the peer holds of a content again, and name the damaged files
///
/// Exit status 8 if there are any. Changes nothing.
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// The content's id
    pub(crate) id: ContentId,

    #[command(flatten)]
    pub(crate) control: ControlArgs,
}

/// Ask a tracker or the ring for the peers of a swarm
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  shoal swarm ID --tracker tracker:7070
  shoal swarm ID --dht ring:7071")]
pub(crate) struct SwarmArgs {
    /// Id, link (shoal:ID?tr=HOST:PORT&dht=HOST:PORT), or name in the ring
    #[arg(value_name = "ID_LINK_OR_NAME")]
    pub(crate) wanted: Wanted,

    /// The tracker; optional if the link names one
    #[arg(long, value_name = "HOST:PORT", value_hint = ValueHint::Hostname)]
    pub(crate) tracker: Option<Address>,

    #[command(flatten)]
    pub(crate) ring: SwarmRingArgs,

    /// Peers to show, chosen at random
    #[arg(long, value_name = "COUNT", default_value_t = 200)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=200))]
    pub(crate) max_peers: u32,
}

/// List the swarms of a tracker
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

    #[command(flatten)]
    pub(crate) content: ContentArgs,
}

/// Print the textbook's minimum times to distribute a file, or draw its figure
///
/// Client-server: max{ N*F/us, F/dmin }. P2P: max{ F/us, F/dmin, N*F/(us + sum ui) }.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  shoal bound --us 200mbit --ui 20mbit --di 400mbit -n 30 --size 50MB
  shoal bound --us 100mbit --ui 5mbit,20mbit,80mbit -n 9 --size 20MB    three kinds of peers in turn
  shoal bound --us 200mbit --ui 20mbit -n 1..50 --size 50MB --plot figure.svg")]
pub(crate) struct BoundArgs {
    /// us: uplink of the server
    #[arg(long, value_name = "RATE")]
    pub(crate) us: Rate,

    /// ui: uplink of each peer; several rates are assigned to the peers in turn
    #[arg(long, value_name = "RATE", required = true, value_delimiter = ',')]
    pub(crate) ui: Vec<Rate>,

    /// di: downlink of each peer, as --ui [default: never the bottleneck]
    #[arg(long, value_name = "RATE", value_delimiter = ',')]
    pub(crate) di: Vec<Rate>,

    /// N: number of peers that want the file, or a range such as 1..50, both ends included
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
    /// The shell
    #[arg(action = ArgAction::Set)]
    pub(crate) shell: Shell,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
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
