//! The exits of containers. Each must have status 0, unless the test killed the container.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
};

use anyhow::Context as _;
use serde::Deserialize;
use shoal_common::lock::Mutex;

/// Records every exit of a project's containers since its creation.
pub struct Exits {
    listener: Child,
    ends: Arc<Mutex<Vec<End>>>,
    /// The containers killed by the test: each may have one other status.
    killed: BTreeSet<String>,
}

/// The exit of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    id: String,
    name: String,
    status: i32,
}

#[derive(Deserialize)]
struct Event {
    id: String,
    #[serde(rename = "Actor")]
    actor: Actor,
}

#[derive(Deserialize)]
struct Actor {
    #[serde(rename = "Attributes")]
    attributes: Attributes,
}

#[derive(Deserialize)]
struct Attributes {
    name: String,
    #[serde(rename = "exitCode")]
    status: String,
}

impl Exits {
    /// Starts to record the exits that Docker reports for a project.
    pub fn listen(project: &str) -> anyhow::Result<Self> {
        let label = format!("label=com.docker.compose.project={project}");
        let mut command = Command::new("docker");
        command.args(["events", "--filter", "event=die", "--filter", &label]);
        command.args(["--format", "{{json .}}"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut listener = command.spawn().context("cannot run docker events")?;
        let lines = BufReader::new(listener.stdout.take().expect("stdout is piped"));
        let ends = Arc::new(Mutex::new(Vec::new()));
        let noted = ends.clone();
        thread::spawn(move || {
            for end in lines.lines().map_while(Result::ok).filter_map(|line| End::parse(&line)) {
                noted.lock().push(end);
            }
        });
        Ok(Self { listener, ends, killed: BTreeSet::new() })
    }

    /// Expects one exit of this container with another status, since the test kills it.
    pub fn killed(&mut self, id: &str) {
        self.killed.insert(id.to_owned());
    }

    /// The number of exits so far.
    pub fn count(&self) -> usize {
        self.ends.lock().len()
    }

    /// The exits with another status than 0 without a kill by the test. They include containers
    /// that Docker killed after their grace period.
    pub fn bad(&self) -> Vec<End> {
        let mut killed = self.killed.clone();
        let ends = self.ends.lock();
        let bad = ends.iter().filter(|end| end.status != 0 && !killed.remove(&end.id));
        bad.cloned().collect()
    }
}

impl Drop for Exits {
    fn drop(&mut self) {
        // The listener may have ended together with Docker.
        let _ = self.listener.kill();
        let _ = self.listener.wait();
    }
}

impl End {
    fn parse(line: &str) -> Option<Self> {
        let Event { id, actor: Actor { attributes } } = serde_json::from_str(line).ok()?;
        Some(Self { id, name: attributes.name, status: attributes.status.parse().ok()? })
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ended with status {}", self.name, self.status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_is_parsed_from_dockers_event() {
        let line = r#"{"status":"die","id":"0a1b","from":"shoal/peer:dev","Type":"container",
            "Action":"die","Actor":{"ID":"0a1b","Attributes":{"exitCode":"137","name":"x_peer_1"}},
            "scope":"local","time":1700000000}"#;
        let end = End::parse(line).unwrap();
        assert_eq!(end.to_string(), "x_peer_1 ended with status 137");
        assert_eq!(End::parse("{}"), None);
    }
}
