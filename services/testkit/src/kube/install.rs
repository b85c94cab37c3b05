//! The chart's release in the cluster.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, ensure};

use super::cluster::{Cluster, run};

/// The name of the release, as in the README.
const RELEASE: &str = "shoal";
/// Objects of every namespace, and events, which may outlive the release.
const NOT_OURS: [&str; 3] = ["configmap/kube-root-ca.crt", "serviceaccount/default", "event"];

/// A release of the chart.
pub(super) struct Release<'a> {
    pub(super) cluster: &'a Cluster<'a>,
    pub(super) chart: &'a Path,
    /// Additional arguments of `helm install` and `helm upgrade`.
    pub(super) arguments: &'a [String],
}

impl Release<'_> {
    pub(super) fn install(&self, patience: Duration) -> anyhow::Result<()> {
        self.change("install", &[], patience)
    }

    /// Changes values (`KEY=VALUE`) and waits until the workloads have rolled out.
    pub(super) fn upgrade(&self, values: &str, patience: Duration) -> anyhow::Result<()> {
        self.change("upgrade", &["--set", values], patience)
    }

    pub(super) fn test(&self, patience: Duration) -> anyhow::Result<()> {
        self.cluster.helm(["test", RELEASE, "--timeout", &seconds(patience)]).map(drop)
    }

    /// Uninstalls the release and waits until its pods are gone.
    pub(super) fn uninstall(&self, patience: Duration) -> anyhow::Result<()> {
        let timeout = seconds(patience);
        self.cluster.helm(["uninstall", RELEASE, "--wait", "--timeout", &timeout])?;
        self.cluster.wait_for("the end of all pods", patience, || {
            let pods = self.cluster.get(&["pods"])?;
            Ok((pods["items"] == serde_json::json!([])).then_some(()))
        })
    }

    /// The image of the command `shoal`, from the chart's test.
    pub(super) fn client_image(&self) -> anyhow::Result<String> {
        let hooks = self.cluster.helm(["get", "hooks", RELEASE])?;
        let images = hooks.lines().filter_map(|line| line.trim().strip_prefix("image: "));
        let image = images.map(|image| image.trim_matches('"').to_owned()).next();
        image.context("the chart's test has no image")
    }

    /// An example of the chart, adapted to this namespace.
    pub(super) fn example(&self, name: &str) -> anyhow::Result<String> {
        let path = self.chart.join("examples").join(name).with_extension("yaml");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let here = format!(".{}.svc:", self.cluster.namespace);
        ensure!(text.contains(".shoal.svc:"), "{} contains no service address", path.display());
        Ok(text.replace(".shoal.svc:", &here).replace("shoal/cli:dev", &self.client_image()?))
    }

    /// The objects left in the namespace, as `kind/name`, without those of every namespace.
    pub(super) fn leftovers(&self) -> anyhow::Result<Vec<String>> {
        let kinds = self.cluster.kubectl([
            "api-resources",
            "--verbs=list,delete",
            "--namespaced",
            "--output=name",
        ])?;
        let kinds: Vec<_> = kinds.lines().collect();
        let found = run(&mut self.cluster.command(["get", &kinds.join(","), "--output=name"]))?;
        let is_ours = |name: &&str| !NOT_OURS.iter().any(|theirs| name.starts_with(theirs));
        Ok(found.lines().filter(is_ours).map(str::to_owned).collect())
    }

    fn change(&self, how: &str, more: &[&str], patience: Duration) -> anyhow::Result<()> {
        let chart = self.chart.to_str().context("the chart's path is UTF-8")?;
        let timeout = seconds(patience);
        let arguments = [how, RELEASE, chart, "--wait", "--timeout", &timeout];
        let given = self.arguments.iter().map(String::as_str);
        let all = arguments.into_iter().chain(more.iter().copied()).chain(given);
        self.cluster.helm(all).map(drop)
    }
}

fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs())
}
