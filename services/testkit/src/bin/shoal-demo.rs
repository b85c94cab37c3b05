//! `shoal-demo`: a swarm on this machine, from its start to verified copies.

use std::{num::NonZeroU32, path::PathBuf, process::ExitCode};

use clap::Parser;
use shoal_common::units::{ByteSize, Rate};
use shoal_testkit::{
    demo::{self, Setup},
    interrupt::{self, Interrupt},
};

/// Distributes a file among processes on this machine, and verifies every copy
///
/// Starts a tracker, a ring of five nodes, a seeder and peers. Half-way it kills the tracker, and
/// one more peer joins through the ring.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The file to distribute; default: random bytes
    file: Option<PathBuf>,
    /// Size of the random file
    #[arg(long, default_value = "256MB")]
    size: ByteSize,
    /// Peers that fetch from the start
    #[arg(short, long, default_value = "8")]
    peers: NonZeroU32,
    /// Upload limit of the seeder, such as 200mbit
    #[arg(long)]
    us: Option<Rate>,
    /// Upload limit of each peer, such as 20mbit
    #[arg(long)]
    ui: Option<Rate>,
}

fn main() -> ExitCode {
    interrupt::exit_code("shoal-demo", run())
}

fn run() -> anyhow::Result<()> {
    let Args { file, size, peers, us, ui } = Args::parse();
    let setup = Setup { file, size, peers, server_up: us, peer_up: ui };
    demo::run(&setup, &Interrupt::listen()?)
}
