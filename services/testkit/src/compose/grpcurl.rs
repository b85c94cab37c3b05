//! The services, called with `grpcurl` through reflection alone.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use shoal_common::ring_client::ADDRESSEE;
use shoal_core::ring::{NodeId, Position};
use uuid::Uuid;

use super::{
    cluster::{Cluster, Content, PEER_PORT, RING_PORT, TRACKER_PORT},
    docker::stdout_of,
};

/// A call, and a text that its answer must contain.
struct Call {
    method: &'static str,
    request: String,
    expected: &'static str,
    /// The id of the ring node that is called, for calls between ring nodes.
    addressee: Option<String>,
}

/// Lists the methods of each service, and calls the main ones.
pub(super) fn lists_and_calls(cluster: &mut Cluster) -> anyhow::Result<String> {
    let grpcurl = Grpcurl::find()?;
    let peer = cluster.container("peer")?;
    let content = cluster.publish(&peer, "grpcurl.bin", 1_000_000)?;
    let tracker = cluster.container("tracker-1")?.published(TRACKER_PORT)?;
    let node = cluster.container("dht-node-1")?.published(RING_PORT)?;
    let other = format!("{}:{RING_PORT}", cluster.container("dht-node-2")?.address()?);
    let peer = format!("{}:{PEER_PORT}", peer.address()?);
    let others_state = grpcurl.run(&[&other, "shoal.dht.v1.DhtService/GetState"])?;
    let services = [
        (tracker, tracker_calls(&content)),
        (node, vec![find_successor()]),
        (other, vec![notify(&others_state)?]),
        (peer, peer_calls(&content)),
    ];
    let mut count = 0;
    for (address, calls) in services {
        let listed = grpcurl.run(&[&address, "list"])?;
        for call in calls.into_iter().chain([health()]) {
            let (service, _) = call.method.split_once('/').context("a method is SERVICE/METHOD")?;
            ensure!(listed.lines().any(|line| line == service), "{service} is not in {listed}");
            grpcurl.call(&address, &call)?;
            count += 1;
        }
    }
    Ok(format!("{count} calls"))
}

/// The path of the command.
struct Grpcurl(PathBuf);

impl Grpcurl {
    /// Searches PATH and the folders where Go installs commands.
    fn find() -> anyhow::Result<Self> {
        let in_path = env::var_os("PATH").unwrap_or_default();
        let gobin = env::var_os("GOBIN").map(PathBuf::from);
        let gopath = env::var_os("GOPATH").map(|path| PathBuf::from(path).join("bin"));
        let home = env::var_os("HOME").map(|path| PathBuf::from(path).join("go/bin"));
        let folders = env::split_paths(&in_path).chain(gobin).chain(gopath).chain(home);
        let found = folders.map(|folder| folder.join("grpcurl")).find(|path| path.is_file());
        found.map(Self).context(
            "grpcurl is missing: go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest",
        )
    }

    fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.0);
        stdout_of(command.arg("-plaintext").args(arguments))
    }

    /// Fails unless the answer is JSON that contains the expected text.
    fn call(&self, address: &str, call: &Call) -> anyhow::Result<()> {
        let Call { method, request, expected, addressee } = call;
        let header = addressee.as_ref().map(|id| format!("{ADDRESSEE}: {id}"));
        let header = header.iter().flat_map(|header| ["-H", header]);
        let arguments: Vec<_> = header.chain(["-d", request, address, method]).collect();
        let answer = self.run(&arguments)?;
        ensure!(answer.contains(expected), "the answer of {method} lacks {expected}: {answer}");
        // The answer of a stream is several documents. The first one suffices.
        let first = serde_json::Deserializer::from_str(&answer).into_iter::<Value>().next();
        ensure!(matches!(first, Some(Ok(_))), "the answer of {method} is not JSON: {answer}");
        Ok(())
    }
}

fn health() -> Call {
    Call {
        method: "grpc.health.v1.Health/Check",
        request: "{}".to_owned(),
        expected: "\"SERVING\"",
        addressee: None,
    }
}

fn tracker_calls(content: &Content) -> Vec<Call> {
    let peer = Uuid::new_v4();
    let id = &content.id;
    let announce = |event: &str| Call {
        method: "shoal.tracker.v1.TrackerService/Announce",
        request: format!(
            r#"{{"content_id": "{id}", "peer": {{"peer_id": "{peer}", "address": "0.0.0.0:7072"}},
                 "event": "ANNOUNCE_EVENT_{event}"}}"#
        ),
        expected: "observedAddress",
        addressee: None,
    };
    vec![announce("STARTED"), announce("STOPPED")]
}

fn find_successor() -> Call {
    Call {
        method: "shoal.dht.v1.DhtService/FindSuccessor",
        // The bytes of "key", in base 64.
        request: r#"{"target": {"key": "a2V5"}}"#.to_owned(),
        expected: "position",
        addressee: None,
    }
}

/// A joining node's Notify to the node with this state.
fn notify(others: &str) -> anyhow::Result<Call> {
    let others: Value =
        serde_json::from_str(others).context("the answer of GetState is not JSON")?;
    let node_id = others["state"]["node"]["nodeId"].as_str().context("a node has an id")?;
    let id: NodeId = Uuid::new_v4().to_string().parse()?;
    let node = json!({
        "nodeId": id.to_string(),
        "position": Position::of_node(id, 0).to_string(),
        // A wildcard address: the node takes the caller's. Another host's address would be refused.
        "address": format!("0.0.0.0:{RING_PORT}"),
    });
    let state = json!({ "node": node, "standing": "STANDING_JOINING" });
    Ok(Call {
        addressee: Some(node_id.to_owned()),
        method: "shoal.dht.v1.DhtService/Notify",
        request: json!({ "state": state }).to_string(),
        expected: "successors",
    })
}

fn peer_calls(content: &Content) -> Vec<Call> {
    let id = &content.id;
    vec![
        Call {
            method: "shoal.peer.v1.PeerService/GetBitfield",
            request: format!(r#"{{"content_id": "{id}"}}"#),
            expected: "heldCount",
            addressee: None,
        },
        Call {
            method: "shoal.peer.v1.PeerService/RequestPiece",
            request: format!(r#"{{"content_id": "{id}", "ranges": [{{"piece": 0}}]}}"#),
            expected: "data",
            addressee: None,
        },
    ]
}
