//! The steps of the test.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::{
    Setup,
    cluster::Cluster,
    forward::{Forward, shoal},
    install::Release,
    jobs::{self, Traffic},
    peers::CONTROL,
};
use crate::files::{self, Fill};

/// Longest time from `helm install` until all pods are ready.
const INSTALL: Duration = Duration::from_secs(90);
/// Longest time for a file to reach a new peer, or many, on a busy machine.
const SPREAD: Duration = Duration::from_secs(120);
/// Longest rolling restart of a workload, most of which is waiting by design.
const RESTART: Duration = Duration::from_secs(180);
/// Longest wait for anything small.
const SOON: Duration = Duration::from_secs(60);
/// The limit of an idle peer's resident memory in bytes.
const MEMORY: u64 = 32 << 20;
/// Number of keys written before the first restart.
const KEYS: usize = 10;
/// The file's name in the ring, as in the examples.
const NAME: &str = "llama-3";
/// The workloads, in the order of their restart.
const WORKLOADS: [&str; 3] = ["deploy/peer", "sts/dht-node", "sts/tracker"];

/// A release of the chart, and the data stored in it.
pub(super) struct Scenario<'a> {
    setup: &'a Setup,
    cluster: &'a Cluster<'a>,
    release: Release<'a>,
    folder: &'a Path,
    /// The number of peers with the chart's default values.
    peers: usize,
    /// The ids of the published contents.
    contents: Vec<String>,
    /// The keys whose writes were acknowledged.
    keys: Vec<String>,
}

impl<'a> Scenario<'a> {
    pub(super) fn new(setup: &'a Setup, cluster: &'a Cluster<'a>, folder: &'a Path) -> Self {
        let release = Release { cluster, chart: &setup.chart, arguments: &setup.helm };
        Self { setup, cluster, release, folder, peers: 0, contents: vec![], keys: vec![] }
    }

    /// Runs `helm install` and waits until all pods are ready.
    pub(super) fn install(&mut self) -> anyhow::Result<()> {
        step("helm install, all pods ready", || self.release.install(INSTALL))?;
        self.peers = self.cluster.pods("peer")?.len();
        let counts = [("peers", "peer"), ("ring nodes", "dht-node"), ("trackers", "tracker")];
        let mut ready = Vec::new();
        for (what, component) in counts {
            ready.push(format!("{} {what}", self.cluster.pods(component)?.len()));
        }
        println!("               {}", ready.join(", "));
        Ok(())
    }

    /// Publishes a file through a port-forward, names it, and writes keys.
    pub(super) fn publish(&mut self) -> anyhow::Result<()> {
        let file = self.file("model.bin")?;
        step("publish through a port-forward", || {
            let forward = Forward::open(self.cluster, "deploy/peer", CONTROL)?;
            self.contents.push(publish(&file, &forward)?);
            Ok(())
        })?;
        step("name the content, write keys", || {
            let forward = Forward::open(self.cluster, "sts/dht-node", 7071)?;
            shoal(["name", "set", NAME, &self.contents[0], "--dht", &forward.address])?;
            for number in 0..KEYS {
                let key = format!("key-{number}");
                shoal(["dht", "put", &key, &key, "--dht", &forward.address])?;
                self.keys.push(key);
            }
            Ok(())
        })?;
        step("all peers hold the content", || self.all_hold(self.peers))
    }

    /// Runs `kubectl scale`, up and down again.
    pub(super) fn scale(&self) -> anyhow::Result<()> {
        let many = self.setup.replicas;
        step(&format!("scale to {many}, a tracker counts all as complete"), || {
            self.scale_to(many)?;
            self.all_counted(many)
        })?;
        step(&format!("all {many} peers hold the content"), || self.all_hold(many))?;
        step("all peers are ready", || self.cluster.rolled_out("deploy/peer", SPREAD))?;
        step("no peer needs much memory", || {
            let most = self.cluster.wait_for("peers to release their memory", SOON, || {
                let most = self.cluster.most_resident()?;
                Ok((most < MEMORY).then_some(most))
            })?;
            println!("               at most {:.1} MiB", most as f64 / f64::from(1 << 20));
            Ok(())
        })?;
        step(&format!("scale back to {}", self.peers), || {
            self.scale_to(self.peers)?;
            self.all_gone(many - self.peers)?;
            self.all_hold(self.peers)
        })
    }

    /// Runs `kubectl rollout restart` for each workload, while clients download and write.
    pub(super) fn restart_all(&mut self) -> anyhow::Result<()> {
        let image = self.release.client_image()?;
        let (downloads, writes) =
            (Traffic::downloads(self.cluster, NAME), Traffic::writes(self.cluster));
        step("clients start", || {
            downloads.start(&image)?;
            writes.start(&image)?;
            downloads.advance(1, SOON)?;
            writes.advance(1, SOON)
        })?;
        for workload in WORKLOADS {
            step(&format!("restart {workload}"), || {
                self.cluster.kubectl(["rollout", "restart", workload])?;
                self.cluster.rolled_out(workload, RESTART)?;
                // The first success may be a job that ran during the restart.
                downloads.advance(1, SOON)?;
                writes.advance(1, SOON)
            })?;
        }
        let (downloaded, written) = (downloads.end()?.len(), writes.end()?);
        println!("               {downloaded} downloads, {} writes, none failed", written.len());
        self.keys.extend(written.iter().map(|index| format!("written-{index}")));
        step("no content and no key is lost", || self.all_there())
    }

    /// Runs `kubectl delete pod --force` for a ring node, a tracker and a publisher.
    pub(super) fn lose_pods(&mut self) -> anyhow::Result<()> {
        let file = self.file("second.bin")?;
        let publisher = self.cluster.pods("peer")?.pop().context("no peer runs")?;
        step("publish at one peer", || {
            let forward = Forward::open(self.cluster, &format!("pod/{publisher}"), CONTROL)?;
            self.contents.push(publish(&file, &forward)?);
            Ok(())
        })?;
        let id = self.contents.last().context("nothing was published")?;
        step("a second peer holds the content", || {
            let others = self.cluster.pods("peer")?.into_iter().filter(|pod| *pod != publisher);
            let others: Vec<_> = others.collect();
            self.cluster.wait_for("a second copy", SPREAD, || {
                let mut held = others.iter().map(|pod| self.cluster.holds(pod, &[id]));
                Ok(held.any(|held| held.unwrap_or(false)).then_some(()))
            })
        })?;
        let lost = ["dht-node-0", "tracker-0", &publisher];
        let before = self.cluster.uids()?;
        step("delete pods by force", || {
            let arguments = ["delete", "pod", "--force", "--grace-period=0"];
            self.cluster.kubectl(arguments.into_iter().chain(lost)).map(drop)
        })?;
        step("all pods are replaced", || {
            self.cluster.wait_for("new pods in their place", SOON, || {
                let now = self.cluster.uids()?;
                let is_new = |pod| now.get(pod) != before.get(pod);
                Ok((now.len() == before.len() && lost.iter().all(|pod| is_new(*pod))).then_some(()))
            })?;
            WORKLOADS.iter().try_for_each(|workload| self.cluster.rolled_out(workload, RESTART))
        })?;
        step("no content and no key is lost", || self.all_there())
    }

    /// Runs the load generator's Job.
    pub(super) fn load(&self) -> anyhow::Result<()> {
        step("the load generator's Job", || {
            let content = &self.contents[0];
            let values = ["loadgen.enabled=true", "loadgen.args={--duration=5s}"];
            let values = format!("{},loadgen.content={content}", values.join(","));
            self.release.upgrade(&values, RESTART)?;
            let job = ["job", "--selector=app.kubernetes.io/name=loadgen"];
            let done = ["--for=condition=complete", "--timeout=60s"];
            self.cluster.kubectl(["wait"].into_iter().chain(job).chain(done)).map(drop)
        })
    }

    /// Runs `helm upgrade` with a changed value, which restarts the peers.
    pub(super) fn upgrade(&self) -> anyhow::Result<()> {
        step("helm upgrade", || {
            self.release.upgrade("peer.settings.swarm.regular_slots=6", RESTART)
        })?;
        let jsonpath = "--output=jsonpath={.items[*].spec.containers[0].env[?(@.name==\"SHOAL__SWARM__REGULAR_SLOTS\")].value}";
        let selector = "--selector=app.kubernetes.io/name=peer";
        step("all peers have the new value", || {
            self.cluster.wait_for("the new value at each peer", SOON, || {
                let values = self.cluster.kubectl(["get", "pods", selector, jsonpath])?;
                Ok((values == vec!["6"; self.peers].join(" ")).then_some(()))
            })
        })?;
        step("no content and no key is lost", || self.all_there())
    }

    /// Runs `helm test`.
    pub(super) fn run_chart_test(&self) -> anyhow::Result<()> {
        step("helm test", || self.release.test(SPREAD))
    }

    /// Runs the examples that put a model into a pod.
    pub(super) fn run_examples(&self) -> anyhow::Result<()> {
        for (example, waits_for, object) in [
            ("init-container", "jsonpath={.status.phase}=Succeeded", "pod/model-server"),
            ("job", "condition=complete", "job/fetch-model"),
        ] {
            step(&format!("example {example}"), || {
                self.cluster.apply(&self.release.example(example)?)?;
                let condition = format!("--for={waits_for}");
                self.cluster.kubectl(["wait", object, &condition, "--timeout=120s"]).map(drop)
            })?;
        }
        step("delete the examples", || {
            let objects = ["pod/model-server", "job/fetch-model", "pvc/models"];
            self.cluster.kubectl(["delete", "--timeout=60s"].into_iter().chain(objects)).map(drop)
        })
    }

    /// Runs `helm uninstall`.
    pub(super) fn uninstall(&self) -> anyhow::Result<()> {
        step("helm uninstall", || self.release.uninstall(SOON))?;
        step("only volumes are left", || {
            let left = self.release.leftovers()?;
            let volumes = |name: &String| name.starts_with("persistentvolumeclaim/data-dht-node-");
            ensure!(left.iter().all(volumes), "helm uninstall leaves {}", left.join(", "));
            ensure!(!left.is_empty(), "helm uninstall deletes the ring's volumes");
            Ok(())
        })
    }

    /// Installs the chart with one peer on each node, and runs a pod that uses its own node's peer.
    pub(super) fn run_on_each_node(&self) -> anyhow::Result<()> {
        // Not that of an earlier run, which the node keeps and another version may have written.
        let directory = format!("/var/lib/{}-{}", self.cluster.namespace, std::process::id());
        let host_path = format!("peer.daemonSet.hostPath={directory}");
        let mut arguments = self.setup.helm.clone();
        let values = ["--set", "peer.kind=DaemonSet", "--set", &host_path];
        arguments.extend(values.map(str::to_owned));
        let release = Release { arguments: &arguments, ..self.release };
        step("helm install with a peer on each node", || {
            self.cluster.allow("privileged")?;
            release.install(INSTALL)
        })?;
        step("example node-local", || {
            let ring = Forward::open(self.cluster, "sts/dht-node", 7071)?;
            let image = release.client_image()?;
            let id = jobs::publish_on_node(self.cluster, &image, &directory)?;
            shoal(["name", "set", NAME, &id, "--dht", &ring.address])?;
            let example = release.example("node-local")?;
            let example = example.replace("/var/lib/shoal/", &format!("{directory}/"));
            self.cluster.apply(&example)?;
            let condition = "--for=jsonpath={.status.phase}=Succeeded";
            let pod = "pod/model-server-on-node";
            self.cluster.kubectl(["wait", pod, condition, "--timeout=120s"])?;
            self.cluster.kubectl(["delete", pod, "--timeout=60s"]).map(drop)
        })?;
        step("helm uninstall", || release.uninstall(SOON))
    }

    /// Writes a file of random bytes.
    fn file(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.join(name);
        files::write(&path, self.setup.size.bytes(), Fill::Random, self.cluster.interrupt)?;
        Ok(path)
    }

    fn scale_to(&self, peers: usize) -> anyhow::Result<()> {
        let replicas = format!("--replicas={peers}");
        self.cluster.kubectl(["scale", "deploy/peer", &replicas]).map(drop)
    }

    /// Waits until a tracker counts `peers` complete peers. After that each peer is queried once:
    /// many repeated queries would cost more than the download.
    fn all_counted(&self, peers: usize) -> anyhow::Result<()> {
        let forward = Forward::open(self.cluster, "sts/tracker", 7070)?;
        self.cluster.wait_for(&format!("{peers} complete peers"), SPREAD, || {
            let tracker = ["--tracker", &forward.address];
            let arguments = ["swarm", &self.contents[0], "--json"].into_iter().chain(tracker);
            let swarm: Value = serde_json::from_str(&shoal(arguments)?)?;
            let complete = swarm["complete_count"].as_u64().context("complete_count")?;
            Ok((complete >= peers as u64).then_some(()))
        })
    }

    /// Waits until the surplus peers are gone, including those that are ending.
    fn all_gone(&self, surplus: usize) -> anyhow::Result<()> {
        let what = format!("the end of {surplus} peers");
        self.cluster.wait_for(&what, SPREAD, || {
            let list = self.cluster.get(&["pods", "--selector=app.kubernetes.io/name=peer"])?;
            let pods = list["items"].as_array().context("a list has items")?;
            Ok((pods.len() == self.peers).then_some(()))
        })
    }

    fn all_hold(&self, peers: usize) -> anyhow::Result<()> {
        let contents: Vec<_> = self.contents.iter().map(String::as_str).collect();
        self.cluster.all_hold(peers, &contents, SPREAD)
    }

    /// Fails if a content or a key is lost.
    fn all_there(&self) -> anyhow::Result<()> {
        self.all_hold(self.peers)?;
        jobs::check_keys(self.cluster, &self.keys)
    }
}

/// Publishes a file at a peer. Returns the content's id.
fn publish(file: &Path, peer: &Forward) -> anyhow::Result<String> {
    ensure!(fs::metadata(file)?.len() > 0, "{} is empty", file.display());
    let path = file.to_str().context("the path of the temporary directory is not UTF-8")?;
    shoal(["publish", "--quiet", path, "--control", &peer.address])
}

/// Runs a step and prints its result and time.
fn step<T>(name: &str, does: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let started = Instant::now();
    let outcome = does();
    let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
    println!("{:8.1} s  {verdict:6}  {name}", started.elapsed().as_secs_f64());
    outcome.with_context(|| name.to_owned())
}
