//! `shoal-kube-test`: tests the chart on the cluster that `kubectl` points at.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use shoal_common::units::ByteSize;
use shoal_testkit::{
    interrupt::{self, Interrupt},
    kube::{self, Setup},
};

/// The chart of this repository.
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../helm/shoal");

/// Installs the chart on the cluster that kubectl points at, and uses it as operators do
///
/// Publishes, scales, restarts, kills, upgrades and uninstalls, in a namespace of its own, which is
/// deleted at the end. Needs kubectl and helm, and the images of `make images` on the nodes.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Namespace that is created for the test
    #[arg(long, default_value = "shoal-kube-test")]
    namespace: String,
    /// Size of the published file
    #[arg(long, default_value = "100MB")]
    size: ByteSize,
    /// Peers that the Deployment is scaled to
    #[arg(long, default_value = "50")]
    replicas: usize,
    /// Keep the namespace for inspection
    #[arg(long)]
    keep: bool,
    /// Directory of the chart
    #[arg(long, default_value = CHART)]
    chart: PathBuf,
    /// Additional arguments of helm install and upgrade, after --
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
