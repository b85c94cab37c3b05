//! The commands.

mod bound;
mod contents;
mod dht;
mod explain;
mod fetch;
mod get;
mod hash;
mod local;
mod name;
mod one_shot;
mod publish;
mod seed;
mod swarm;
mod swarms;
mod verify;
mod watch;

use anyhow::Context as _;
use clap::CommandFactory as _;
use shoal_common::telemetry::{self, LevelFilter, Log};
use tracing::{Instrument as _, info_span};

use crate::{
    args::{Cli, Command, CompletionsArgs},
    exit::{Exit, Failure},
    progress::Progress,
};

pub(crate) async fn run(cli: Cli) -> anyhow::Result<()> {
    let _telemetry = telemetry::init("shoal", &Log::default(), LevelFilter::WARN)
        .map_err(|error| Failure::new(Exit::Usage, format!("{:#}", anyhow::Error::from(error))))?;
    // The root of a trace that continues in the peer and the tracker.
    let span = info_span!("shoal", command = cli.command.name());
    dispatch(cli).instrument(span).await
}

async fn dispatch(cli: Cli) -> anyhow::Result<()> {
    let progress = Progress::new(cli.progress_mode(), cli.quiet);
    let format = cli.format();
    match cli.command {
        Command::Seed(args) => seed::run(args, progress).await,
        Command::Get(args) => get::run(args, progress).await,
        Command::Publish(args) => publish::run(args, progress).await,
        Command::Fetch(args) => fetch::run(args, progress).await,
        Command::Watch(args) => watch::run(args, progress).await,
        Command::Ls(args) => contents::list(args, format).await,
        Command::Rm(args) => contents::remove(args).await,
        Command::Pin(args) => contents::pin(args).await,
        Command::Explain(args) => explain::run(args, format).await,
        Command::Verify(args) => verify::run(args, format).await,
        Command::Swarm(args) => swarm::run(args, format).await,
        Command::Swarms(args) => swarms::run(args, format).await,
        Command::Name(args) => name::run(args, format, &progress).await,
        Command::Dht(args) => dht::run(args, format, &progress).await,
        Command::Hash(args) => hash::run(args, format, progress).await,
        Command::Bound(args) => bound::run(&args, format),
        Command::Completions(args) => completions(&args),
    }
}

fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "shoal", &mut script);
    let script = String::from_utf8(script).context("the completion script is not UTF-8")?;
    Ok(crate::output::line(script.trim_end())?)
}
