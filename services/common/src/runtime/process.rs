//! A service as a process: its command line, and a `main` that reads like a table of contents.

use std::{io, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Subcommand};
use serde::{Serialize, de::DeserializeOwned};
use shoal_core::Address;
use tokio::{net::TcpListener, runtime::Builder};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{self, Conflict},
    health, open_files, server, shutdown,
    telemetry::{self, LevelFilter, Log},
    text,
};

/// The command line that all services share, beside the flags for their settings.
#[derive(Debug, Args)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    /// TOML file with settings
    #[arg(long, value_name = "FILE", env = "SHOAL_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// Print the resulting settings, and exit
    #[arg(long)]
    check_config: bool,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Command {
    /// Ask the service on this machine whether it is ready: exit 0 if it is, else 1
    Health,
}

/// How long work on blocking threads may continue after the end: enough for a write that has begun.
const BLOCKING_GRACE: Duration = Duration::from_secs(1);

/// The flags of the section `log`.
#[derive(Debug, Args, Serialize)]
pub struct LogFlags {
    /// Format of log lines: human or json [default: human]
    #[arg(long = "log-format", value_name = "FORMAT")]
    format: Option<String>,
}

/// The settings of a service.
pub trait Settings: Default + Serialize + DeserializeOwned {
    /// The address it listens on.
    fn listen(&self) -> &Address;
    /// Its log.
    fn log(&self) -> &Log;
    /// How long it may take to end when it is told to.
    fn grace(&self) -> Duration {
        shutdown::GRACE
    }
    /// Conflicting settings.
    fn conflicts(&self) -> Vec<Conflict> {
        Vec::new()
    }
}

/// Runs `main` on a runtime made by `runtime`, with as many open files as the system allows. Work that is still running on blocking threads when
/// `main` has ended gets one more second, and is then abandoned.
pub fn block_on<T>(mut runtime: Builder, main: impl Future<Output = T>) -> io::Result<T> {
    open_files::raise_limit();
    let runtime = runtime.enable_all().build()?;
    let outcome = runtime.block_on(main);
    runtime.shutdown_timeout(BLOCKING_GRACE);
    Ok(outcome)
}

/// Runs the service `name` as its command line says, on a runtime made by `runtime`.
///
/// `flags` have the same structure as the settings. `serve` is called to serve, and ends soon after
/// its token is cancelled. The process exits with 64 if the settings are wrong, and 1 on failure.
pub fn run<S: Settings>(
    name: &'static str,
    runtime: Builder,
    line: &CommandLine,
    flags: &impl Serialize,
    serve: impl AsyncFnOnce(S, TcpListener, CancellationToken) -> anyhow::Result<()>,
) -> ExitCode {
    let start = async || {
        let settings: S = config::load(line.config.as_deref(), flags, S::conflicts)?;
        if line.check_config {
            print!("{}", config::render(&settings));
            return Ok(());
        }
        if let Some(Command::Health) = line.command {
            return Ok(health::check(&settings.listen().clone().or_loopback()).await?);
        }
        let _telemetry = telemetry::init(name, settings.log(), LevelFilter::INFO)?;
        let shutdown = shutdown::on_signal(settings.grace())?;
        let listener = server::bind(settings.listen()).await?;
        serve(settings, listener, shutdown).await
    };
    match block_on(runtime, start()).map_err(anyhow::Error::from).flatten() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {}", text::lines(&format!("{error:#}")));
            config::exit_code(error.as_ref())
        }
    }
}
