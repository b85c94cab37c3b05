//! The state of the cluster after a failure.

use super::cluster::Cluster;

/// The number of log lines per pod.
const LOG_LINES: &str = "--tail=15";

/// Prints the workloads, events and last log lines to stderr.
pub(super) fn print(cluster: &Cluster<'_>) {
    for arguments in [
        &["get", "all,pvc", "--output=wide"][..],
        &["get", "events", "--sort-by=.lastTimestamp"],
        &[
            "logs",
            "--selector=app.kubernetes.io/part-of=shoal",
            "--all-containers",
            "--prefix",
            LOG_LINES,
            "--max-log-requests=100",
            "--ignore-errors",
        ],
    ] {
        eprintln!("--- kubectl {}", arguments.join(" "));
        match cluster.kubectl(arguments.iter().copied()) {
            Ok(text) => eprintln!("{text}"),
            Err(error) => eprintln!("{error:#}"),
        }
    }
}
