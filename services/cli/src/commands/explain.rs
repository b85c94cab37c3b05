//! `shoal explain`: why a download is slow.

use std::time::Duration;

use serde_json::{Value, json};
use shoal_common::text::printable;
use shoal_proto::control::v1::{
    Cause, ExplainRequest, ExplainResponse, NeighbourStatus, TrackerStatus,
};

use crate::{
    args::{ExplainArgs, Format},
    control::Control,
    exit::Failure,
    output::{self, Align, Table, bytes, count, duration, rate},
};

pub(crate) async fn run(args: ExplainArgs, format: Format) -> anyhow::Result<()> {
    let mut control = Control::connect(args.control.control.as_ref()).await?;
    let request = ExplainRequest { content_id: args.id.to_string() };
    let answer = control.observe.explain(request).await.map_err(Failure::from)?.into_inner();
    match format {
        Format::Json => output::json(&to_json(&answer))?,
        Format::Human => output::line(describe(&answer))?,
    }
    Ok(())
}

fn cause_name(cause: Cause) -> &'static str {
    match cause {
        Cause::Unspecified => "unknown",
        Cause::None => "none",
        Cause::NoPeers => "no_peers",
        Cause::NoManifest => "no_manifest",
        Cause::PiecesMissing => "pieces_missing",
        Cause::Choked => "choked",
        Cause::DownCap => "down_cap",
        Cause::NeighboursSlow => "neighbours_slow",
        Cause::Snubbed => "snubbed",
        Cause::Disk => "disk",
        Cause::TrackerDown => "tracker_down",
    }
}

fn describe(answer: &ExplainResponse) -> String {
    let cause = cause_name(answer.cause()).replace('_', " ");
    let mut parts = vec![format!("cause: {cause}\n{}", printable(&answer.summary))];
    if answer.unavailable_pieces > 0 {
        parts.push(format!(
            "held by no neighbour: {}",
            count(answer.unavailable_pieces.into(), "piece")
        ));
    } else if answer.rarest_copies > 0 {
        let copies = match answer.rarest_copies {
            1 => "1 copy".to_owned(),
            copies => format!("{copies} copies"),
        };
        parts.push(format!("{copies} of the rarest wanted piece among the neighbours"));
    }
    if !answer.neighbours.is_empty() {
        parts.push(neighbours(&answer.neighbours).render());
    }
    if !answer.trackers.is_empty() {
        parts.push(sources("TRACKER", &answer.trackers).render());
    }
    if !answer.ring_nodes.is_empty() {
        parts.push(sources("RING NODE", &answer.ring_nodes).render());
    }
    parts.join("\n\n")
}

fn neighbours(neighbours: &[NeighbourStatus]) -> Table<8> {
    let mut table = Table::new([
        ("NEIGHBOUR", Align::Left),
        ("PEER ID", Align::Left),
        ("PIECES", Align::Right),
        ("DOWN", Align::Right),
        ("UP", Align::Right),
        ("RTT", Align::Right),
        ("REQUESTED", Align::Right),
        ("STATE", Align::Left),
    ]);
    for neighbour in neighbours {
        table.row([
            neighbour.address.clone(),
            neighbour.peer_id.clone(),
            neighbour.held_pieces.to_string(),
            rate(neighbour.down_bytes_per_s),
            rate(neighbour.up_bytes_per_s),
            neighbour.round_trip.map_or_else(|| "-".to_owned(), |time| millis(&time)),
            bytes(neighbour.outstanding_bytes),
            state(neighbour),
        ]);
    }
    table
}

/// The trackers or ring nodes that were asked for peers.
fn sources(kind: &str, sources: &[TrackerStatus]) -> Table<4> {
    let mut table = Table::new([
        (kind, Align::Left),
        ("LAST ANSWER", Align::Right),
        ("PEERS", Align::Right),
        ("ERROR", Align::Left),
    ]);
    for source in sources {
        let since = source.since_success.as_ref().and_then(to_std);
        table.row([
            source.address.clone(),
            since.map_or_else(|| "never".to_owned(), |time| format!("{} ago", duration(time))),
            source.peers_given.to_string(),
            source.error.clone(),
        ]);
    }
    table
}

/// What keeps pieces from being sent, in both directions.
fn state(neighbour: &NeighbourStatus) -> String {
    let words = [
        (neighbour.choking_us, "chokes us"),
        (neighbour.snubbed, "sends nothing"),
        (!neighbour.interesting, "has nothing we want"),
        (neighbour.choked_by_us && neighbour.interested, "choked by us"),
    ];
    let mut words: Vec<&str> =
        words.into_iter().filter_map(|(holds, word)| holds.then_some(word)).collect();
    if !neighbour.idle_reason.is_empty() {
        words.push(&neighbour.idle_reason);
    }
    if words.is_empty() { "sends to us".to_owned() } else { words.join(", ") }
}

fn to_std(time: &prost_types::Duration) -> Option<Duration> {
    shoal_common::units::duration::from_message(*time).ok()
}

fn millis(time: &prost_types::Duration) -> String {
    let time = to_std(time).unwrap_or_default();
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

fn to_json(answer: &ExplainResponse) -> Value {
    let seconds =
        |time: Option<&prost_types::Duration>| time.and_then(to_std).map(|time| time.as_secs_f64());
    let neighbours = answer.neighbours.iter().map(|neighbour| {
        json!({
            "peer_id": neighbour.peer_id,
            "address": neighbour.address,
            "held_pieces": neighbour.held_pieces,
            "interesting": neighbour.interesting,
            "interested": neighbour.interested,
            "choking_us": neighbour.choking_us,
            "choked_by_us": neighbour.choked_by_us,
            "snubbed": neighbour.snubbed,
            "down_bytes_per_s": neighbour.down_bytes_per_s,
            "up_bytes_per_s": neighbour.up_bytes_per_s,
            "round_trip_seconds": seconds(neighbour.round_trip.as_ref()),
            "outstanding_bytes": neighbour.outstanding_bytes,
            "idle_reason": neighbour.idle_reason,
        })
    });
    let source = |source: &TrackerStatus| {
        json!({
            "address": source.address,
            "error": source.error,
            "since_success_seconds": seconds(source.since_success.as_ref()),
            "peers_given": source.peers_given,
        })
    };
    json!({
        "cause": cause_name(answer.cause()),
        "summary": answer.summary,
        "unavailable_pieces": answer.unavailable_pieces,
        "rarest_copies": answer.rarest_copies,
        "neighbours": neighbours.collect::<Vec<_>>(),
        "trackers": answer.trackers.iter().map(source).collect::<Vec<_>>(),
        "ring_nodes": answer.ring_nodes.iter().map(source).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> ExplainResponse {
        ExplainResponse {
            cause: Cause::Choked.into(),
            summary: "the neighbour that holds the missing pieces chokes us".to_owned(),
            neighbours: vec![NeighbourStatus {
                peer_id: "2f1e0c5a".to_owned(),
                address: "10.0.0.2:7072".to_owned(),
                held_pieces: 7,
                interesting: true,
                choking_us: true,
                round_trip: Some(prost_types::Duration { seconds: 0, nanos: 1_500_000 }),
                ..NeighbourStatus::default()
            }],
            rarest_copies: 1,
            trackers: vec![TrackerStatus {
                address: "t:7070".to_owned(),
                error: "connection refused".to_owned(),
                ..TrackerStatus::default()
            }],
            ring_nodes: vec![TrackerStatus {
                address: "ring:7071".to_owned(),
                since_success: Some(prost_types::Duration { seconds: 30, nanos: 0 }),
                peers_given: 2,
                ..TrackerStatus::default()
            }],
            ..ExplainResponse::default()
        }
    }

    #[test]
    fn the_cause_comes_first_then_every_neighbour_tracker_and_ring_node() {
        assert_eq!(
            describe(&answer()),
            "\
cause: choked
the neighbour that holds the missing pieces chokes us

1 copy of the rarest wanted piece among the neighbours

NEIGHBOUR      PEER ID   PIECES   DOWN     UP     RTT  REQUESTED  STATE
10.0.0.2:7072  2f1e0c5a       7  0 B/s  0 B/s  1.5 ms        0 B  chokes us

TRACKER  LAST ANSWER  PEERS  ERROR
t:7070         never      0  connection refused

RING NODE  LAST ANSWER  PEERS  ERROR
ring:7071     30 s ago      2"
        );
    }

    #[test]
    fn json_has_the_same_facts() {
        let json = to_json(&answer());
        assert_eq!(json["cause"], "choked");
        assert_eq!(json["neighbours"][0]["round_trip_seconds"], 0.0015);
        assert_eq!(json["trackers"][0]["since_success_seconds"], Value::Null);
        assert_eq!(json["ring_nodes"][0]["peers_given"], 2);
    }
}
