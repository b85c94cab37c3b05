//! What is installed: versions, manual pages, systemd units and settings.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use shoal_common::{shutdown, units::duration};
use shoal_testkit::process::{binary, run};

const BINARIES: [&str; 5] =
    ["shoal", "shoal-tracker", "shoal-peer", "shoal-dht-node", "shoal-loadgen"];
const SERVICES: [&str; 3] = ["tracker", "peer", "dht-node"];

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Runs deploy/install with a prefix in `root`.
fn install(root: &Path, what: impl AsRef<Path>) {
    let mut command = Command::new(deploy().join("install"));
    command.arg(what.as_ref()).env("PREFIX", root.join("usr")).env("SYSCONFDIR", root.join("etc"));
    succeed(command.env_remove("DESTDIR"));
}

fn unit(directory: &Path, service: &str) -> PathBuf {
    directory.join(format!("shoal-{service}.service"))
}

/// The value of a key that a unit has once.
fn value<'a>(unit: &'a str, key: &str) -> &'a str {
    let mut values = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let value = values.next().unwrap_or_else(|| panic!("{key} is missing"));
    assert_eq!(values.next(), None, "{key} is there twice");
    value
}

/// The settings that a service prints as TOML.
fn checked(service: &str, config: &Path) -> String {
    let mut command = Command::new(binary(&format!("shoal-{service}")));
    let output = succeed(command.arg("--config").arg(config).arg("--check-config"));
    String::from_utf8(output.stdout).expect("settings are text")
}

/// All files in a directory, as paths in it.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("it is a directory") {
            let entry = entry.expect("it is readable");
            if entry.file_type().expect("it exists").is_dir() {
                directories.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(root).expect("it is inside").to_owned());
            }
        }
    }
    found
}

#[test]
fn every_binary_names_its_version() {
    for name in BINARIES {
        let output = run(name, &["--version"], b"");
        let version = format!("{name} {}", shoal_common::command_line::VERSION);
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), version);
    }
}

#[test]
fn an_installation_is_complete_and_can_be_removed() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let root = root.path();
    fs::create_dir_all(root.join("etc/shoal")).expect("it is new");
    fs::write(root.join("etc/shoal/peer.toml"), "tracker = [\"t:7070\"]\n")
        .expect("it is writable");
    let shoal = binary("shoal");
    install(root, shoal.parent().expect("it is in a directory"));

    for file in [
        "bin/shoal-loadgen",
        "share/man/man1/shoal.1",
        "share/man/man1/shoal-dht-put.1",
        "share/man/man1/shoal-loadgen-kv.1",
        "share/man/man1/shoal-peer.1",
        "share/bash-completion/completions/shoal",
        "share/zsh/site-functions/_shoal",
        "share/fish/vendor_completions.d/shoal.fish",
        "lib/sysusers.d/shoal.conf",
    ] {
        assert!(!read_bytes(&root.join("usr").join(file)).is_empty(), "{file}");
    }
    for service in SERVICES {
        let path = unit(&root.join("usr/lib/systemd/system"), service);
        let text = read(&path);
        let mut words = value(&text, "ExecStart").split(' ');
        let mut command = Command::new(words.next().expect("a program"));
        succeed(command.args(words).arg("--check-config"));
        // Also missing options and unknown names are errors, where systemd is installed.
        if env::split_paths(&env::var_os("PATH").unwrap_or_default())
            .any(|directory| directory.join("systemd-analyze").exists())
        {
            let mut command = Command::new("systemd-analyze");
            let output = succeed(command.args(["verify", "--man=no"]).arg(&path));
            assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        }
    }
    assert!(checked("peer", &root.join("etc/shoal/peer.toml")).contains("t:7070"));

    install(root, "--remove");
    let mut left = files(root);
    left.sort();
    let settings = ["dht-node", "peer", "tracker"].map(|name| format!("etc/shoal/{name}.toml"));
    assert_eq!(left, settings.map(PathBuf::from));
}

fn read_bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_installed_settings_are_the_defaults_also_where_they_are_comments() {
    for service in SERVICES {
        let path = deploy().join("systemd").join(format!("{service}.toml"));
        let installed = checked(service, &path);
        let is_setting = |line: &str| line.starts_with('[') || line.contains(" = ");
        let uncommented: Vec<String> = read(&path)
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(setting) if is_setting(setting) => setting.to_owned(),
                _ => line.to_owned(),
            })
            .collect();
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(file.path(), uncommented.join("\n")).expect("it is writable");
        let explicit = checked(service, file.path());
        // A peer has no limits by default; its file shows examples of them.
        let head = |text: &str| text.split("[limits]").next().unwrap_or_default().to_owned();
        assert_eq!(head(&explicit), head(&installed), "{service}");
    }
}

#[test]
fn units_give_a_service_the_time_that_it_takes_to_stop() {
    for service in SERVICES {
        let text = read(&unit(&deploy().join("systemd"), service));
        let patience = duration::parse(value(&text, "TimeoutStopSec")).expect("a duration");
        let settings = checked(service, &deploy().join(format!("systemd/{service}.toml")));
        let leave = settings.lines().find_map(|line| line.strip_prefix("leave_patience = "));
        // A ring node ends 8 s after it stops waiting for others to take over its ranges.
        let grace = leave.map_or(shutdown::GRACE, |leave| {
            duration::parse(leave.trim_matches('"')).expect("a duration") + Duration::from_secs(8)
        });
        assert!(patience > grace, "{service}: {patience:?} is not more than {grace:?}");
    }
}
