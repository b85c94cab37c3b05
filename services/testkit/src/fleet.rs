//! A swarm of the shipped binaries: a tracker, ring nodes, publishers and leechers, with all events
//! in one channel.
//!
//! Unlike a `cluster` of the tests, it fails with errors for a user. Invariant: dropping the fleet
//! ends every process that it started, each by its id.

use std::{
    env,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use shoal_common::units::Rate;

use crate::{
    interrupt::Interrupt,
    process::{Process, binary},
};

/// Longest start of a tracker or a publisher, without the time to hash.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two checks whether a process is up.
const RETRY: Duration = Duration::from_millis(50);
/// Keeps a complete leecher seeding until the fleet is dropped.
const SEED_FOREVER: &str = "--seed";
/// The lines of a failed process's stderr that an error shows.
const STDERR_LINES: usize = 5;

/// The network of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessNetwork {
    /// The network of this process.
    Here,
    /// The network of this process, with another `/etc/hosts`.
    Hosts(PathBuf),
    /// A Linux network namespace, by name.
    Namespace(String),
}

/// The settings of one peer.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its network.
    pub network: ProcessNetwork,
    /// ADDR:PORT; port 0 means any free port.
    pub listen: String,
    /// Its upload limit.
    pub up: Option<Rate>,
    /// Where it learns of other peers.
    pub told_by: ToldBy,
}

/// Where a peer learns of other peers.
#[derive(Clone, Debug)]
pub enum ToldBy {
    /// The fleet's tracker.
    Tracker,
    /// The fleet's tracker, and the ring, through the node at HOST:PORT.
    Both(String),
    /// The ring only, through the node at HOST:PORT.
    Ring(String),
}

/// A process of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Member(usize);

/// A line of `--progress json`.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// A publisher has hashed its file.
    Published {
        /// The content's id.
        id: String,
    },
    /// The progress of a peer.
    Progress(Progress),
    /// A leecher has verified every byte.
    Completed {
        /// Bytes received and discarded.
        wasted_bytes: u64,
        /// Milliseconds since 1970.
        unix_ms: u64,
    },
    /// A process failed.
    Error {
        /// The error message.
        message: String,
    },
}

/// The progress of a peer.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Progress {
    /// Bytes held and verified.
    pub held_bytes: u64,
    /// Number of neighbours.
    pub neighbours: u32,
    /// Current download rate.
    pub down_bytes_per_s: u64,
    /// Bytes sent since the start.
    pub uploaded_bytes: u64,
    /// Milliseconds since 1970.
    pub unix_ms: u64,
}

/// The tracker is the first process of a fleet.
const TRACKER: Member = Member(0);

/// The resources that the processes have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time, summed over all processes.
    pub cpu: Duration,
    /// The largest peak of resident memory of any process, in bytes.
    pub peak_memory: u64,
}

/// A set of processes, of which the first is a tracker.
pub struct Fleet<'a> {
    tracker: String,
    interrupt: &'a Interrupt,
    members: Vec<Process>,
    /// The usage of the killed processes.
    past: Usage,
    killed: Vec<Member>,
    sender: Sender<(Member, Event)>,
    events: Receiver<(Member, Event)>,
}

impl ProcessNetwork {
    /// A command that runs in this network.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let program = program.as_ref();
        match self {
            Self::Here => Command::new(program),
            Self::Hosts(file) => {
                let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
                let mut command = Command::new("unshare");
                command.args(["--mount", "sh", "-c", script]).arg(file).arg(program);
                command
            }
            Self::Namespace(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name]).arg(program);
                command
            }
        }
    }
}

impl<'a> Fleet<'a> {
    /// Starts a tracker on ADDR:PORT and waits until it answers.
    pub fn start(
        network: &ProcessNetwork,
        tracker: String,
        interrupt: &'a Interrupt,
    ) -> anyhow::Result<Self> {
        let (sender, events) = channel();
        let mut fleet = Self {
            tracker,
            interrupt,
            members: Vec::new(),
            past: Usage::default(),
            killed: Vec::new(),
            sender,
            events,
        };
        let mut command = network.command(binary("shoal-tracker"));
        command.args(["--listen", &fleet.tracker, "--admin", "off"]);
        fleet.add("the tracker", command)?;
        let mut health = network.command(binary("shoal-tracker"));
        health.args(["health", "--listen", &fleet.tracker]);
        fleet.retry(health).context("the tracker does not answer")?;
        Ok(fleet)
    }

    /// Starts ring nodes at these HOST:PORT and waits until each is a member of the ring.
    pub fn ring(
        &mut self,
        network: &ProcessNetwork,
        nodes: &[String],
        folder: &Path,
    ) -> anyhow::Result<()> {
        for (number, node) in nodes.iter().enumerate() {
            let mut command = network.command(binary("shoal-dht-node"));
            command.args(["--listen", node, "--admin", "off", "--data-dir"]);
            command.arg(folder.join(format!("ring-node-{}", number + 1)));
            if number > 0 {
                command.args(["--join", &nodes[0]]);
            }
            self.add(&format!("ring node {}", number + 1), command)?;
        }
        for node in nodes {
            let mut health = network.command(binary("shoal-dht-node"));
            health.args(["health", "--listen", node]);
            self.retry(health).with_context(|| format!("the ring node {node} is in no ring"))?;
        }
        Ok(())
    }

    /// Starts a publisher and waits until the tracker knows it. Returns the process and the
    /// content's id.
    pub fn seed(&mut self, part: &Part, file: &Path) -> anyhow::Result<(Member, String)> {
        let mut command = part.network.command(binary("shoal"));
        command.arg("seed").arg(file);
        self.take_part(&mut command, part);
        let seeder = self.add("the seeder", command)?;
        let id = loop {
            if let Some((_, Event::Published { id })) = self.next(RETRY)? {
                break id;
            }
        };
        let mut known = part.network.command(binary("shoal"));
        known.args(["swarm", &id, "--tracker", &self.tracker]);
        self.retry(known).context("the tracker does not know the seeder")?;
        Ok((seeder, id))
    }

    /// Starts a leecher, which seeds once it is complete.
    pub fn get(&mut self, name: &str, part: &Part, id: &str, to: &Path) -> anyhow::Result<Member> {
        let mut command = part.network.command(binary("shoal"));
        command.args(["get", id, SEED_FOREVER, "-o"]).arg(to);
        self.take_part(&mut command, part);
        self.add(name, command)
    }

    /// Waits for the next event. Fails if a process failed or this one was interrupted.
    pub fn next(&mut self, patience: Duration) -> anyhow::Result<Option<(Member, Event)>> {
        self.interrupt.check()?;
        match self.events.recv_timeout(patience) {
            Ok((member, Event::Error { message })) => {
                bail!("{} failed: {message}", self.members[member.0].name())
            }
            Ok(news) => Ok(Some(news)),
            Err(_) => self.check_running().map(|()| None),
        }
    }

    /// Kills the tracker.
    pub fn kill_tracker(&mut self) {
        self.kill(TRACKER);
    }

    /// Kills a process.
    pub fn kill(&mut self, member: Member) {
        self.past = self.past.and(usage(&self.members[member.0]));
        self.killed.push(member);
        self.members[member.0].kill();
    }

    /// What all processes have used so far, including the killed ones.
    pub fn usage(&self) -> Usage {
        self.running().map(|(_, process)| usage(process)).fold(self.past, Usage::and)
    }

    fn take_part(&self, command: &mut Command, part: &Part) {
        command.args(["--listen", &part.listen, "--progress", "json"]);
        if let ToldBy::Tracker | ToldBy::Both(_) = part.told_by {
            command.args(["--tracker", &self.tracker]);
        }
        if let ToldBy::Both(node) | ToldBy::Ring(node) = &part.told_by {
            command.args(["--dht", node]);
        }
        if let Some(rate) = part.up {
            command.args(["--up", &rate.to_string()]);
        }
    }

    fn add(&mut self, name: &str, mut command: Command) -> anyhow::Result<Member> {
        let member = Member(self.members.len());
        let sender = self.sender.clone();
        if env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "warn");
        }
        // Ctrl-C must reach this process only, which ends the others after it has read their usage.
        command.process_group(0);
        let process = Process::spawn_with(name, command, move |line| {
            if let Ok(event) = serde_json::from_str(line) {
                // The receiver is gone while the fleet is being dropped.
                let _ = sender.send((member, event));
            }
        });
        self.members.push(process.with_context(|| format!("cannot start {name}"))?);
        Ok(member)
    }

    /// Repeats a command until it succeeds.
    fn retry(&mut self, mut command: Command) -> anyhow::Result<()> {
        command.stdin(Stdio::null()).process_group(0);
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            self.interrupt.check()?;
            self.check_running()?;
            let output = command.output().context("cannot start a command")?;
            if output.status.success() {
                return Ok(());
            }
            let stderr = String::from_utf8_lossy(&output.stderr);
            ensure!(Instant::now() < deadline, "{}", last_lines(&stderr));
            thread::sleep(RETRY);
        }
    }

    fn check_running(&mut self) -> anyhow::Result<()> {
        for (number, process) in self.members.iter_mut().enumerate() {
            if self.killed.contains(&Member(number)) {
                continue;
            }
            if let Some(status) = process.ended() {
                bail!("{} ended, {status}: {}", process.name(), last_lines(&process.stderr()));
            }
        }
        Ok(())
    }

    fn running(&self) -> impl Iterator<Item = (Member, &Process)> {
        let members = self.members.iter().enumerate();
        members
            .map(|(number, process)| (Member(number), process))
            .filter(|(member, _)| !self.killed.contains(member))
    }
}

impl Usage {
    fn and(self, other: Self) -> Self {
        Self { cpu: self.cpu + other.cpu, peak_memory: self.peak_memory.max(other.peak_memory) }
    }
}

fn usage(process: &Process) -> Usage {
    Usage {
        cpu: process.cpu_time().unwrap_or_default(),
        peak_memory: process.peak_memory().unwrap_or_default(),
    }
}

/// The last lines of a process's stderr.
pub(crate) fn last_lines(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().collect();
    lines[lines.len().saturating_sub(STDERR_LINES)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_events_are_parsed_and_other_lines_are_not() {
        let event = |line| serde_json::from_str::<Event>(line).ok();
        let completed = r#"{"event":"completed","id":"x","bytes":1,"seconds":0.5,"peers":2,
                            "wasted_bytes":3,"unix_ms":4}"#;
        assert!(matches!(event(completed), Some(Event::Completed { wasted_bytes: 3, unix_ms: 4 })));
        assert!(event(r#"{"event":"paused"}"#).is_none());
        assert!(event("listening").is_none());
    }

    #[test]
    fn a_command_in_a_namespace_runs_through_ip() {
        let command = ProcessNetwork::Namespace("a".into()).command("/bin/true");
        assert_eq!(command.get_program(), "ip");
        let arguments: Vec<_> = command.get_args().collect();
        assert_eq!(arguments, ["netns", "exec", "a", "/bin/true"]);
        assert_eq!(ProcessNetwork::Here.command("/bin/true").get_program(), "/bin/true");
    }

    #[test]
    fn the_end_of_a_long_stderr_is_shown() {
        assert_eq!(last_lines("1\n2\n3\n4\n5\n6\n"), "2; 3; 4; 5; 6");
        assert_eq!(last_lines(""), "");
    }
}
