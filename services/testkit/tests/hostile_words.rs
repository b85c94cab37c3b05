//! Terminals and logs get the text of a hostile tracker only in escaped form.

use std::process::{Command, Output};

use shoal_testkit::{
    cluster::PATIENCE,
    hostile::words::{Answers, WordyTracker, has_commands},
    process::{Process, binary, wait_for},
};

/// The command, with debug logs.
fn shoal(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary("shoal"));
    command.args(arguments).env("RUST_LOG", "debug,h2=info,hyper=info");
    command
}

fn assert_harmless(what: &str, output: &Output) {
    for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
        let text = std::str::from_utf8(bytes).expect("it is text");
        assert!(!has_commands(text), "{what}: {name}: {text:?}");
        // Such a line would look like one of ours.
        assert!(!text.lines().any(|line| line.starts_with("error: \\u{202e}")), "{what}: {text}");
    }
}

#[test]
fn lists_of_a_hostile_tracker_are_printed_without_control_characters() {
    let tracker = WordyTracker::start(Answers::Lists);
    let id = "0".repeat(64);
    for arguments in [
        &["swarms", "--tracker", &tracker.address][..],
        &["--json", "swarms", "--tracker", &tracker.address],
        &["swarm", &id, "--tracker", &tracker.address],
        &["--json", "swarm", &id, "--tracker", &tracker.address],
    ] {
        let output = shoal(arguments).output().expect("it runs");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("all is well"), "{output:?}");
        assert_harmless(&arguments.join(" "), &output);
    }
}

#[test]
fn errors_of_a_hostile_tracker_are_printed_without_control_characters() {
    let tracker = WordyTracker::start(Answers::Refusals);
    let id = "0".repeat(64);
    for arguments in [
        &["swarms", "--tracker", &tracker.address][..],
        &["swarm", &id, "--tracker", &tracker.address],
    ] {
        let output = shoal(arguments).output().expect("it runs");
        assert!(!output.status.success(), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("all is well"), "{output:?}");
        assert_harmless(&arguments.join(" "), &output);
    }
}

#[test]
fn errors_of_a_hostile_tracker_are_logged_without_control_characters() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = directory.path().to_str().expect("it is UTF-8");
    let tracker = WordyTracker::start(Answers::Refusals);
    let id = "0".repeat(64);
    let get = ["get", &id, "-o", output, "--tracker", &tracker.address, "--listen", "127.0.0.1:0"];
    let process = Process::spawn("shoal get", shoal(&get));
    wait_for("the error", PATIENCE, || process.stderr().contains("all is well").then_some(()));
    let said = process.stderr();
    assert!(!has_commands(&said), "{said:?}");
}
