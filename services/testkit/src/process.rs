//! The shipped binaries as processes. Each is killed when dropped.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsStr,
    fs,
    io::{self, BufRead, BufReader, Read, Write as _},
    net::TcpListener,
    ops::Range,
    path::PathBuf,
    process::{self, Child, Command, ExitStatus, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rand::RngExt as _;
use serde_json::Value;
use shoal_common::lock::{Condvar, Mutex};

/// Linux reports processor time to user space in hundredths of a second, on every architecture.
const MS_PER_TICK: u64 = 10;

/// Longest wait for the output streams of a process that has ended.
const PIPE_PATIENCE: Duration = Duration::from_secs(5);

/// Below Linux's ephemeral ports, so that no outgoing connection takes a port before its server.
const PORTS: Range<u16> = 10_000..32_000;

/// A port of 127.0.0.1 that was free a moment ago. No port is returned twice to this process.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock();
    loop {
        let port = rand::rng().random_range(PORTS);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && given.insert(port) {
            return port;
        }
    }
}

/// The path of a binary of this workspace, which cargo puts beside the running program.
pub fn binary(name: &str) -> PathBuf {
    let mut folder = env::current_exe().expect("this program has a path");
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace` first", path.display());
    path
}

/// Runs a binary of this workspace to its end, with `stdin` as its input.
pub fn run(name: &str, arguments: &[&str], stdin: &[u8]) -> process::Output {
    let mut command = Command::new(binary(name));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    // The write fails if the process ended without reading.
    let _ = child.stdin.take().map(|mut pipe| pipe.write_all(stdin));
    child.wait_with_output().expect("a child can be waited for")
}

/// Polls until `condition` returns a value. Panics after `patience`.
pub fn wait_for<T>(what: &str, patience: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "timed out after {patience:?} waiting for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A child process whose output is recorded. Killed when dropped.
pub struct Process {
    child: Child,
    name: String,
    output: Arc<Output>,
}

#[derive(Default)]
struct Output {
    state: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    stdout: Vec<String>,
    stdout_ended: bool,
    stderr: String,
    stderr_ended: bool,
}

impl Process {
    /// Starts a binary of this workspace.
    pub fn start(name: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let mut command = Command::new(binary(name));
        command.args(arguments);
        Self::spawn(name, command)
    }

    /// Starts any command.
    pub fn spawn(name: &str, command: Command) -> Self {
        Self::spawn_with(name, command, |_| ())
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"))
    }

    /// Starts a command, and calls `on_line` with each line of its stdout.
    pub fn spawn_with(
        name: &str,
        mut command: Command,
        mut on_line: impl FnMut(&str) + Send + 'static,
    ) -> io::Result<Self> {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let output = Arc::new(Output::default());
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut stderr = child.stderr.take().expect("stderr is piped");
        let lines = output.clone();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                on_line(&line);
                lines.update(|state| state.stdout.push(line));
            }
            lines.update(|state| state.stdout_ended = true);
        });
        let errors = output.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stderr.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                errors.update(|state| state.stderr.push_str(&text));
            }
            errors.update(|state| state.stderr_ended = true);
        });
        Ok(Self { child, name: name.to_owned(), output })
    }

    /// Starts a command with stderr to a file and stdout discarded.
    pub fn spawn_logged(name: &str, mut command: Command, log: fs::File) -> io::Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
        let output = Arc::new(Output::default());
        output.update(|state| (state.stdout_ended, state.stderr_ended) = (true, true));
        Ok(Self { child, name: name.to_owned(), output })
    }

    /// The name given at its start.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to stderr so far.
    pub fn stderr(&self) -> String {
        self.output.lock().stderr.clone()
    }

    /// The lines it has written to stdout so far.
    pub fn stdout(&self) -> Vec<String> {
        self.output.lock().stdout.clone()
    }

    /// Waits for the first JSON line on stdout with this `event`.
    pub fn event(&self, event: &str, patience: Duration) -> Value {
        let deadline = Instant::now() + patience;
        let mut state = self.output.lock();
        loop {
            let found = state
                .stdout
                .iter()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                .find(|value| value["event"] == event);
            if let Some(found) = found {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero() && !state.stdout_ended,
                "{} did not print {event:?} within {patience:?}; stdout: {:#?}; stderr: {}",
                self.name,
                state.stdout,
                state.stderr
            );
            state = self.output.changed.wait_timeout(state, left);
        }
    }

    /// The last JSON line on stdout with this `event`, if any.
    pub fn last_event(&self, event: &str) -> Option<Value> {
        let lines = self.stdout();
        let values = lines.iter().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        values.into_iter().find(|value| value["event"] == event)
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.ended().is_none()
    }

    /// Its exit status, if it has ended. By then all its output has been read.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().expect("a child can be waited for")?;
        self.output.wait_for_end();
        Some(status)
    }

    /// Sends SIGKILL and waits for its end.
    pub fn kill(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.output.wait_for_end();
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Sends SIGSTOP: it does nothing more, but its connections stay open.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Sends SIGCONT, after [`Process::pause`].
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.id().to_string();
        let status = Command::new("kill").args([signal, &id]).status().expect("kill runs");
        assert!(status.success(), "{} has already ended", self.name);
    }

    /// Waits for its end, and until all its output has been read.
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        wait_for(&format!("the end of {}", self.name.clone()), patience, || self.ended())
    }

    /// Peak resident memory in bytes (VmHWM).
    pub fn peak_memory(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
    }

    /// Processor time of all its threads.
    pub fn cpu_time(&self) -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).ok()?;
        // The program's name, in parentheses, may contain spaces, so fields are counted after it.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let mut ticks = || fields.next()?.parse::<u64>().ok();
        let (user, system) = (ticks()?, ticks()?);
        Some(Duration::from_millis((user + system) * MS_PER_TICK))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Output {
    fn lock(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.state.lock()
    }

    fn update(&self, change: impl FnOnce(&mut Lines)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits until both streams have ended, or for 5 s: a child of the process may keep them open.
    fn wait_for_end(&self) {
        let deadline = Instant::now() + PIPE_PATIENCE;
        let mut state = self.lock();
        while !(state.stdout_ended && state.stderr_ended) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.changed.wait_timeout(state, left);
        }
    }
}
