//! The cluster, by `kubectl` and `helm`.

use std::{
    collections::BTreeMap,
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::interrupt::Interrupt;

/// Between two looks at a condition. Each look is a process.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A namespace of ours in the cluster.
pub(super) struct Cluster<'a> {
    pub(super) namespace: String,
    pub(super) interrupt: &'a Interrupt,
}

impl<'a> Cluster<'a> {
    /// Makes the namespace, in which the API server refuses pods that are less than restricted.
    pub(super) fn reach(namespace: &str, interrupt: &'a Interrupt) -> anyhow::Result<Self> {
        let cluster = Self { namespace: namespace.to_owned(), interrupt };
        run(Command::new("helm").arg("version")).context("helm is needed")?;
        run(Command::new("kubectl").args(["get", "--raw", "/readyz"]))
            .context("kubectl must point at a cluster that answers")?;
        cluster.kubectl(["create", "namespace", namespace]).with_context(|| {
            format!("an earlier run may have left it: kubectl delete namespace {namespace}")
        })?;
        cluster.allow("restricted")?;
        Ok(cluster)
    }

    /// Sets to which standard the API server holds the pods of the namespace.
    pub(super) fn allow(&self, standard: &str) -> anyhow::Result<()> {
        let label = format!("pod-security.kubernetes.io/enforce={standard}");
        self.kubectl(["label", "--overwrite", "namespace", &self.namespace, &label]).map(drop)
    }

    /// Deletes the namespace, and waits until it is gone, also when interrupted.
    pub(super) fn remove(&self) -> anyhow::Result<()> {
        run(&mut self.command(["delete", "namespace", &self.namespace, "--timeout=120s"])).map(drop)
    }

    /// A `kubectl` of the namespace, not yet run.
    pub(super) fn command<'b>(&self, arguments: impl IntoIterator<Item = &'b str>) -> Command {
        let mut command = Command::new("kubectl");
        command.args(["--namespace", &self.namespace]).args(arguments);
        command
    }

    /// What `kubectl` prints.
    pub(super) fn kubectl<'b>(
        &self,
        arguments: impl IntoIterator<Item = &'b str>,
    ) -> anyhow::Result<String> {
        self.interrupt.check()?;
        run(&mut self.command(arguments))
    }

    /// What `helm` prints.
    pub(super) fn helm<'b>(
        &self,
        arguments: impl IntoIterator<Item = &'b str>,
    ) -> anyhow::Result<String> {
        self.interrupt.check()?;
        run(Command::new("helm").args(["--namespace", &self.namespace]).args(arguments))
    }

    /// An object, or a list of them, as JSON.
    pub(super) fn get(&self, what: &[&str]) -> anyhow::Result<Value> {
        let json = self.kubectl(["get", "--output=json"].iter().chain(what).copied())?;
        serde_json::from_str(&json).context("kubectl prints JSON")
    }

    /// Creates or changes objects.
    pub(super) fn apply(&self, manifest: &str) -> anyhow::Result<()> {
        self.interrupt.check()?;
        // By the server: a copy of the manifest in an annotation, as a client keeps it, is at most 256 KiB.
        let mut command = self.command(["apply", "--server-side", "--filename=-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut kubectl = command.spawn()?;
        let mut stdin = kubectl.stdin.take().context("stdin is piped")?;
        stdin.write_all(manifest.as_bytes())?;
        drop(stdin);
        let output = kubectl.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl apply failed: {}", said.trim());
        Ok(())
    }

    /// Names of the pods of a component that run and are not about to end.
    pub(super) fn pods(&self, component: &str) -> anyhow::Result<Vec<String>> {
        let label = format!("--selector=app.kubernetes.io/name={component}");
        let list = self.get(&["pods", &label])?;
        let pods = list["items"].as_array().context("a list has items")?;
        let alive = pods.iter().filter(|pod| {
            pod["metadata"]["deletionTimestamp"].is_null() && pod["status"]["phase"] == "Running"
        });
        Ok(alive.filter_map(|pod| Some(pod["metadata"]["name"].as_str()?.to_owned())).collect())
    }

    /// Names of all pods, each with the id that only this one of its name has.
    pub(super) fn uids(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let list = self.get(&["pods"])?;
        let pods = list["items"].as_array().context("a list has items")?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let ids = pods.iter().map(|pod| &pod["metadata"]);
        Ok(ids.filter_map(|pod| Some((text(&pod["name"])?, text(&pod["uid"])?))).collect())
    }

    /// Waits until a workload has as many ready pods as it wants, all of its newest kind.
    pub(super) fn rolled_out(&self, workload: &str, patience: Duration) -> anyhow::Result<()> {
        let timeout = format!("--timeout={}s", patience.as_secs());
        self.kubectl(["rollout", "status", workload, &timeout]).map(drop)
    }

    /// Waits until `condition` gives something.
    pub(super) fn wait_for<T>(
        &self,
        what: &str,
        patience: Duration,
        condition: impl FnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        self.interrupt.wait_for(what, LOOK_EVERY, patience, condition)
    }
}

/// What a command prints, or an error with what it complains of.
pub(super) fn run(command: &mut Command) -> anyhow::Result<String> {
    let called = format!("{command:?}").replace('"', "");
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!("`{called}` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{called}` prints no UTF-8"))
}
