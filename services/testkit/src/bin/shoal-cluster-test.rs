//! `shoal-cluster-test`: tests the Compose cluster under faults and changes.

use std::process::ExitCode;

use clap::Parser;
use shoal_testkit::{
    compose,
    interrupt::{self, Interrupt},
};

/// Starts the cluster of deploy/compose.yaml as a project of its own, runs the test's steps, and
/// takes it down (needs Docker, Compose, grpcurl and the images of `make images`).
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Run only the steps whose names contain TEXT, besides start and end
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

fn main() -> ExitCode {
    let Args { only } = Args::parse();
    let outcome = Interrupt::listen()
        .map_err(anyhow::Error::from)
        .and_then(|interrupt| compose::run(only.as_deref(), interrupt));
    interrupt::exit_code("shoal-cluster-test", outcome)
}
