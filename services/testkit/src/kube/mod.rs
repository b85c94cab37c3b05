//! The test of the chart on a real cluster, the one that `kubectl` points at: from `helm install`
//! to `helm uninstall`, with the commands that users type, in a namespace of its own.

mod cluster;
mod forward;
mod install;
mod jobs;
mod peers;
mod scenario;
mod trouble;

use std::{path::PathBuf, time::Instant};

use anyhow::Context as _;
use shoal_common::units::ByteSize;

use self::{cluster::Cluster, scenario::Scenario};
use crate::interrupt::Interrupt;

/// The settings of a run.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The chart's directory.
    pub chart: PathBuf,
    /// The namespace, which is created, and deleted at the end.
    pub namespace: String,
    /// Additional arguments of `helm install` and `helm upgrade`.
    pub helm: Vec<String>,
    /// The size of the published file.
    pub size: ByteSize,
    /// Peers that the Deployment is scaled to.
    pub replicas: usize,
    /// Keep the namespace for inspection.
    pub keep: bool,
}

/// Runs all steps and prints a line for each. After a failure it prints the cluster's state.
pub fn run(setup: &Setup, interrupt: &Interrupt) -> anyhow::Result<()> {
    let started = Instant::now();
    let cluster = Cluster::reach(&setup.namespace, interrupt)?;
    let outcome = steps(setup, &cluster);
    if outcome.is_err() && interrupt.check().is_ok() {
        trouble::print(&cluster);
    }
    let removed = if setup.keep { Ok(()) } else { cluster.remove() };
    outcome?;
    removed.context("cannot delete the namespace")?;
    println!("all steps in {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

fn steps(setup: &Setup, cluster: &Cluster) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("shoal-kube-test-").tempdir()?;
    let mut scenario = Scenario::new(setup, cluster, folder.path());
    scenario.install()?;
    scenario.publish()?;
    scenario.scale()?;
    scenario.restart_all()?;
    scenario.lose_pods()?;
    scenario.load()?;
    scenario.upgrade()?;
    scenario.run_chart_test()?;
    scenario.run_examples()?;
    scenario.uninstall()?;
    scenario.run_on_each_node()
}
