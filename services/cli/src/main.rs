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

// One thread: what moves blocks has threads of its own.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = args::Cli::parse();
    let report = exit::Report { json: cli.reports_json() };
    let outcome = commands::run(cli).await;
    report.exit_code(outcome)
}
