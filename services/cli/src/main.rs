//! The command `shoal`: publishes, fetches and looks at contents.

mod args;
mod commands;
mod control;
mod destination;
mod exit;
mod output;
mod progress;
mod ring;
mod summary;

use std::process::ExitCode;

use clap::Parser as _;
use shoal_common::process;
use tokio::runtime::Builder;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    let report = exit::Report { json: cli.reports_json() };
    // One thread: what moves blocks has threads of its own.
    let runtime = Builder::new_current_thread();
    let outcome = process::block_on(runtime, commands::run(cli));
    report.exit_code(outcome.map_err(anyhow::Error::from).flatten())
}
