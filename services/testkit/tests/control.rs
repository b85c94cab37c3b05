//! Who can reach a peer's control API, and which paths the peer reads and writes for a caller.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use shoal_testkit::{
    cluster::{Cluster, PATIENCE, assert_same},
    process::{Process, binary, free_port, wait_for},
};

const MB: usize = 1_000_000;

fn text(path: &Path) -> &str {
    path.to_str().expect("the paths of tests are UTF-8")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A peer that a user starts in a directory of their own.
struct LocalPeer {
    process: Process,
    directory: PathBuf,
}

impl LocalPeer {
    fn start(cluster: &Cluster, name: &str, more: &[&str]) -> Self {
        let directory = cluster.path().join(name);
        fs::create_dir_all(&directory).expect("it is created");
        let mut command = Command::new(binary("shoal-peer"));
        command.args(["--listen", "127.0.0.1:0", "--admin", "off"]).args(more);
        command.args(["--tracker", &cluster.tracker()]);
        command.current_dir(&directory).env("RUST_LOG", "info");
        Self { process: Process::spawn("shoal-peer", command), directory }
    }

    /// Starts a peer and waits until its control API answers.
    fn ready(cluster: &Cluster, name: &str, more: &[&str], control: &[&str]) -> Self {
        let mut peer = Self::start(cluster, name, more);
        wait_for("the control API", PATIENCE, || {
            assert!(peer.process.is_running(), "the peer ended: {}", peer.process.stderr());
            let output = peer.shoal(&[&["ls"], control].concat());
            output.status.success().then_some(())
        });
        peer
    }

    /// The command `shoal` in the peer's directory.
    fn shoal(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary("shoal"));
        command.args(arguments).current_dir(&self.directory);
        command.env_remove("SHOAL_CONTROL").env_remove("SHOAL__DATA_DIR");
        command.output().expect("the command runs")
    }

    fn answer(&self, arguments: &[&str]) -> String {
        let output = self.shoal(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", errors(&output));
        String::from_utf8(output.stdout).expect("output is text").trim_end().to_owned()
    }

    /// The message of a command that the peer does not permit.
    fn refusal(&self, arguments: &[&str]) -> String {
        let output = self.shoal(arguments);
        assert_eq!(output.status.code(), Some(5), "{arguments:?}: {output:?}");
        errors(&output)
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("it exists").mode() & 0o777
}

#[test]
fn the_peers_own_user_reaches_it_by_default_and_may_name_any_path() {
    let cluster = Cluster::start();
    let file = cluster.file("elsewhere/data.bin", MB, 1);
    let mut peer = LocalPeer::ready(&cluster, "home", &[], &[]);
    let data_dir = peer.directory.join("shoal-data");
    assert_eq!(mode(&data_dir), 0o700);
    assert_eq!(mode(&data_dir.join("control.sock")), 0o600);
    fs::copy(&file, peer.directory.join("model.bin")).expect("it is copied");
    let copied = peer.answer(&["publish", "model.bin"]);
    peer.answer(&["rm", &copied]);
    peer.answer(&["publish", "--in-place", "model.bin"]);
    let other = cluster.file("elsewhere/other.bin", MB, 2);
    let id = peer.answer(&["publish", "--in-place", text(&other)]);
    let copy = cluster.path().join("copy.bin");
    peer.answer(&["fetch", &id, "--to", text(&copy)]);
    assert_same(&other, &copy);
    let log = peer.process.stderr();
    assert!(log.contains("a path is allowed") && log.contains("export to"), "{log}");
    peer.process.terminate();
    assert!(peer.process.wait(PATIENCE).success());
    assert!(!data_dir.join("control.sock").exists(), "the socket of a stopped peer is left");
}

#[test]
fn callers_over_tcp_may_name_no_path_of_the_peers_machine() {
    let cluster = Cluster::start();
    let address = format!("127.0.0.1:{}", free_port());
    let control = ["--control", &address];
    let peer = LocalPeer::ready(&cluster, "peer", &control, &control);
    wait_for("a warning", PATIENCE, || {
        let log = peer.process.stderr();
        (log.contains("WARN") && log.contains("it rules this peer")).then_some(())
    });
    assert!(!peer.directory.join("shoal-data/control.sock").exists());

    let secret = cluster.file("secret", MB, 1);
    let said = peer.refusal(&[&["publish", "--in-place", text(&secret)], &control[..]].concat());
    for words in [text(&secret), "publish_roots", "over TCP (127.0.0.1:", "without --in-place"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    // The command uploads a file that the caller can read itself.
    let id = peer.answer(&[&["publish", text(&secret)], &control[..]].concat());
    let cron = cluster.path().join("cron.d");
    fs::create_dir(&cron).expect("it is created");
    let task = cron.join("task");
    let said = peer.refusal(&[&["fetch", &id, "--to", text(&task)], &control[..]].concat());
    for words in [text(&task), "export_roots", "without --to"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(fs::read_dir(&cron).expect("it exists").next().is_none());
}

#[test]
fn callers_may_name_paths_below_the_roots_only() {
    let cluster = Cluster::start();
    let model = cluster.file("models/model.bin", MB, 1);
    let secret = cluster.file("secret", MB, 2);
    let (models, export) = (cluster.path().join("models"), cluster.path().join("above/export"));
    symlink(&secret, models.join("link")).expect("it is created");
    symlink("..", models.join("up")).expect("it is created");
    let address = format!("127.0.0.1:{}", free_port());
    let roots = ["--publish-root", text(&models), "--export-root", text(&export)];
    for (name, control) in [("over-tcp", &["--control", &address][..]), ("over-unix", &[])] {
        let peer = LocalPeer::ready(&cluster, name, &[control, &roots].concat(), control);
        let shoal = |arguments: &[&str]| peer.answer(&[arguments, control].concat());
        let refusal = |arguments: &[&str]| peer.refusal(&[arguments, control].concat());
        let id = shoal(&["publish", "--in-place", text(&model)]);
        let copy = export.join(name);
        shoal(&["fetch", &id, "--to", text(&copy)]);
        assert_same(&model, &copy);

        let around = models.join("../secret");
        for path in [&models.join("link"), &models.join("up/secret"), &around, &models] {
            let said = refusal(&["publish", "--in-place", text(path)]);
            assert!(said.contains("leads out of") && said.contains(text(&models)), "{said}");
        }
        let said = refusal(&["publish", "--in-place", text(&secret)]);
        assert!(said.contains("in no directory of publish_roots ("), "{said}");
        assert!(said.contains(text(&models)), "{said}");
        let way_out = export.join("way-out");
        fs::remove_file(&way_out).ok();
        symlink("..", &way_out).expect("it is created");
        for path in [way_out.join("copy"), export.join("../copy")] {
            let said = refusal(&["fetch", &id, "--to", text(&path)]);
            assert!(said.contains("leads out of"), "{said}");
        }
        let said = refusal(&["fetch", &id, "--to", text(&models.join("copy"))]);
        assert!(said.contains("in no directory of export_roots ("), "{said}");
        let above = fs::read_dir(cluster.path().join("above")).expect("it exists");
        assert_eq!(above.count(), 1, "something was written beside the root");
    }
}

#[test]
fn a_relative_root_is_refused() {
    let cluster = Cluster::start();
    let mut peer = LocalPeer::start(&cluster, "peer", &["--publish-root", "models"]);
    assert!(!peer.process.wait(PATIENCE).success());
    wait_for("the reason", PATIENCE, || {
        peer.process.stderr().contains("is not an absolute path; begin it with /").then_some(())
    });
}

#[test]
fn a_live_socket_is_not_replaced_and_a_stale_one_is() {
    let cluster = Cluster::start();
    let socket = format!("unix:{}", cluster.path().join("shared.sock").display());
    let control = ["--control", &socket];
    let mut first = LocalPeer::ready(&cluster, "first", &control, &control);
    let mut second = LocalPeer::start(&cluster, "second", &control);
    assert_eq!(second.process.wait(PATIENCE).code(), Some(1));
    wait_for("the reason", PATIENCE, || {
        second.process.stderr().contains("another process listens there").then_some(())
    });
    first.answer(&[&["ls"], &control[..]].concat());
    first.process.kill();
    assert!(cluster.path().join("shared.sock").exists());
    let third = LocalPeer::ready(&cluster, "second", &control, &control);
    assert_eq!(mode(&cluster.path().join("shared.sock")), 0o600);
    drop(third);
}

#[test]
fn a_too_long_data_directory_path_is_refused_with_advice() {
    let cluster = Cluster::start();
    let long = cluster.path().join("d".repeat(120));
    let mut peer = LocalPeer::start(&cluster, "peer", &["--data-dir", text(&long)]);
    assert_eq!(peer.process.wait(PATIENCE).code(), Some(1));
    wait_for("the reason", PATIENCE, || {
        let said = peer.process.stderr();
        let words = ["control.sock", "and the system takes 107", "--control unix:PATH"];
        words.iter().all(|word| said.contains(word)).then_some(())
    });
    let short = format!("unix:{}", cluster.path().join("short.sock").display());
    let control = ["--control", &short];
    LocalPeer::ready(&cluster, "peer", &["--data-dir", text(&long), "--control", &short], &control);
}

#[test]
fn a_seeded_path_replaced_by_a_symbolic_link_is_not_served() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", MB, 1);
    let secret = cluster.file("secret", MB, 2);
    // Someone who may write to the file can give it the secret's size and time.
    let modified = fs::metadata(&secret)
        .and_then(|found| found.modified())
        .expect("it has a modification time");
    let open = fs::File::options().write(true).open(&file).expect("it exists");
    open.set_modified(modified).expect("its time can be set");
    let seeder = cluster.seed(&file, &[]);
    fs::remove_file(&file).expect("it can be removed");
    symlink(&secret, &file).expect("it is created");
    let getter = cluster.get(&seeder.id, "peer", &[]);
    wait_for("the reason", PATIENCE, || {
        let said = seeder.process.stderr();
        assert!(getter.process.last_event("completed").is_none());
        said.contains("changed after shoal hashed it").then_some(())
    });
    let progress = getter.process.last_event("progress");
    let received = progress.map_or(0, |event| {
        event["downloaded_bytes"].as_u64().unwrap_or(0)
            + event["wasted_bytes"].as_u64().unwrap_or(0)
    });
    assert_eq!(received, 0, "bytes of the secret were sent");
}
