//! The contents and memory of peers, by their own answers.

use std::{collections::BTreeSet, thread, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use shoal_common::lock::Mutex;

use super::{
    cluster::Cluster,
    forward::{Forward, shoal},
};
use crate::metrics;

/// Peers queried at a time. Each query takes a `kubectl` and a `shoal`.
const PARALLEL_QUERIES: usize = 4;

/// The port of the local API.
pub(super) const CONTROL: u16 = 7073;
/// The port of `/metrics`.
const ADMIN: u16 = 9072;

impl Cluster<'_> {
    /// Waits until `count` peers run, and each says that it holds all of these contents.
    pub(super) fn all_hold(
        &self,
        count: usize,
        contents: &[&str],
        patience: Duration,
    ) -> anyhow::Result<()> {
        let mut whole = BTreeSet::new();
        let what = format!("{count} peers that hold {}", contents.join(" and "));
        let outcome = self.wait_for(&what, patience, || {
            let pods: BTreeSet<_> = self.pods("peer")?.into_iter().collect();
            whole.retain(|pod| pods.contains(pod));
            let open: Vec<_> = pods.difference(&whole).cloned().collect();
            // A pod that does not answer, because it is starting or ending, does not hold them.
            let answers = each(open, |pod| self.holds(pod, contents).unwrap_or(false));
            whole.extend(answers.into_iter().filter_map(|(pod, holds)| holds.then_some(pod)));
            Ok((pods.len() == count && whole.len() == count).then_some(()))
        });
        outcome.with_context(|| format!("{} of {count} peers hold them", whole.len()))
    }

    /// The largest resident memory of any peer, by its own metric, in bytes.
    pub(super) fn most_resident(&self) -> anyhow::Result<u64> {
        let answers = each(self.pods("peer")?, |pod| self.resident(pod));
        let all: Vec<_> = answers.into_iter().map(|(_, bytes)| bytes).collect::<Result<_, _>>()?;
        all.into_iter().max().context("no peer runs")
    }

    fn resident(&self, pod: &str) -> anyhow::Result<u64> {
        let forward = Forward::open(self, &format!("pod/{pod}"), ADMIN)?;
        let bytes = metrics::figure(&forward.address, "process_resident_memory_bytes")?;
        ensure!(bytes > 0.0, "{pod} does not report its resident memory");
        Ok(bytes as u64)
    }

    /// Whether a peer says that it holds all of each content.
    pub(super) fn holds(&self, pod: &str, contents: &[&str]) -> anyhow::Result<bool> {
        let forward = Forward::open(self, &format!("pod/{pod}"), CONTROL)?;
        let listed = shoal(["ls", "--json", "--control", &forward.address])?;
        let listed: Vec<Value> = serde_json::from_str(&listed)?;
        Ok(contents.iter().all(|id| {
            listed.iter().any(|content| content["id"] == **id && content["state"] == "seeding")
        }))
    }
}

/// Calls `ask` for each pod, several at a time, and returns the results.
fn each<T: Send>(pods: Vec<String>, ask: impl Fn(&str) -> T + Sync) -> Vec<(String, T)> {
    let (open, answers) = (Mutex::new(pods), Mutex::new(Vec::new()));
    let next = || open.lock().pop();
    thread::scope(|scope| {
        for _ in 0..PARALLEL_QUERIES {
            scope.spawn(|| {
                while let Some(pod) = next() {
                    let answer = ask(&pod);
                    answers.lock().push((pod, answer));
                }
            });
        }
    });
    answers.into_inner()
}
