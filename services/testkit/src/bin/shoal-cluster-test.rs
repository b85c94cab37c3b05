//! `shoal-cluster-test`: the Compose cluster, with everything that may happen to it.

use std::process::ExitCode;

use clap::Parser;
use shoal_testkit::{
    compose::{self, Choice},
    interrupt::{self, Interrupt},
};

/// Starts the cluster of deploy/compose.yaml as a project of its own, tries it, and takes it down
/// (needs a Docker engine, Compose, grpcurl and the images of `make images`).
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Only steps whose names hold this, beside start and end
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Fifty peers too, which takes longer
    #[arg(long)]
    fifty: bool,
}

fn main() -> ExitCode {
    let Args { only, fifty } = Args::parse();
    let outcome = Interrupt::listen()
        .map_err(anyhow::Error::from)
        .and_then(|interrupt| compose::run(&Choice { only, fifty }, interrupt));
    interrupt::exit_code("shoal-cluster-test", outcome)
}
