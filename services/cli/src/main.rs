//! The command `shoal`: publishes, fetches and inspects contents.

mod args;
mod commands;
mod control;
mod destination;
mod exit;
mod output;
mod patience;
mod progress;
mod ring;
mod summary;

use std::process::ExitCode;

use shoal_common::{command_line, process};
use tokio::runtime::Builder;

fn main() -> ExitCode {
    let cli: args::Cli = command_line::parse();
    let report = exit::Report { json: cli.reports_json() };
    // One thread: the data plane has threads of its own.
    let runtime = Builder::new_current_thread();
    let outcome = process::block_on(runtime, commands::run(cli));
    report.exit_code(outcome.map_err(anyhow::Error::from).flatten())
}
