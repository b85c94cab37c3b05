//! A shell that runs commands one after another, as a reader of the documentation does.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use shoal_testkit::process::{binary, run, wait_for};
use tempfile::TempDir;

/// Longest wait for a command, or for a service to be ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// A bash in an empty directory, with the binaries of the workspace in its `PATH`.
pub(crate) struct Shell {
    bash: Child,
    stdin: ChildStdin,
    statuses: Receiver<String>,
    directory: TempDir,
    /// Outside of the directory that commands see.
    output: TempDir,
}

/// What came of a command.
pub(crate) struct Outcome {
    pub(crate) status: i32,
    /// From stdout and stderr.
    pub(crate) output: String,
}

impl Shell {
    pub(crate) fn start() -> Self {
        let directory = TempDir::new().expect("a directory is created");
        let binaries = binary("shoal").parent().expect("a file has a parent").to_owned();
        let path = env::var_os("PATH").expect("there is a PATH");
        let path = env::join_paths([binaries].into_iter().chain(env::split_paths(&path)));
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc"]).current_dir(directory.path());
        for (name, _) in env::vars_os() {
            if ["SHOAL", "OTEL", "RUST_LOG"]
                .iter()
                .any(|ours| name.to_string_lossy().starts_with(ours))
            {
                command.env_remove(name);
            }
        }
        command.env("PATH", path.expect("it was split before"));
        // Its background processes are in its group, which ends with it.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut bash = command.spawn().expect("bash runs");
        let stdin = bash.stdin.take().expect("it is piped");
        let stdout = BufReader::new(bash.stdout.take().expect("it is piped"));
        let (sender, statuses) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let output = TempDir::new().expect("a directory is created");
        Self { bash, stdin, statuses, directory, output }
    }

    /// Runs a command to its end. One in the background runs on; this returns when it is ready.
    pub(crate) fn run(&mut self, command: &str) -> Outcome {
        let path = self.output.path().join("output");
        let script = format!(
            "{{ {command}\n}} < /dev/null > {} 2>&1; echo $?\n",
            path.to_str().expect("the paths of tests are UTF-8")
        );
        self.stdin.write_all(script.as_bytes()).expect("bash reads");
        let status = self.statuses.recv_timeout(PATIENCE);
        let status = status.unwrap_or_else(|error| panic!("no status of {command:?}: {error}"));
        if let Some(background) = command.strip_suffix('&') {
            self.wait_until_ready(background);
        }
        let output = fs::read_to_string(path).expect("the output is text");
        let output: String = output.split_inclusive('\n').filter(|line| !is_notice(line)).collect();
        Outcome { status: status.parse().expect("a status is a number"), output }
    }

    /// A service is ready when its health check says so; another command when it has written to
    /// all files that its output goes to.
    fn wait_until_ready(&self, command: &str) {
        let words: Vec<&str> = command.split_whitespace().collect();
        let after =
            |flag: &str| words.iter().position(|word| *word == flag).map(|at| words[at + 1]);
        let what = format!("{command:?} to be ready");
        if let Some(address) = after("--listen") {
            wait_for(&what, PATIENCE, || {
                TcpStream::connect(address).ok()?;
                let health = run(words[0], &["health", "--listen", address], b"");
                health.status.success().then_some(())
            });
            return;
        }
        let files: Vec<PathBuf> = [">", "2>"]
            .iter()
            .filter_map(|redirection| after(redirection))
            .map(|name| self.directory.path().join(name))
            .collect();
        assert!(!files.is_empty(), "nothing tells when {command:?} is ready");
        let has_line = |path: &PathBuf| fs::read(path).is_ok_and(|text| text.ends_with(b"\n"));
        wait_for(&what, PATIENCE, || files.iter().all(has_line).then_some(()));
    }

    /// What the services and other background commands wrote, for whoever reads why a test failed.
    pub(crate) fn logs(&self) -> String {
        let entries = fs::read_dir(self.directory.path()).expect("it is a directory");
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let is_log = |path: &Path| path.extension().is_some_and(|ending| ending == "log");
        let mut paths: Vec<_> = paths.filter(|path| is_log(path)).collect();
        paths.sort();
        let logs = paths.iter().map(|path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            format!("{}:\n{text}", path.display())
        });
        logs.collect()
    }
}

/// Bash reports a job that a signal ended, at some time after that.
fn is_notice(line: &str) -> bool {
    line.starts_with("bash: line ")
        && [" Killed ", " Terminated "].iter().any(|end| line.contains(end))
}

impl Drop for Shell {
    fn drop(&mut self) {
        let group = i32::try_from(self.bash.id()).ok().and_then(Pid::from_raw);
        // It may have ended by itself.
        let _ = group.map(|group| kill_process_group(group, Signal::KILL));
        let _ = self.bash.wait();
    }
}
