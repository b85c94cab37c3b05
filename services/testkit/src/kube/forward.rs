//! `kubectl port-forward`, and the command `shoal` through it.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};

use super::cluster::{Cluster, run};
use crate::process::{Process, binary};

/// A forward that stands takes well under a second; a busy machine needs longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A port of this machine that leads into a pod, until it is dropped or the pod ends.
pub(super) struct Forward {
    _kubectl: Process,
    /// HOST:PORT here.
    pub(super) address: String,
}

impl Forward {
    /// To a port of `target`, such as `deploy/peer` or `pod/tracker-0`.
    pub(super) fn open(cluster: &Cluster<'_>, target: &str, port: u16) -> anyhow::Result<Self> {
        let remote = format!(":{port}");
        let command = cluster.command(["port-forward", target, &remote]);
        let mut kubectl = Process::spawn_with("kubectl port-forward", command, |_| ())?;
        let address = cluster.wait_for("the port-forward", PATIENCE, || {
            // It says: Forwarding from 127.0.0.1:40123 -> 7073
            let lines = kubectl.stdout();
            let said = lines.iter().find_map(|line| line.strip_prefix("Forwarding from "));
            if said.is_none() && !kubectl.is_running() {
                bail!("kubectl port-forward {target} {remote}: {}", kubectl.stderr().trim());
            }
            Ok(said.and_then(|line| line.split(' ').next()).map(str::to_owned))
        })?;
        Ok(Self { _kubectl: kubectl, address })
    }
}

/// What `shoal` prints.
pub(super) fn shoal<'a>(arguments: impl IntoIterator<Item = &'a str>) -> anyhow::Result<String> {
    let mut command = Command::new(binary("shoal"));
    command.args(arguments).stdin(Stdio::null());
    run(&mut command).map(|text| text.trim_end().to_owned()).context("shoal")
}
