//! `kubectl port-forward`, and the command `shoal` through it.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};

use super::cluster::{Cluster, run};
use crate::process::{Process, binary};

/// A port-forward takes well under a second; a busy machine needs longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A local port that leads to a port of a pod, until it is dropped or the pod ends.
pub(super) struct Forward {
    _kubectl: Process,
    /// The local HOST:PORT.
    pub(super) address: String,
}

impl Forward {
    /// Forwards to a port of `target`, such as `deploy/peer` or `pod/tracker-0`.
    pub(super) fn open(cluster: &Cluster<'_>, target: &str, port: u16) -> anyhow::Result<Self> {
        let remote = format!(":{port}");
        let command = cluster.command(["port-forward", target, &remote]);
        let mut kubectl = Process::spawn_with("kubectl port-forward", command, |_| ())?;
        let address = cluster.wait_for("the port-forward", PATIENCE, || {
            // kubectl prints: Forwarding from 127.0.0.1:40123 -> 7073
            let lines = kubectl.stdout();
            let printed = lines.iter().find_map(|line| line.strip_prefix("Forwarding from "));
            if printed.is_none() && !kubectl.is_running() {
                bail!("kubectl port-forward {target} {remote}: {}", kubectl.stderr().trim());
            }
            Ok(printed.and_then(|line| line.split(' ').next()).map(str::to_owned))
        })?;
        Ok(Self { _kubectl: kubectl, address })
    }
}

/// Runs `shoal` and returns its stdout.
pub(super) fn shoal<'a>(arguments: impl IntoIterator<Item = &'a str>) -> anyhow::Result<String> {
    let mut command = Command::new(binary("shoal"));
    command.args(arguments).stdin(Stdio::null());
    run(&mut command).map(|text| text.trim_end().to_owned()).context("shoal")
}
