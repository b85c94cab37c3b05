//! A peer as a daemon, and the commands that control it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use shoal_proto::control::v1::ContentStatus;
use shoal_testkit::{
    cluster::{Cluster, PATIENCE, assert_same},
    daemon::{Peer, arguments},
    process::{Process, binary, free_port, wait_for},
};

const MB: usize = 1_000_000;

fn text(path: &Path) -> &str {
    path.to_str().expect("the paths of tests are UTF-8")
}

fn json(peer: &Peer, arguments: &[&str]) -> Value {
    let answer = peer.answer(&[arguments, &["--json"]].concat());
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {answer}"))
}

fn tree(cluster: &Cluster) -> PathBuf {
    for n in 0..20 {
        cluster.file(&format!("source/tree/dir-{}/file-{n}", n % 3), n * 10_007, n as u64);
    }
    let tree = cluster.path().join("source/tree");
    fs::create_dir(tree.join("empty")).expect("it is created");
    tree
}

#[test]
fn a_tree_published_at_one_peer_is_fetched_by_another() {
    let cluster = Cluster::start();
    let tree = tree(&cluster);
    let publisher = cluster.peer("publisher", &[]);
    let id = publisher.publish(&tree);
    // The peer has a copy of its own.
    let moved = cluster.path().join("moved");
    fs::rename(&tree, &moved).expect("it is renamed");
    let peer = cluster.peer("peer", &[]);
    let into = cluster.path().join("copy");
    peer.answer(&["fetch", &id, "--to", text(&into)]);
    assert_same(&moved, &into);
    // An export to the same place succeeds; an export over another file is refused.
    peer.answer(&["fetch", &id, "--to", text(&into)]);
    let other = cluster.file("other", 10, 1);
    let refused = peer.shoal(&["fetch", &id, "--to", text(&other)]);
    assert_eq!(refused.status.code(), Some(1));
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains("exists already"), "{message}");
    assert_eq!(fs::metadata(&other).expect("it exists").len(), 10);
}

#[test]
fn a_file_published_in_place_is_not_copied() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 2 * MB, 2);
    let publisher = cluster.peer("publisher", &[]);
    let id = publisher.answer(&["publish", "--in-place", text(&file)]);
    assert!(!publisher.data_of(&id).exists());
    assert!(publisher.status(&id).expect("it is listed").in_place);
    let peer = cluster.peer("peer", &[]);
    peer.answer(&["fetch", &id]);
    assert_same(&file, &peer.data_of(&id));
    publisher.answer(&["rm", &id]);
    assert!(publisher.list().is_empty());
    assert!(file.exists(), "a file published in place was deleted");
}

#[test]
fn json_output_lists_contents_and_progress() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 2 * MB, 3);
    let peer = cluster.peer("peer", &[]);
    let lines = peer.answer(&["publish", text(&file), "--json"]);
    let last = lines.lines().last().expect("it prints something");
    let published: Value = serde_json::from_str(last).expect("each line is JSON");
    assert_eq!(published["event"], "published", "{lines}");
    let id = published["id"].as_str().expect("it has an id");
    assert!(published["link"].as_str().expect("a link").contains(&cluster.tracker()));

    peer.answer(&["pin", id]);
    let listed = json(&peer, &["ls"]);
    assert_eq!(listed[0]["id"], id);
    assert_eq!(listed[0]["name"], "data.bin");
    assert_eq!(listed[0]["state"], "seeding");
    assert_eq!(listed[0]["held_bytes"], 2 * MB);
    assert_eq!(listed[0]["pinned"], true);
    assert_eq!(json(&peer, &["explain", id])["cause"], "none");

    let watch = ["watch", id, "--json", "--control", &peer.control];
    let mut watch = Process::start("shoal", watch);
    assert_eq!(watch.event("progress", PATIENCE)["state"], "seeding");
    peer.answer(&["rm", id]);
    assert!(watch.wait(PATIENCE).success(), "watch fails when the content is removed");
    assert_eq!(json(&peer, &["ls"]), Value::Array(Vec::new()));
    assert!(!peer.directory_of(id).exists());
    assert_eq!(peer.shoal(&["rm", id]).status.code(), Some(3));
}

#[test]
fn the_control_api_on_a_unix_socket_survives_a_kill() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", MB, 4);
    let socket = format!("unix:{}", cluster.path().join("control.sock").display());
    let listen = format!("127.0.0.1:{}", free_port());
    let start = || {
        let arguments = arguments(&cluster.path().join("peer"), &listen, &socket);
        Process::start("shoal-peer", arguments)
    };
    let shoal = |arguments: &[&str]| {
        let mut command = Command::new(binary("shoal"));
        command.args(arguments).args(["--control", &socket]);
        let output = command.output().expect("it runs");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let mut peer = start();
    let id = wait_for("the socket", PATIENCE, || shoal(&["publish", text(&file)]));
    peer.kill();
    let _peer = start();
    let listed = wait_for("the content", PATIENCE, || {
        shoal(&["ls"]).filter(|listed| listed.contains("seeding"))
    });
    assert!(listed.contains(id.trim()), "{listed}");
}

#[test]
fn the_options_of_a_fetch_survive_a_restart() {
    let cluster = Cluster::start();
    for (seed, name) in ["unwanted", "wanted"].iter().enumerate() {
        cluster.file(&format!("source/tree/{name}"), 8 * MB, seed as u64);
    }
    let seeder = cluster.seed(&cluster.path().join("source/tree"), &["--up", "4MB/s"]);
    // It knows only the tracker that the command names.
    let mut peer = Peer::start(&cluster.path().join("peer"), &[], &[]);
    let tracker = cluster.tracker();
    let asked = ["--tracker", &tracker, "--priority", "unwanted=skip", "--detach"];
    peer.answer(&[&["fetch", &seeder.id][..], &asked].concat());
    peer.wait_until(&seeder.id, "some of it", |status| status.held_bytes > MB as u64);
    peer.kill_and_restart();
    let status = peer.wait_until_complete(&seeder.id);
    // The piece of the manifest, and those of one of the two files.
    assert_eq!(status.held_pieces, 1 + (status.piece_count - 1) / 2);
}

#[test]
fn a_killed_peer_resumes_its_download() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 16 * MB, 5);
    let mut seeder = cluster.seed(&file, &["--up", "8MB/s"]);
    let mut peer = cluster.peer("peer", &[]);
    peer.fetch(&seeder.id).expect("the fetch starts");
    let is_half = |status: &ContentStatus| status.held_bytes > 8 * MB as u64;
    peer.wait_until(&seeder.id, "half of it", is_half);
    peer.kill_and_restart();
    peer.wait_until(&seeder.id, "the bytes it had", is_half);
    peer.wait_until_complete(&seeder.id);
    assert_same(&file, &peer.data_of(&seeder.id));
    seeder.process.terminate();
    seeder.process.wait(PATIENCE);
    let last = seeder.process.last_event("progress").expect("it reports progress");
    let sent = last["uploaded_bytes"].as_u64().expect("it reports the bytes sent");
    assert!(sent < 17 * MB as u64, "{sent} bytes were sent");
}
