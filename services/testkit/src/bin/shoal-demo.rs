//! `shoal-demo`: a swarm on this machine, from start to checked copies.

use std::{num::NonZeroU32, path::PathBuf, process::ExitCode};

use clap::Parser;
use shoal_common::units::{ByteSize, Rate};
use shoal_testkit::{
    demo::{self, Setup},
    interrupt::{self, Interrupt},
};

/// Distributes a file among processes on this machine, and checks every copy
///
/// A tracker, a ring of five nodes, a seeder and peers. Half-way the tracker is killed, and one more
/// peer joins by the ring.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The file; default: random bytes, made on the spot
    file: Option<PathBuf>,
    /// Bytes that are made on the spot
    #[arg(long, default_value = "256MB")]
    size: ByteSize,
    /// Peers besides the seeder that fetch from the start
    #[arg(short, long, default_value = "8")]
    peers: NonZeroU32,
    /// Cap on what the seeder sends, such as 200mbit
    #[arg(long)]
    us: Option<Rate>,
    /// Cap on what each peer sends, such as 20mbit
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
