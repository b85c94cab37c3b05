//! What peers hold, by their own answers.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use serde_json::Value;

use super::{
    cluster::Cluster,
    forward::{Forward, shoal},
};

/// Peers asked at a time. Each takes a `kubectl` and a `shoal`.
const ASKED_AT_A_TIME: usize = 4;

/// The local API's port.
pub(super) const CONTROL: u16 = 7073;

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
            whole.extend(self.ask_all(open, contents));
            Ok((pods.len() == count && whole.len() == count).then_some(()))
        });
        outcome.with_context(|| format!("{} of {count} peers hold it", whole.len()))
    }

    /// Those of the pods that hold the contents. One that cannot be asked, as it comes or goes,
    /// does not.
    fn ask_all(&self, pods: Vec<String>, contents: &[&str]) -> Vec<String> {
        let (open, whole) = (Mutex::new(pods), Mutex::new(Vec::new()));
        let next = || open.lock().unwrap_or_else(PoisonError::into_inner).pop();
        thread::scope(|scope| {
            for _ in 0..ASKED_AT_A_TIME {
                scope.spawn(|| {
                    while let Some(pod) = next() {
                        if self.holds(&pod, contents).unwrap_or(false) {
                            whole.lock().unwrap_or_else(PoisonError::into_inner).push(pod);
                        }
                    }
                });
            }
        });
        whole.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a peer says that it holds each of these, whole.
    pub(super) fn holds(&self, pod: &str, contents: &[&str]) -> anyhow::Result<bool> {
        let forward = Forward::open(self, &format!("pod/{pod}"), CONTROL)?;
        let listed = shoal(["ls", "--json", "--control", &forward.address])?;
        let listed: Vec<Value> = serde_json::from_str(&listed)?;
        Ok(contents.iter().all(|id| {
            listed.iter().any(|content| content["id"] == **id && content["state"] == "seeding")
        }))
    }
}
