//! The chart on a real cluster, the one that `kubectl` points at: from `helm install` to `helm
//! uninstall`, as its users type it, in a namespace of its own.

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

/// What is tested, and how large.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The chart's directory.
    pub chart: PathBuf,
    /// Namespace that is made, and deleted in the end.
    pub namespace: String,
    /// More arguments of `helm install` and `helm upgrade`.
    pub helm: Vec<String>,
    /// Of the file that is published.
    pub size: ByteSize,
    /// Peers that the Deployment is scaled to.
    pub replicas: usize,
    /// The namespace stays, for people to look into.
    pub keep: bool,
}

/// Takes all steps, one line each. On failure it prints what the cluster says about it.
pub fn run(setup: &Setup, interrupt: &Interrupt) -> anyhow::Result<()> {
    let started = Instant::now();
    let cluster = Cluster::reach(&setup.namespace, interrupt)?;
    let outcome = steps(setup, &cluster);
    if outcome.is_err() && interrupt.check().is_ok() {
        trouble::print(&cluster);
    }
    let removed = if setup.keep { Ok(()) } else { cluster.remove() };
    outcome?;
    removed.context("the namespace cannot be deleted")?;
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
