//! `shoal dht ring`: a drawing of the ring, and a table of its nodes.

use std::{collections::HashMap, time::Duration};

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use shoal_common::{
    channel::{Channel, Options},
    status,
    text::printable,
};
use shoal_proto::dht::v1::{
    GetStateRequest, GetStateResponse, ListNodesRequest, NodeInfo, NodeState, Standing,
};
use tokio::time::timeout;

use super::circle::{self, Place};
use crate::{
    args::{DhtRingArgs, Format},
    exit::{Exit, Failure},
    output::{self, Align, Table},
    ring::{Client, Repeat, RingSession},
};

/// Nodes beyond this number are neither asked nor drawn.
const MAX_NODES: usize = 1000;
/// Nodes asked at the same time.
const AT_ONCE: usize = 32;
/// The longest wait for a node's state.
const PATIENCE: Duration = Duration::from_secs(2);
/// Digits of a position in the table: enough to distinguish a thousand nodes.
const SHORT_POSITION: usize = 8;
/// Successors of a node in the table.
const SHORT_LIST: usize = 3;

pub(super) async fn run(
    mut ring: RingSession,
    args: DhtRingArgs,
    format: Format,
) -> anyhow::Result<()> {
    let asked = ring.node().await?.address.to_string();
    let listed = list(&mut ring).await?;
    let nodes = stream::iter(listed).map(query).buffered(AT_ONCE).collect().await;
    let view = View { asked, nodes };
    match format {
        Format::Json => output::json(&view.to_json())?,
        Format::Human => {
            let chosen = view.find(args.fingers_of.as_deref().unwrap_or(&view.asked));
            let chosen = match (chosen, args.fingers_of) {
                (None, Some(wanted)) => {
                    let message = format!(
                        "the ring has no node {wanted}; shoal dht ring lists the numbers and \
                         addresses"
                    );
                    return Err(Failure::new(Exit::NotFound, message).into());
                }
                (chosen, _) => chosen,
            };
            output::line(view.describe(chosen))?;
        }
    }
    Ok(())
}

/// The nodes on the membership list of one node, in the order of their positions.
async fn list(ring: &mut RingSession) -> anyhow::Result<Vec<NodeInfo>> {
    let mut nodes: Vec<NodeInfo> = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListNodesRequest { page_size: 0, page_token: page_token.clone() };
        let list = async |mut client: Client| client.list_nodes(request.clone()).await;
        let page = ring.call(Repeat::Harmless, list).await?;
        nodes.extend(page.nodes);
        nodes.truncate(MAX_NODES);
        page_token = page.next_page_token;
        if page_token.is_empty() || nodes.len() == MAX_NODES {
            nodes.sort_by(|left, right| left.position.cmp(&right.position));
            nodes.dedup_by(|right, left| left.position == right.position);
            return Ok(nodes);
        }
    }
}

async fn query(info: NodeInfo) -> Queried {
    let asked = timeout(PATIENCE, ask(&info)).await;
    let answer = asked.unwrap_or_else(|_| Err("no answer in time".to_owned()));
    Queried { info, answer }
}

async fn ask(info: &NodeInfo) -> Result<GetStateResponse, String> {
    let address = info.address.parse().map_err(|error| format!("{error}"))?;
    let channel = Channel::connect(&address, &Options::default()).await;
    let mut client = Client::new(channel.map_err(|error| error.reason().to_owned())?);
    let answer = client.get_state(GetStateRequest { details: true }).await;
    Ok(answer.map_err(|refusal| status::words(&refusal))?.into_inner())
}

/// The ring, as its nodes describe it.
struct View {
    /// HOST:PORT of the node that listed the others.
    asked: String,
    /// Clockwise.
    nodes: Vec<Queried>,
}

/// A node, and its answer.
struct Queried {
    info: NodeInfo,
    answer: Result<GetStateResponse, String>,
}

impl View {
    /// A node by its number or address.
    fn find(&self, wanted: &str) -> Option<usize> {
        let number = wanted.parse().ok().filter(|number| (1..=self.nodes.len()).contains(number));
        let by_address = || self.nodes.iter().position(|node| node.info.address == wanted);
        number.map(|number| number - 1).or_else(by_address)
    }

    /// The circle, then a line for each node.
    fn describe(&self, chosen: Option<usize>) -> String {
        let numbers = self.numbers();
        let fingers: Vec<usize> = match chosen.map(|chosen| &self.nodes[chosen].answer) {
            Some(Ok(answer)) => answer
                .fingers
                .iter()
                .filter_map(|finger| numbers.get(finger.position.as_str()).copied())
                .collect(),
            _ => Vec::new(),
        };
        let mark = |index: usize, node: &Queried| match &node.answer {
            Err(_) => 'x',
            Ok(_) if chosen == Some(index) => '\u{25c9}',
            Ok(_) if fingers.contains(&index) => '\u{25cf}',
            Ok(_) => '\u{25cb}',
        };
        let places = self.nodes.iter().enumerate();
        let places: Vec<_> = places
            .map(|(index, node)| Place { turn: turn(&node.info.position), mark: mark(index, node) })
            .collect();
        let lines = chosen.map(|chosen| (chosen, fingers.as_slice()));
        let mut parts = vec![circle::draw(&places, lines), self.table(&numbers).render()];
        parts.push(self.summary(chosen, &fingers));
        parts.join("\n\n")
    }

    fn table(&self, numbers: &HashMap<&str, usize>) -> Table<7> {
        let mut table = Table::new([
            ("#", Align::Right),
            ("POSITION", Align::Left),
            ("ADDRESS", Align::Left),
            ("PREDECESSOR", Align::Right),
            ("SUCCESSORS", Align::Left),
            ("KEYS", Align::Right),
            ("STATE", Align::Left),
        ]);
        let number = |node: &NodeInfo| match numbers.get(&*node.position) {
            Some(index) => (index + 1).to_string(),
            None => node.address.clone(),
        };
        for (index, node) in self.nodes.iter().enumerate() {
            let position = node.info.position.chars().take(SHORT_POSITION).collect();
            let mut row: [String; 7] = Default::default();
            [row[0], row[1], row[2]] =
                [(index + 1).to_string(), position, node.info.address.clone()];
            match &node.answer {
                Ok(answer) => {
                    let state = answer.state.clone().unwrap_or_default();
                    row[3] = state.predecessor.as_ref().map(number).unwrap_or_default();
                    row[4] = short(&state.successors, number);
                    row[5] = answer.key_count.to_string();
                    standing(&state).clone_into(&mut row[6]);
                }
                Err(reason) => row[6].clone_from(reason),
            }
            table.row(row);
        }
        table
    }

    fn summary(&self, chosen: Option<usize>, fingers: &[usize]) -> String {
        let nodes = output::count(self.nodes.len() as u64, "node");
        let mut lines = vec![format!("{nodes}, as {} lists them", printable(&self.asked))];
        if let Some(chosen) = chosen.filter(|_| !fingers.is_empty()) {
            let listed = numbered(fingers.iter().copied());
            lines.push(format!("lines: from {} to its fingers {listed}", chosen + 1));
        }
        let misplaced: Vec<_> = self.misplaced().collect();
        if !misplaced.is_empty() {
            let listed = numbered(misplaced.into_iter());
            lines.push(format!("nodes whose neighbours do not match their positions: {listed}"));
        }
        lines.join("\n")
    }

    /// Nodes whose predecessor or successor is not the node next to them by position, and nodes
    /// that do not answer.
    fn misplaced(&self) -> impl Iterator<Item = usize> {
        let count = self.nodes.len();
        let position = move |index: usize| &self.nodes[index % count].info.position;
        (0..count).filter(move |&index| {
            let Ok(GetStateResponse { state: Some(state), .. }) = &self.nodes[index].answer else {
                return true;
            };
            let next = state.successors.first().map(|node| &node.position);
            let before = state.predecessor.as_ref().map(|node| &node.position);
            let neighbours = (Some(position(index + 1)), Some(position(index + count - 1)));
            count > 1 && (next, before) != neighbours
        })
    }

    /// The index of each node by its position.
    fn numbers(&self) -> HashMap<&str, usize> {
        let nodes = self.nodes.iter().enumerate();
        nodes.map(|(index, node)| (node.info.position.as_str(), index)).collect()
    }

    fn to_json(&self) -> Value {
        let positions = |nodes: &[NodeInfo]| -> Vec<_> {
            nodes.iter().map(|node| node.position.clone()).collect()
        };
        let nodes = self.nodes.iter().map(|node| {
            let mut json = node_json(&node.info);
            match &node.answer {
                Ok(answer) => {
                    let state = answer.state.clone().unwrap_or_default();
                    json["standing"] = standing(&state).into();
                    json["predecessor"] = state.predecessor.map(|node| node.position).into();
                    json["successors"] = positions(&state.successors).into();
                    json["fingers"] = positions(&answer.fingers).into();
                    json["key_count"] = answer.key_count.into();
                }
                Err(reason) => json["error"] = reason.as_str().into(),
            }
            json
        });
        json!({
            "asked": self.asked,
            "in_order": self.misplaced().next().is_none(),
            "nodes": nodes.collect::<Vec<_>>(),
        })
    }
}

/// A node in JSON.
pub(super) fn node_json(node: &NodeInfo) -> Value {
    json!({ "node_id": node.node_id, "position": node.position, "address": node.address })
}

/// A position as a fraction of the circle.
fn turn(position: &str) -> f64 {
    let digits = position.get(..16).unwrap_or_default();
    u64::from_str_radix(digits, 16).unwrap_or_default() as f64 / 2_f64.powi(64)
}

fn standing(state: &NodeState) -> &'static str {
    match state.standing() {
        Standing::Unspecified => "unknown",
        Standing::Joining => "joining",
        Standing::Member => "member",
        Standing::Leaving => "leaving",
    }
}

/// The first nodes, and the number of the others.
fn short(nodes: &[NodeInfo], number: impl Fn(&NodeInfo) -> String) -> String {
    let mut words: Vec<_> = nodes.iter().take(SHORT_LIST).map(number).collect();
    if nodes.len() > SHORT_LIST {
        words.push(format!("+{}", nodes.len() - SHORT_LIST));
    }
    words.join(" ")
}

fn numbered(indexes: impl Iterator<Item = usize>) -> String {
    indexes.map(|index| (index + 1).to_string()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes whose positions begin with these digits, each with the right neighbours.
    fn view(digits: &[&str]) -> View {
        let node = |index: usize| NodeInfo {
            node_id: format!("id-{index}"),
            position: format!("{:0<32}", digits[index % digits.len()]),
            address: format!("10.0.0.{}:7071", index % digits.len() + 1),
            ..NodeInfo::default()
        };
        let count = digits.len();
        let others = |index: usize| (1..count).map(|step| node(index + step)).collect::<Vec<_>>();
        let queried = |index: usize| Queried {
            info: node(index),
            answer: Ok(GetStateResponse {
                state: Some(NodeState {
                    node: Some(node(index)),
                    standing: Standing::Member.into(),
                    predecessor: others(index).pop(),
                    successors: others(index),
                }),
                fingers: others(index).into_iter().step_by(2).collect(),
                key_count: 7,
                ..GetStateResponse::default()
            }),
        };
        View { asked: "10.0.0.1:7071".to_owned(), nodes: (0..count).map(queried).collect() }
    }

    #[test]
    fn each_node_has_a_line_with_its_neighbours() {
        let text = view(&["1", "4", "8", "b", "f"]).describe(Some(0));
        assert!(text.ends_with(
            "\
#  POSITION  ADDRESS        PREDECESSOR  SUCCESSORS  KEYS  STATE
1  10000000  10.0.0.1:7071            5  2 3 4 +1       7  member
2  40000000  10.0.0.2:7071            1  3 4 5 +1       7  member
3  80000000  10.0.0.3:7071            2  4 5 1 +1       7  member
4  b0000000  10.0.0.4:7071            3  5 1 2 +1       7  member
5  f0000000  10.0.0.5:7071            4  1 2 3 +1       7  member

5 nodes, as 10.0.0.1:7071 lists them
lines: from 1 to its fingers 2 4"
        ));
    }

    #[test]
    fn a_node_alone_is_a_ring_too() {
        let view = view(&["8"]);
        assert!(view.describe(Some(0)).ends_with("1 node, as 10.0.0.1:7071 lists them"));
        assert_eq!(view.to_json()["in_order"], true);
    }

    #[test]
    fn nodes_with_wrong_neighbours_or_without_an_answer_are_listed() {
        let mut view = view(&["1", "4", "8", "b", "f"]);
        view.nodes.remove(1);
        view.nodes[3].answer = Err("no answer in time".to_owned());
        let text = view.describe(None);
        assert!(text.ends_with("do not match their positions: 1 2 4"), "{text}");
        assert!(text.contains("no answer in time") && text.contains('x'), "{text}");
        // A node that is not in the table is shown by its address.
        assert!(text.contains("10.0.0.2:7071 2 3"), "{text}");
        let json = view.to_json();
        assert_eq!(json["in_order"], false);
        assert_eq!(json["nodes"][3]["error"], "no answer in time");
    }

    #[test]
    fn a_node_is_found_by_its_number_or_address() {
        let view = view(&["1", "4"]);
        assert_eq!(view.find("2"), Some(1));
        assert_eq!(view.find("10.0.0.2:7071"), Some(1));
        assert_eq!((view.find("3"), view.find("0"), view.find("me:1")), (None, None, None));
    }

    #[test]
    fn positions_are_fractions_of_the_circle() {
        assert!((turn(&format!("{:0<32}", "4")) - 0.25).abs() < 1e-9);
        assert!(turn("no position").abs() < 1e-9);
    }
}
