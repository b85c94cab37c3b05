//! `shoal-kube-test`: the chart on the cluster that `kubectl` points at.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use shoal_common::units::ByteSize;
use shoal_testkit::{
    interrupt::{self, Interrupt},
    kube::{self, Setup},
};

/// The chart of this repository.
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../helm/shoal");

/// Installs the chart on the cluster that kubectl points at, and does to it what people do
///
/// Publishes, scales, restarts, kills, upgrades, uninstalls, in a namespace of its own, which is
/// deleted in the end. Needs kubectl and helm, and the images of `make images` on the nodes.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Namespace that is made for it
    #[arg(long, default_value = "shoal-kube-test")]
    namespace: String,
    /// Of the file that is published
    #[arg(long, default_value = "100MB")]
    size: ByteSize,
    /// Peers that the Deployment is scaled to
    #[arg(long, default_value = "50")]
    replicas: usize,
    /// Leave the namespace, for you to look into
    #[arg(long)]
    keep: bool,
    /// Directory of the chart
    #[arg(long, default_value = CHART)]
    chart: PathBuf,
    /// More arguments of helm install and upgrade, after --
    #[arg(last = true)]
    helm: Vec<String>,
}

fn main() -> ExitCode {
    interrupt::exit_code("shoal-kube-test", run())
}

fn run() -> anyhow::Result<()> {
    let Args { namespace, size, replicas, keep, chart, helm } = Args::parse();
    let setup = Setup { chart, namespace, helm, size, replicas, keep };
    kube::run(&setup, &Interrupt::listen()?)
}
