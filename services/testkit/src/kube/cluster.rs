//! The cluster, controlled through `kubectl` and `helm`.

use std::{
    collections::BTreeMap,
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::interrupt::Interrupt;

/// How often a condition is checked. Each check is a process.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The test's namespace in the cluster.
pub(super) struct Cluster<'a> {
    pub(super) namespace: String,
    pub(super) interrupt: &'a Interrupt,
}

impl<'a> Cluster<'a> {
    /// Creates the namespace, in which the API server accepts only pods of the standard
    /// `restricted`.
    pub(super) fn reach(namespace: &str, interrupt: &'a Interrupt) -> anyhow::Result<Self> {
        let cluster = Self { namespace: namespace.to_owned(), interrupt };
        run(Command::new("helm").arg("version")).context("helm is needed")?;
        run(Command::new("kubectl").args(["get", "--raw", "/readyz"]))
            .context("kubectl must point at a cluster that answers")?;
        cluster.kubectl(["create", "namespace", namespace]).with_context(|| {
            format!(
                "an earlier run may have left it; delete it: kubectl delete namespace {namespace}"
            )
        })?;
        cluster.allow("restricted")?;
        Ok(cluster)
    }

    /// Sets the pod security standard that the API server enforces in the namespace.
    pub(super) fn allow(&self, standard: &str) -> anyhow::Result<()> {
        let label = format!("pod-security.kubernetes.io/enforce={standard}");
        self.kubectl(["label", "--overwrite", "namespace", &self.namespace, &label]).map(drop)
    }

    /// Deletes the namespace and waits until it is gone, also after an interrupt.
    pub(super) fn remove(&self) -> anyhow::Result<()> {
        run(&mut self.command(["delete", "namespace", &self.namespace, "--timeout=120s"])).map(drop)
    }

    /// A `kubectl` command for the namespace, not yet run.
    pub(super) fn command<'b>(&self, arguments: impl IntoIterator<Item = &'b str>) -> Command {
        let mut command = Command::new("kubectl");
        command.args(["--namespace", &self.namespace]).args(arguments);
        command
    }

    /// Runs `kubectl` and returns its stdout.
    pub(super) fn kubectl<'b>(
        &self,
        arguments: impl IntoIterator<Item = &'b str>,
    ) -> anyhow::Result<String> {
        self.interrupt.check()?;
        run(&mut self.command(arguments))
    }

    /// Runs `helm` and returns its stdout.
    pub(super) fn helm<'b>(
        &self,
        arguments: impl IntoIterator<Item = &'b str>,
    ) -> anyhow::Result<String> {
        self.interrupt.check()?;
        run(Command::new("helm").args(["--namespace", &self.namespace]).args(arguments))
    }

    /// An object, or a list of objects, as JSON.
    pub(super) fn get(&self, what: &[&str]) -> anyhow::Result<Value> {
        let json = self.kubectl(["get", "--output=json"].iter().chain(what).copied())?;
        serde_json::from_str(&json).context("kubectl printed no JSON")
    }

    /// Creates or changes objects.
    pub(super) fn apply(&self, manifest: &str) -> anyhow::Result<()> {
        self.interrupt.check()?;
        // On the server: a client keeps a copy of the manifest in an annotation, limited to 256
        // KiB.
        let mut command = self.command(["apply", "--server-side", "--filename=-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut kubectl = command.spawn()?;
        let mut stdin = kubectl.stdin.take().context("stdin is piped")?;
        stdin.write_all(manifest.as_bytes())?;
        drop(stdin);
        let output = kubectl.wait_with_output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl apply failed: {}", stderr.trim());
        Ok(())
    }

    /// The names of a component's pods that run and are not being deleted.
    pub(super) fn pods(&self, component: &str) -> anyhow::Result<Vec<String>> {
        let label = format!("--selector=app.kubernetes.io/name={component}");
        let list = self.get(&["pods", &label])?;
        let pods = list["items"].as_array().context("a list has items")?;
        let alive = pods.iter().filter(|pod| {
            pod["metadata"]["deletionTimestamp"].is_null() && pod["status"]["phase"] == "Running"
        });
        Ok(alive.filter_map(|pod| Some(pod["metadata"]["name"].as_str()?.to_owned())).collect())
    }

    /// The names and unique ids of all pods.
    pub(super) fn uids(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let list = self.get(&["pods"])?;
        let pods = list["items"].as_array().context("a list has items")?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let ids = pods.iter().map(|pod| &pod["metadata"]);
        Ok(ids.filter_map(|pod| Some((text(&pod["name"])?, text(&pod["uid"])?))).collect())
    }

    /// Waits until a workload has all its pods ready and of the newest revision.
    pub(super) fn rolled_out(&self, workload: &str, patience: Duration) -> anyhow::Result<()> {
        let timeout = format!("--timeout={}s", patience.as_secs());
        self.kubectl(["rollout", "status", workload, &timeout]).map(drop)
    }

    /// Waits until `condition` returns a value.
    pub(super) fn wait_for<T>(
        &self,
        what: &str,
        patience: Duration,
        condition: impl FnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        self.interrupt.wait_for(what, LOOK_EVERY, patience, condition)
    }
}

/// Runs a command. Returns its stdout, or an error with its stderr.
pub(super) fn run(command: &mut Command) -> anyhow::Result<String> {
    let called = format!("{command:?}").replace('"', "");
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!("`{called}` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("the output of `{called}` is not UTF-8"))
}
