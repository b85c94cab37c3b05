//! Faults of the environment, and the messages that users get.

use std::{
    ffi::OsStr,
    fs,
    io::{Seek as _, SeekFrom, Write as _},
    net::TcpListener,
    path::Path,
    process::Command,
    time::Duration,
};

use serde_json::Value;
use shoal_proto::{
    control::v1::ContentState,
    peer::v1::{
        ExchangeRequest, GetBitfieldRequest, Hello, LinkMessage, link_message::Kind,
        peer_service_client::PeerServiceClient,
    },
};
use shoal_testkit::{
    cluster::{Cluster, PATIENCE, assert_same},
    daemon::arguments,
    process::{Process, binary, wait_for},
    small_disk::SmallDisk,
};
use tokio::runtime::Runtime;
use tonic::{Code, body::Body, transport::Channel};
use tower::ServiceExt as _;

const MB: usize = 1_000_000;

/// A peer at full speed uses less memory.
const MAX_MEMORY: u64 = 128 << 20;

/// Peers announce themselves every 30 s.
const LESS_THAN_AN_INTERVAL: Duration = Duration::from_secs(10);

fn text(path: &Path) -> &str {
    path.to_str().expect("the paths of tests are UTF-8")
}

/// Waits until a process has printed this on stderr.
fn wait_for_words(process: &Process, words: &str) {
    wait_for(words, PATIENCE, || process.stderr().contains(words).then_some(()));
}

/// Runs a command that fails and prints all of these words. Returns its exit status.
fn failure(program: &str, arguments: &[impl AsRef<OsStr>], words: &[&str]) -> Option<i32> {
    let mut process = Process::start(program, arguments);
    let status = process.wait(PATIENCE);
    for words in words {
        wait_for_words(&process, words);
    }
    status.code()
}

/// The JSON that the command `shoal` prints, if it succeeds.
fn json(arguments: &[&str]) -> Option<Value> {
    let output = Command::new(binary("shoal")).args(arguments).output().expect("it runs");
    serde_json::from_slice(&output.stdout).ok()
}

/// `shoal get` into a directory, with progress as text.
fn get(id: &str, directory: &Path, tracker: &str) -> Process {
    fs::create_dir_all(directory).expect("the directory is created");
    let to = ["-o", text(directory), "--tracker", tracker];
    let how = ["--listen", "127.0.0.1:0", "--progress", "plain"];
    Process::start("shoal", [&["get", id][..], &to, &how].concat())
}

#[test]
fn a_get_of_an_unknown_id_waits_and_says_so() {
    let cluster = Cluster::start();
    let id = "ab".repeat(32);
    let mut getter = get(&id, &cluster.path().join("peer"), &cluster.tracker());
    wait_for_words(&getter, "know no other peer of this content; is its publisher running?");
    assert!(getter.is_running());
}

#[test]
fn a_malformed_id_is_refused() {
    let get = ["get", "abc", "--tracker", "127.0.0.1:1"];
    assert_eq!(failure("shoal", &get, &["abc", "64"]), Some(2));
}

#[test]
fn a_get_waits_for_an_unreachable_tracker_and_says_so() {
    let mut cluster = Cluster::start();
    cluster.kill_tracker();
    let file = cluster.file("source/data.bin", MB, 1);
    let seeder = cluster.seed(&file, &[]);
    let directory = cluster.path().join("peer");
    let mut getter = get(&seeder.id, &directory, &cluster.tracker());
    wait_for_words(&getter, "no tracker answers");
    cluster.restart_tracker();
    assert!(getter.wait(PATIENCE).success(), "{}", getter.stderr());
    assert_same(&file, &directory.join("data.bin"));
}

#[test]
fn a_full_disk_stops_one_download_only_until_there_is_room() {
    let cluster = Cluster::start();
    let (big, other) =
        (cluster.file("source/big.bin", 8 * MB, 6), cluster.file("source/other.bin", 4 * MB, 7));
    let seeders = [&big, &other].map(|file| cluster.seed(file, &["--up", "4MB/s"]));
    let [id, other_id] = seeders.each_ref().map(|seeder| seeder.id.clone());
    let peer = cluster.peer("peer", &[]);
    let directory = peer.directory_of(&id);
    let Some(disk) = SmallDisk::mount(&directory, 4 << 20) else { return };
    peer.fetch(&other_id).expect("the fetch starts");
    let failed = peer.shoal(&["fetch", &id]);
    assert_eq!(failed.status.code(), Some(5), "{failed:?}");
    let status = peer.status(&id).expect("it is listed");
    assert_eq!(status.state(), ContentState::Failed);
    assert!(status.error.contains("no space is left"), "{}", status.error);
    peer.wait_until_complete(&other_id);
    assert!(fs::read(peer.data_of(&other_id)).unwrap() == fs::read(&other).unwrap());

    disk.resize(20 << 20);
    let copy = cluster.path().join("copy.bin");
    peer.answer(&["fetch", &id, "--to", copy.to_str().expect("UTF-8")]);
    assert!(fs::read(&copy).unwrap() == fs::read(&big).unwrap());
    let fetched = peer.status(&id).expect("it is listed").downloaded_bytes;
    assert!(
        fetched > 0 && fetched < 5 * MB as u64,
        "{fetched} bytes were fetched: the download started over"
    );
}

#[test]
fn a_download_without_a_daemon_that_does_not_fit_is_refused_before_it_begins() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 8 * MB, 12);
    let seeder = cluster.seed(&file, &[]);
    let place = cluster.path().join("disk");
    let Some(disk) = SmallDisk::mount(&place, 4 << 20) else { return };
    let tracker = cluster.tracker();
    let get = ["get", &seeder.id, "-o", text(&place), "--tracker", &tracker];
    let words = ["bytes do not fit on the file system of", "4194304"];
    assert_eq!(failure("shoal", &get, &words), Some(5));
    assert!(fs::read_dir(&place).expect("it is there").next().is_none(), "something is left");
    disk.resize(20 << 20);
    let getter = cluster.get(&seeder.id, "disk", &[]);
    getter.completed();
    assert_same(&file, &place.join("data.bin"));
}

#[test]
fn of_two_fetches_that_do_not_fit_together_one_completes_and_one_is_refused_at_once() {
    let cluster = Cluster::start();
    let files = [("a", 13), ("b", 14)]
        .map(|(name, seed)| cluster.file(&format!("source/{name}"), 8 * MB, seed));
    let place = cluster.path().join("peer");
    let Some(disk) = SmallDisk::mount(&place, 14 << 20) else { return };
    // So slow that the first is far from complete when the second is requested.
    let seeders = files.each_ref().map(|file| cluster.seed(file, &["--up", "2MB/s"]));
    let mut peer = cluster.peer("peer", &[]);
    peer.fetch(&seeders[0].id).expect("the fetch starts");
    wait_for("the first piece", PATIENCE, || {
        peer.status(&seeders[0].id).filter(|status| status.held_bytes > 0)
    });
    let refused = peer.shoal(&["fetch", &seeders[1].id]);
    assert_eq!(refused.status.code(), Some(5), "{refused:?}");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("bytes do not fit on the file system of"), "{said}");
    let first = peer.status(&seeders[0].id).expect("it is listed");
    assert_eq!(first.state(), ContentState::Downloading, "the refusal came late");
    peer.wait_until_complete(&seeders[0].id);
    assert!(fs::read(peer.data_of(&seeders[0].id)).unwrap() == fs::read(&files[0]).unwrap());
    peer.process.kill();
    drop(disk);
}

#[test]
fn downloads_begin_as_soon_as_the_publisher_starts() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", MB, 11);
    let tracker = cluster.tracker();
    let hash = json(&["hash", text(&file), "--json"]).expect("it hashes");
    let id = hash["id"].as_str().expect("it has an id").to_owned();
    let getters = ["one", "other"].map(|name| cluster.get(&id, name, &[]));
    wait_for("both downloads at the tracker", PATIENCE, || {
        let swarm = json(&["swarm", &id, "--tracker", &tracker, "--json"])?;
        (swarm["incomplete_count"] == 2).then_some(())
    });
    let _seeder = cluster.seed(&file, &[]);
    for getter in &getters {
        getter.process.event("completed", LESS_THAN_AN_INTERVAL);
        assert_same(&file, &getter.directory.join("data.bin"));
    }
}

#[test]
fn a_read_only_destination_is_reported() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", MB, 8);
    let seeder = cluster.seed(&file, &[]);
    let place = cluster.path().join("disk");
    let Some(disk) = SmallDisk::mount(&place, 8 << 20) else { return };
    disk.make_read_only();
    let (tracker, words) = (cluster.tracker(), [text(&place), "Read-only"]);
    let get = ["get", &seeder.id, "-o", text(&place), "--tracker", &tracker];
    assert_eq!(failure("shoal", &get, &words), Some(5));

    let peer = cluster.peer("peer", &[]);
    let copy = place.join("copy");
    let refused = peer.shoal(&["fetch", &seeder.id, "--to", text(&copy)]);
    assert_eq!(refused.status.code(), Some(5), "{refused:?}");

    let anywhere = "127.0.0.1:0";
    let arguments = arguments(&place.join("store"), anywhere, anywhere);
    assert_eq!(failure("shoal-peer", &arguments, &words), Some(1));
}

#[test]
fn a_file_that_changes_while_it_is_seeded_is_never_sent_wrong() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", 8 * MB, 9);
    let original = cluster.file("original/data.bin", 8 * MB, 9);
    let seeder = cluster.seed(&file, &["--up", "4MB/s"]);
    let mut getter = cluster.get(&seeder.id, "peer", &[]);
    getter.wait_for_bytes(MB as u64);
    let mut open = fs::File::options().write(true).open(&file).expect("it exists");
    open.seek(SeekFrom::Start(4 * MB as u64)).expect("it is long enough");
    open.write_all(&vec![7; 4 * MB]).expect("it is writable");
    wait_for_words(&seeder.process, "changed after shoal hashed it");
    assert!(getter.process.last_event("completed").is_none());
    getter.process.kill();
    // All bytes that the download kept are correct.
    let good = cluster.seed(&original, &[]);
    assert_eq!(good.id, seeder.id);
    let getter = cluster.get(&seeder.id, "peer", &[]);
    assert_eq!(getter.completed()["wasted_bytes"], 0);
    assert_same(&original, &getter.directory.join("data.bin"));
}

#[test]
fn two_processes_cannot_share_a_data_directory() {
    let cluster = Cluster::start();
    let peer = cluster.peer("peer", &[]);
    let anywhere = "127.0.0.1:0";
    let arguments = arguments(&peer.data_dir, anywhere, anywhere);
    let words = [text(&peer.data_dir), "in use by another shoal process"];
    assert_eq!(failure("shoal-peer", &arguments, &words), Some(1));
}

#[test]
fn a_port_in_use_is_named_in_the_error() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = holder.local_addr().expect("it is bound").to_string();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("data.bin");
    fs::write(&file, [1]).expect("it is written");
    let expected = format!("cannot listen on {taken}");
    let data_dir = directory.path().join("peer");
    let anywhere = "127.0.0.1:0";
    for (program, arguments) in [
        ("shoal-peer", arguments(&data_dir, &taken, anywhere)),
        ("shoal-peer", arguments(&data_dir, anywhere, &taken)),
        (
            "shoal",
            ["seed", text(&file), "--tracker", "127.0.0.1:1", "--listen", &taken]
                .map(ToOwned::to_owned)
                .to_vec(),
        ),
    ] {
        assert_eq!(failure(program, &arguments, &[&expected]), Some(1));
    }
}

#[test]
fn a_peer_without_a_local_api_joins_no_swarm() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = holder.local_addr().expect("it is bound").to_string();
    let directory = tempfile::tempdir().expect("a directory");
    let arguments = arguments(&directory.path().join("peer"), "127.0.0.1:0", &taken);
    let mut peer = Process::start("shoal-peer", &arguments);
    assert_eq!(peer.wait(PATIENCE).code(), Some(1));
    // The last message: everything logged before it has been printed.
    wait_for_words(&peer, &format!("cannot listen on {taken}"));
    assert!(!peer.stderr().contains("peer started"), "{}", peer.stderr());
}

/// The gRPC status of a `GetBitfield` call whose message header claims `bytes` bytes.
async fn status_of_claim(address: &str, bytes: u32) -> Option<String> {
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("a URI");
    let channel = endpoint.connect().await.expect("it listens");
    let mut message = vec![0];
    message.extend(bytes.to_be_bytes());
    message.resize(1 << 20, b'x');
    let message = String::from_utf8(message).expect("the claim is a power of two below 2^31");
    let request = http::Request::post("/shoal.peer.v1.PeerService/GetBitfield")
        .header("content-type", "application/grpc")
        .body(Body::new(message))
        .expect("a request");
    let answer = channel.oneshot(request).await.expect("it answers");
    Some(answer.headers().get("grpc-status")?.to_str().ok()?.to_owned())
}

#[test]
fn an_oversized_message_is_refused_without_allocating_it() {
    let cluster = Cluster::start();
    let file = cluster.file("source/data.bin", MB, 10);
    let peer = cluster.peer("peer", &[]);
    let id = peer.publish(&file);
    let runtime = Runtime::new().expect("a runtime");
    let (one, other, claim) = runtime.block_on(async {
        let mut client = PeerServiceClient::connect(format!("http://{}", peer.address))
            .await
            .expect("it listens");
        let huge = "x".repeat(64 << 20);
        let request = GetBitfieldRequest { content_id: huge.clone() };
        let bitfield = client.get_bitfield(request).await.expect_err("it is too big");
        let hello = Hello { content_id: huge, ..Hello::default() };
        let message = Some(LinkMessage { kind: Some(Kind::Hello(hello)) });
        let hello = futures_util::stream::iter([ExchangeRequest { message }]);
        let link = client.exchange(hello).await.err();
        let claim = status_of_claim(&peer.address, 1 << 30).await;
        (bitfield, link.expect("it is too big"), claim.expect("it is refused immediately"))
    });
    assert_eq!(claim, (Code::OutOfRange as i32).to_string());
    for status in [one, other] {
        let code = status.code();
        assert!(matches!(code, Code::OutOfRange | Code::ResourceExhausted), "{status:?}");
    }
    let peak = peer.process.peak_memory().expect("Linux reports it");
    assert!(peak < MAX_MEMORY, "{peak} bytes were resident");
    peer.answer(&["explain", &id]);
}

#[test]
fn verify_names_the_files_with_damaged_bytes() {
    let cluster = Cluster::start();
    let tree = cluster.path().join("tree");
    for (name, seed) in [("big", 1), ("same", 1), ("other", 2)] {
        cluster.file(&format!("tree/{name}"), 2 * MB, seed);
    }
    let peer = cluster.peer("peer", &[]);
    let id = peer.publish(&tree);
    let verified = |code| {
        let output = peer.shoal(&["verify", &id, "--json"]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let first = output.stdout.split(|byte| *byte == b'\n').next().expect("a line");
        serde_json::from_slice::<serde_json::Value>(first).expect("it prints JSON")
    };
    let sound = verified(0);
    assert!(sound["verified_pieces"].as_u64() > Some(2), "{sound}");
    assert_eq!(sound["damaged_pieces"], 0);

    let blobs = peer.directory_of(&id).join("blobs");
    let original = fs::read(tree.join("big")).expect("it is there");
    let blobs = fs::read_dir(blobs).expect("it is there").map(|blob| blob.expect("it is").path());
    let blob = blobs.into_iter().find(|blob| fs::read(blob).expect("it is readable") == original);
    let rot = |byte: u8| {
        let mut open =
            fs::File::options().write(true).open(blob.as_ref().expect("a blob")).unwrap();
        open.seek(SeekFrom::Start(MB as u64)).expect("it is long enough");
        open.write_all(&[byte]).expect("it is writable");
    };
    rot(!original[MB]);
    let damaged = verified(8);
    assert_eq!(damaged["damaged_pieces"], 1);
    assert_eq!(damaged["damaged_files"], serde_json::json!(["big", "same"]));
    rot(original[MB]);
    assert_eq!(verified(0)["damaged_pieces"], 0);
}
