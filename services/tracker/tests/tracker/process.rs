//! The binary: settings, signals, exit codes.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// Longer than anything here takes unless it hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
const ANY_PORT: &str = "127.0.0.1:0";

pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal-tracker"));
    command.args(args).env_remove("RUST_LOG");
    command
}

fn output(command: &mut Command) -> Output {
    command.output().expect("it runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A tracker that is killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: String,
    pub(crate) admin: String,
}

impl Process {
    /// Starts a tracker on free ports, and waits until it logs them.
    pub(crate) fn start(command: &mut Command) -> Self {
        command.args(["--listen", ANY_PORT, "--admin", ANY_PORT, "--log-format", "json"]);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("it runs");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let line = lines.next().expect("it logs that it started").expect("it logs text");
        let log: serde_json::Value = serde_json::from_str(&line).expect("it logs JSON");
        let logged = |field: &str| log["fields"][field].as_str().expect("an address").to_owned();
        let (address, admin) = (logged("listen"), logged("admin"));
        // The rest of the log is read too, so that the tracker never waits for a reader.
        thread::spawn(move || lines.for_each(drop));
        Self { child, address, admin }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    pub(crate) fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(Instant::now() < deadline, "it did not end in time");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_tracker_ends_with_exit_code_0_on_either_signal() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut tracker = Process::start(&mut command(&[]));
        tracker.signal(signal);
        assert_eq!(tracker.ended().code(), Some(0), "{signal:?}");
    }
}

#[test]
fn the_health_command_fails_without_a_tracker() {
    let mut tracker = Process::start(&mut command(&[]));
    let address = tracker.address.clone();
    let health = ["health", "--listen", &address];
    let healthy = output(&mut command(&health));
    assert_eq!(healthy.status.code(), Some(0), "{}", stderr(&healthy));
    tracker.signal(Signal::TERM);
    tracker.ended();
    let gone = output(&mut command(&health));
    assert_eq!(gone.status.code(), Some(1));
    assert!(stderr(&gone).contains(&format!("cannot connect to {address}")));
}

#[test]
fn an_error_names_the_port_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it is bound").to_string();
    for args in
        [["--listen", &address, "--admin", "off"], ["--listen", "127.0.0.1:0", "--admin", &address]]
    {
        let output = output(&mut command(&args));
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(&format!("cannot listen on {address}")), "{output:?}");
    }
}

#[test]
fn all_mistakes_in_the_settings_are_reported_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("tracker.toml");
    fs::write(&file, "interval = 30\nlimit = 1\n").expect("it is writable");
    let mut command = command(&["--listen", "nowhere", "--config"]);
    command.arg(&file).env("SHOAL__LIMITS__SWARM", "7").env("SHOAL__NEAR_PERCENT", "101");
    let output = output(&mut command);
    assert_eq!(output.status.code(), Some(64));
    let message = stderr(&output);
    for part in [
        "tracker.toml: interval: \"30\" is not a duration",
        "tracker.toml: limit: there is no such setting",
        "SHOAL__LIMITS__SWARM: there is no such setting",
        "SHOAL__NEAR_PERCENT: 101 is not a percentage",
        "--listen: \"nowhere\" has no port",
    ] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
}

#[test]
fn check_config_prints_settings_that_load_again() {
    let mut first = command(&["--check-config", "--interval", "45s", "--admin", "off"]);
    let first = output(first.env("SHOAL__LIMITS__SWARMS", "7"));
    assert_eq!(first.status.code(), Some(0), "{}", stderr(&first));
    let printed = String::from_utf8_lossy(&first.stdout).into_owned();
    for line in ["interval = \"45s\"", "admin = \"off\"", "swarms = 7"] {
        assert!(printed.lines().any(|printed| printed == line), "{line} is not in {printed}");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("tracker.toml");
    fs::write(&file, &printed).expect("it is writable");
    let again = output(command(&["--check-config", "--config"]).arg(&file));
    assert_eq!(String::from_utf8_lossy(&again.stdout), printed);
}

#[test]
fn help_shows_the_actual_defaults() {
    let help = output(&mut command(&["--help"]));
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    // Long lines are wrapped.
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let settings = output(&mut command(&["--check-config"]));
    let settings = String::from_utf8_lossy(&settings.stdout).into_owned();
    let defaults: Vec<_> = help.split("[default: ").skip(1).collect();
    assert_eq!(defaults.len(), 11);
    for default in defaults {
        let (default, _) = default.split_once(']').expect("it ends");
        let written = [format!("= {default}\n"), format!("= \"{default}\"\n")];
        assert!(written.iter().any(|line| settings.contains(line)), "{default}: {settings}");
    }
}
