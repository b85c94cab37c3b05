//! Clients in the cluster: downloads and writes that run while workloads restart.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::{
    cluster::Cluster,
    forward::{Forward, shoal},
};

/// More than the test has time for: a job runs until it is deleted.
const COMPLETIONS: u32 = 10_000;

/// Publishes a small file, the same each time, at the peer of a node, through the socket in the
/// node's `directory`. Returns the content's id.
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
                        // The socket admits only root.
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
    ensure!(id.len() == 64, "{NAME} printed {id:?}, which is not an id");
    Ok(id)
}

/// A job that repeats the same command, in one pod after another.
pub(super) struct Traffic<'a> {
    cluster: &'a Cluster<'a>,
    name: &'static str,
    /// The arguments of `shoal`.
    arguments: Vec<String>,
    /// Failed pods that the job may replace before it fails.
    retries: u32,
}

impl<'a> Traffic<'a> {
    /// Downloads of a named content, each in a pod of its own. No pod may fail.
    pub(super) fn downloads(cluster: &'a Cluster<'a>, name: &str) -> Self {
        let [tracker, ring] = discovery_arguments(&cluster.namespace);
        let arguments =
            vec!["get".to_owned(), name.to_owned(), "--output=/data".to_owned(), tracker, ring];
        Self { cluster, name: "downloads", arguments, retries: 0 }
    }

    /// Writes of the keys `written-0`, `written-1` and so on. Failed pods are retried.
    pub(super) fn writes(cluster: &'a Cluster<'a>) -> Self {
        let [_, ring] = discovery_arguments(&cluster.namespace);
        let key = "written-$(JOB_COMPLETION_INDEX)";
        let arguments = ["dht", "put", key, key, &ring].map(str::to_owned).to_vec();
        Self { cluster, name: "writes", arguments, retries: 3 }
    }

    /// Starts the job with this image.
    pub(super) fn start(&self, image: &str) -> anyhow::Result<()> {
        self.cluster.apply(&self.manifest(image).to_string())
    }

    /// Waits until `by` more pods have succeeded.
    pub(super) fn advance(&self, by: u64, patience: Duration) -> anyhow::Result<()> {
        let goal = self.succeeded()? + by;
        let what = format!("{by} more {}", self.name);
        self.cluster.wait_for(&what, patience, || Ok((self.succeeded()? >= goal).then_some(())))
    }

    /// Deletes the job. Returns the indexes of the pods that succeeded; fails if too many failed.
    pub(super) fn end(&self) -> anyhow::Result<Vec<u32>> {
        let job = format!("job/{}", self.name);
        // Read before the pods are deleted, which counts as a failure.
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

/// The addresses of the trackers and the ring, as arguments of `shoal`.
fn discovery_arguments(namespace: &str) -> [String; 2] {
    [
        format!("--tracker=tracker.{namespace}.svc:7070"),
        format!("--dht=dht-node.{namespace}.svc:7071"),
    ]
}

/// Parses indexes such as `0,3-5` from a job's status.
fn indexes(text: &str) -> anyhow::Result<Vec<u32>> {
    let mut all = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.parse::<u32>().with_context(|| format!("indexes {text:?}"));
        all.extend(number(first)?..=number(last)?);
    }
    Ok(all)
}

/// Reads each of these keys from the ring. The value of each key is its name.
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
    fn completed_indexes_are_parsed_with_their_ranges() {
        assert_eq!(indexes("0,3-5").unwrap(), [0, 3, 4, 5]);
        assert!(indexes("").unwrap().is_empty());
        assert!(indexes("a-b").is_err());
    }
}
