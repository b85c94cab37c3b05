//! Work of clients in the cluster: downloads and writes that go on while things are restarted.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::{
    cluster::Cluster,
    forward::{Forward, shoal},
};

/// More than there is time for: a job ends when it is told to.
const COMPLETIONS: u32 = 10_000;

/// Has the peer of a node publish a small file, the same each time, through its socket in `directory`
/// of the node; gives its id.
pub(super) fn publish_on_node(
    cluster: &Cluster<'_>,
    image: &str,
    directory: &str,
) -> anyhow::Result<String> {
    const NAME: &str = "publish-on-node";
    let socket = "/run/shoal/control.sock";
    let control = format!("--control=unix:{socket}");
    let text = "shoal keeps this file on each node\n".repeat(10_000);
    let manifest = json!({
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": NAME},
                "data": {"small.txt": text},
            },
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": NAME},
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [{
                        "name": "shoal",
                        "image": image,
                        "args": ["publish", "--quiet", "/source/small.txt", control],
                        // Whom alone the socket lets in.
                        "securityContext": {"runAsUser": 0, "capabilities": {"drop": ["ALL"]}},
                        "volumeMounts": [
                            {"name": "source", "mountPath": "/source"},
                            {"name": "control", "mountPath": socket},
                        ],
                    }],
                    "volumes": [
                        {"name": "source", "configMap": {"name": NAME}},
                        {"name": "control", "hostPath": {
                            "path": format!("{directory}/data/control.sock"),
                            "type": "Socket",
                        }},
                    ],
                },
            },
        ],
    });
    cluster.apply(&manifest.to_string())?;
    let pod = format!("pod/{NAME}");
    let condition = "--for=jsonpath={.status.phase}=Succeeded";
    cluster.kubectl(["wait", &pod, condition, "--timeout=120s"])?;
    let id = cluster.kubectl(["logs", &pod])?.trim().to_owned();
    let configuration = format!("configmap/{NAME}");
    cluster.kubectl(["delete", &pod, &configuration, "--timeout=60s"])?;
    ensure!(id.len() == 64, "{NAME} printed {id:?}, which is no id");
    Ok(id)
}

/// A job whose pods do the same again and again.
pub(super) struct Traffic<'a> {
    cluster: &'a Cluster<'a>,
    name: &'static str,
    /// Of `shoal`.
    arguments: Vec<String>,
    /// Times that a pod may try again before the job has failed.
    retries: u32,
}

impl<'a> Traffic<'a> {
    /// Downloads of a name, each in a pod of its own that may not fail once.
    pub(super) fn downloads(cluster: &'a Cluster<'a>, name: &str) -> Self {
        let [tracker, ring] = places(&cluster.namespace);
        let arguments =
            vec!["get".to_owned(), name.to_owned(), "--output=/data".to_owned(), tracker, ring];
        Self { cluster, name: "downloads", arguments, retries: 0 }
    }

    /// Writes of keys `written-0`, `written-1`, ..., each tried again if it fails.
    pub(super) fn writes(cluster: &'a Cluster<'a>) -> Self {
        let [_, ring] = places(&cluster.namespace);
        let key = "written-$(JOB_COMPLETION_INDEX)";
        let arguments = ["dht", "put", key, key, &ring].map(str::to_owned).to_vec();
        Self { cluster, name: "writes", arguments, retries: 3 }
    }

    /// Starts it, with the image that the chart's own test uses.
    pub(super) fn start(&self, image: &str) -> anyhow::Result<()> {
        self.cluster.apply(&self.manifest(image).to_string())
    }

    /// Waits until so many more have succeeded.
    pub(super) fn advance(&self, by: u64, patience: Duration) -> anyhow::Result<()> {
        let goal = self.succeeded()? + by;
        let what = format!("{by} more {}", self.name);
        self.cluster.wait_for(&what, patience, || Ok((self.succeeded()? >= goal).then_some(())))
    }

    /// Ends it, and says which of its pods have succeeded. An error if one has failed.
    pub(super) fn end(&self) -> anyhow::Result<Vec<u32>> {
        let job = format!("job/{}", self.name);
        // Looked at before pods are deleted, which counts as a failure.
        self.succeeded()?;
        let status = self.cluster.get(&[&job])?["status"].take();
        self.cluster.kubectl(["delete", &job, "--timeout=60s"])?;
        indexes(status["completedIndexes"].as_str().unwrap_or_default())
    }

    fn succeeded(&self) -> anyhow::Result<u64> {
        let job = format!("job/{}", self.name);
        let status = self.cluster.get(&[&job])?["status"].take();
        let failed = status["failed"].as_u64().unwrap_or_default();
        ensure!(
            failed <= u64::from(self.retries),
            "{failed} of the {} failed: {}",
            self.name,
            status["conditions"]
        );
        Ok(status["succeeded"].as_u64().unwrap_or_default())
    }

    fn manifest(&self, image: &str) -> Value {
        json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": { "name": self.name },
            "spec": {
                "completionMode": "Indexed",
                "completions": COMPLETIONS,
                "parallelism": 1,
                "backoffLimit": self.retries,
                "template": {
                    "metadata": { "labels": { "app.kubernetes.io/part-of": "shoal" } },
                    "spec": {
                        "restartPolicy": "Never",
                        "enableServiceLinks": false,
                        "securityContext": {
                            "runAsNonRoot": true,
                            "runAsUser": 65532,
                            "fsGroup": 65532,
                            "seccompProfile": { "type": "RuntimeDefault" },
                        },
                        "containers": [{
                            "name": "shoal",
                            "image": image,
                            "imagePullPolicy": "IfNotPresent",
                            "args": self.arguments,
                            "securityContext": {
                                "allowPrivilegeEscalation": false,
                                "readOnlyRootFilesystem": true,
                                "capabilities": { "drop": ["ALL"] },
                            },
                            "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
                        }],
                        "volumes": [{ "name": "data", "emptyDir": {} }],
                    },
                },
            },
        })
    }
}

/// Where trackers and ring are, as arguments of `shoal`.
fn places(namespace: &str) -> [String; 2] {
    [
        format!("--tracker=tracker.{namespace}.svc:7070"),
        format!("--dht=dht-node.{namespace}.svc:7071"),
    ]
}

/// Reads `0,3-5` as a job's status has it.
fn indexes(text: &str) -> anyhow::Result<Vec<u32>> {
    let mut all = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.parse::<u32>().with_context(|| format!("indexes {text:?}"));
        all.extend(number(first)?..=number(last)?);
    }
    Ok(all)
}

/// Reads each of these keys in the ring; its value is its name.
pub(super) fn check_keys(cluster: &Cluster<'_>, keys: &[String]) -> anyhow::Result<()> {
    let forward = Forward::open(cluster, "sts/dht-node", 7071)?;
    for key in keys {
        let value = shoal(["dht", "get", key, "--dht", &forward.address])?;
        ensure!(value == *key, "the key {key} has the value {value}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completed_indexes_are_read_with_their_ranges() {
        assert_eq!(indexes("0,3-5").unwrap(), [0, 3, 4, 5]);
        assert!(indexes("").unwrap().is_empty());
        assert!(indexes("a-b").is_err());
    }
}
