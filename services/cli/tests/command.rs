//! The command `shoal`, as people and scripts use it.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

fn shoal(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_shoal"))
        .args(arguments)
        .env_remove("SHOAL_CONTROL")
        .env_remove("SHOAL__DATA_DIR")
        .env_remove("SHOAL_DHT")
        .env_remove("RUST_LOG")
        .output()
        .expect("the binary runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("output is text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("output is text")
}

/// The stdout of a command that succeeds.
fn answer(arguments: &[&str]) -> String {
    let output = shoal(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    stdout(&output)
}

/// The exit status and the stderr of a command that fails.
fn failure(arguments: &[&str]) -> (i32, String) {
    let output = shoal(arguments);
    (output.status.code().expect("no signal ended it"), stderr(&output))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// An address at which no process listens.
fn closed_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it is bound").to_string()
}

fn id() -> String {
    "0".repeat(64)
}

const COMMANDS: [&str; 15] = [
    "seed",
    "get",
    "publish",
    "fetch",
    "ls",
    "rm",
    "pin",
    "watch",
    "explain",
    "swarm",
    "name",
    "dht",
    "hash",
    "bound",
    "completions",
];

#[test]
fn help_lists_every_command_with_examples_and_exit_status() {
    let help = answer(&["--help"]);
    for command in COMMANDS {
        assert!(help.lines().any(|line| line.trim_start().starts_with(command)), "{command}");
        assert!(answer(&[command, "--help"]).contains("Usage: shoal "), "{command}");
    }
    for part in
        ["Examples:", "Exit status:", "4 a service cannot be reached", "SHOAL_CONTROL", "SHOAL_DHT"]
    {
        assert!(help.contains(part), "{part}");
    }
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = answer(&["completions", shell]);
        assert!(COMMANDS.iter().all(|command| script.contains(command)), "{shell}");
    }
}

#[test]
fn wrong_usage_is_explained_and_exits_with_2() {
    for (arguments, explanation) in [
        (&["ls", "--control", "7073"][..], "write HOST:PORT"),
        (&["rm", "xyz"], "a content id is 64 lower-case hex digits"),
        (&["get", "shoal:xyz"], "a link looks like shoal:ID"),
        (&["get", &id()], "give --tracker HOST:PORT"),
        (&["swarm", &id()], "give --tracker HOST:PORT"),
        (&["get", &id()], "or --dht HOST:PORT"),
        (&["get", "llama-3", "--tracker", "t:1"], "names are looked up in the ring; give --dht"),
        (&["get", &id()[1..], "--dht", "t:1"], "64 lower-case hex digits"),
        (&["get", "a b", "--dht", "t:1"], "is not a name"),
        (&["name", "set", &id(), &id()], "is not a name"),
        (&["name", "set", "llama-3", "llama-4"], "64 lower-case hex digits"),
        (&["dht", "put", "k", "v", "--if-absent", "--if-version", "1"], "cannot be used with"),
        (&["dht", "get", "k", "--dht", "7071"], "write HOST:PORT"),
        (&["dht"], "Usage: shoal dht"),
        (&["get", &id(), "--tracker", "t:1", "--priority", "a=skip"], "shoal fetch can skip"),
        (&["get", &id(), "--seed=soon"], "not a duration"),
        (&["fetch", &id(), "--priority", "a"], "PATH=high"),
        (
            &["bound", "--us", "5M", "--ui", "1mbit", "-n", "1", "--size", "1MB"],
            "not a unit of rate",
        ),
        (
            &["bound", "--us", "5mbit", "--ui", "1mbit", "-n", "9..2", "--size", "1MB"],
            "ends before",
        ),
        (&["fly"], "unrecognized subcommand"),
        (&[], "Usage: shoal"),
    ] {
        let (status, said) = failure(arguments);
        assert_eq!(status, 2, "{arguments:?}: {said}");
        assert!(said.to_lowercase().contains(&explanation.to_lowercase()), "{arguments:?}: {said}");
    }
}

#[test]
fn a_missing_path_exits_with_3() {
    let here = tempfile::tempdir().unwrap();
    let missing = here.path().join("missing");
    let (status, said) = failure(&["hash", text(&missing)]);
    assert_eq!(status, 3, "{said}");
    assert!(said.starts_with("error: cannot look at") && said.contains("missing"), "{said}");

    let (status, said) =
        failure(&["get", &id(), "--tracker", "t:1", "-o", text(&missing.join("file"))]);
    assert_eq!(status, 3, "{said}");
    assert!(said.contains("does not exist; create it"), "{said}");
}

#[test]
fn a_service_that_cannot_be_reached_exits_with_4() {
    let (port, id) = (closed_port(), id());
    for arguments in [
        &["ls", "--control", &port][..],
        &["ls", "--control", "unix:/nonexistent/shoal.sock"],
        &["explain", &id, "--control", &port],
        &["swarm", &id, "--tracker", &port],
    ] {
        let (status, said) = failure(arguments);
        assert_eq!(status, 4, "{arguments:?}: {said}");
        assert!(said.contains("cannot connect to"), "{arguments:?}: {said}");
    }
    for arguments in [
        &["dht", "put", "key", "value"][..],
        &["dht", "get", "key"],
        &["dht", "rm", "key"],
        &["dht", "lookup", "key"],
        &["dht", "ring"],
        &["name", "set", "llama-3", &id],
        &["name", "get", "llama-3"],
        &["name", "rm", "llama-3"],
        &["get", "llama-3"],
        &["swarm", &id],
    ] {
        let (status, said) = failure(&[arguments, &["--dht", &port]].concat());
        assert_eq!(status, 4, "{arguments:?}: {said}");
        assert!(said.contains("no node of the ring answers"), "{arguments:?}: {said}");
        assert!(said.contains(&port) && said.contains("refused"), "{arguments:?}: {said}");
    }
}

/// Runs the command in a directory, without an address of a peer.
fn shoal_in(directory: &Path, data_dir: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal"));
    command.args(arguments).current_dir(directory);
    command.env_remove("SHOAL_CONTROL").env("SHOAL__DATA_DIR", data_dir);
    let output = command.output().expect("the binary runs");
    (output.status.code().expect("no signal ended it"), stderr(&output))
}

#[test]
fn without_a_peer_the_error_lists_the_sockets_that_were_tried() {
    let here = tempfile::tempdir().unwrap();
    let named = here.path().join("named");
    let (status, said) = shoal_in(here.path(), &named, &["ls"]);
    assert_eq!(status, 4, "{said}");
    let socket = named.join("control.sock");
    for place in [text(&socket), " shoal-data/control.sock", "/var/lib/shoal/control.sock"] {
        assert!(said.contains(&format!("{} (", place.trim())), "{place}: {said}");
    }
    assert!(said.contains("No such file") && said.contains("--control"), "{said}");
    // A peer that was killed leaves its socket.
    std::fs::create_dir(&named).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let (_, said) = shoal_in(here.path(), &named, &["ls"]);
    assert!(said.contains("refused"), "{said}");
}

#[test]
fn a_socket_in_another_users_directory_is_not_trusted() {
    let here = tempfile::tempdir().unwrap();
    let trap = here.path().join("shoal-data");
    fs::create_dir(&trap).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(trap.join("control.sock")).unwrap();
    listener.set_nonblocking(true).unwrap();
    // Only root may give a directory to another user.
    if std::os::unix::fs::chown(&trap, Some(12_345), None).is_err() {
        return;
    }
    let (status, said) = shoal_in(here.path(), &here.path().join("named"), &["ls"]);
    assert_eq!(status, 4, "{said}");
    assert!(said.contains("shoal-data belongs to user 12345"), "{said}");
    assert!(listener.accept().is_err(), "nobody connected");
}

#[test]
fn an_error_is_a_json_event_too() {
    let output = shoal(&["fetch", &id(), "--progress", "json", "--control", &closed_port()]);
    let event: Value = serde_json::from_str(stdout(&output).trim()).unwrap();
    assert_eq!(event["event"], "error");
    assert_eq!(event["exit"], "unreachable");
    assert!(event["message"].as_str().unwrap().contains("cannot connect to"));
    assert!(event["unix_ms"].is_u64());
    assert!(stderr(&output).starts_with("error: "));
}

#[test]
fn the_hash_of_a_file_is_what_b3sum_prints() {
    let here = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..700_000_u32).map(|i| (i % 251) as u8).collect();
    let file = here.path().join("data.bin");
    fs::write(&file, &bytes).unwrap();
    let printed = answer(&["hash", text(&file)]);
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!(lines[0].len(), 64);
    assert_eq!(lines[1..], [format!("{}  {}", blake3::hash(&bytes), file.display())]);

    let json: Value = serde_json::from_str(&answer(&["hash", "--json", text(&file)])).unwrap();
    assert_eq!(json["id"], lines[0]);
    assert_eq!(json["files"][0]["blake3"], blake3::hash(&bytes).to_string());
    assert_eq!(json["bytes"], 700_000);
}

#[test]
fn the_hash_of_a_directory_names_each_file() {
    let here = tempfile::tempdir().unwrap();
    fs::create_dir(here.path().join("sub")).unwrap();
    for (path, bytes) in [("b", "two"), ("sub/a", "one")] {
        fs::write(here.path().join(path), bytes).unwrap();
    }
    let printed = answer(&["hash", text(here.path())]);
    let expected = [("b", "two"), ("sub/a", "one")].map(|(path, bytes)| {
        format!("{}  {}", blake3::hash(bytes.as_bytes()), here.path().join(path).display())
    });
    assert_eq!(printed.lines().skip(1).collect::<Vec<_>>(), expected);
}

#[test]
fn bound_prints_the_textbooks_times() {
    let links = ["bound", "--us", "200mbit", "--ui", "20mbit", "--di", "400mbit", "--size", "50MB"];
    let printed = answer(&[&links[..], &["-n", "30"]].concat());
    assert!(printed.contains("client-server     60.00 s   N*F/us"), "{printed}");
    assert!(printed.contains("P2P               15.00 s   N*F/(us + sum ui)"), "{printed}");

    let json = answer(&[&links[..], &["-n", "1..30", "--json"]].concat());
    let points: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(points.as_array().unwrap().len(), 30);
    assert_eq!(points[29]["client_server"]["seconds"], 60.0);
    assert_eq!(points[29]["p2p"]["seconds"], 15.0);
    assert_eq!(points[29]["p2p"]["term"], "N*F/(us + sum ui)");
}

#[test]
fn bound_draws_the_figure() {
    let here = tempfile::tempdir().unwrap();
    let file = here.path().join("figure.svg");
    let links = ["bound", "--us", "200mbit", "--ui", "20mbit", "--size", "50MB"];
    answer(&[&links[..], &["-n", "1..50", "--plot", text(&file)]].concat());
    let svg = fs::read_to_string(&file).unwrap();
    assert!(svg.starts_with("<svg ") && svg.contains("Client-server") && svg.contains("P2P"));

    let (status, said) = failure(&[&links[..], &["-n", "5", "--plot", text(&file)]].concat());
    assert_eq!(status, 2);
    assert!(said.contains("a range of N"), "{said}");
    let unwritable = here.path().join("missing/figure.svg");
    let (status, said) =
        failure(&[&links[..], &["-n", "1..5", "--plot", text(&unwritable)]].concat());
    assert_eq!(status, 3);
    assert!(said.contains("cannot write"), "{said}");
}
