//! The state of a node besides its records, on disk: the agreed replica sets and promises, and the
//! nodes around it.
//!
//! Its messages belong to the disk alone: what nodes send each other may change without them. A
//! field keeps its number and its meaning; rows that earlier versions would misread get a higher
//! format.

use prost::Message;
use shoal_core::{
    Address,
    ring::{
        Ballot, Configuration, Configurations, Contact, KeyRange, Lineage, NodeId, Position,
        Proposal, ReplicaSet,
    },
};
use tracing::warn;
use uuid::Uuid;

use super::{StoreError, database::Database, error::Fault, tables::META};
use crate::counters::mend;

/// The names under which they are stored, older than the names in the code.
pub(super) const CONFIGURATIONS: &str = "custody";
pub(super) const KNOWN_NODES: &str = "contacts";

/// The format of rows as they are written. The first rows name no format, and have the same fields.
const FORMAT: u32 = 1;

#[derive(Clone, PartialEq, Message)]
struct StoredConfigurations {
    #[prost(message, repeated, tag = "1")]
    configurations: Vec<StoredConfiguration>,
    #[prost(uint32, tag = "15")]
    format: u32,
}

#[derive(Clone, PartialEq, Message)]
struct StoredNodes {
    #[prost(message, repeated, tag = "1")]
    nodes: Vec<StoredNode>,
    #[prost(uint32, tag = "15")]
    format: u32,
}

#[derive(Clone, PartialEq, Message)]
struct StoredConfiguration {
    #[prost(message, optional, tag = "1")]
    present: Option<StoredPresent>,
    #[prost(message, optional, tag = "2")]
    promised: Option<StoredBallot>,
    #[prost(message, optional, tag = "3")]
    accepted: Option<StoredProposal>,
    #[prost(message, optional, tag = "4")]
    displaced: Option<StoredSet>,
    #[prost(bool, tag = "5")]
    supplied: bool,
}

#[derive(Clone, PartialEq, Message)]
struct StoredPresent {
    #[prost(message, optional, tag = "1")]
    range: Option<StoredRange>,
    #[prost(message, optional, tag = "2")]
    set: Option<StoredSet>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredRange {
    #[prost(string, tag = "1")]
    after: String,
    #[prost(string, tag = "2")]
    last: String,
}

#[derive(Clone, PartialEq, Message)]
struct StoredBallot {
    #[prost(uint64, tag = "1")]
    round: u64,
    #[prost(string, tag = "2")]
    node_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct StoredProposal {
    #[prost(message, optional, tag = "1")]
    ballot: Option<StoredBallot>,
    #[prost(message, optional, tag = "2")]
    next: Option<StoredSet>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredSet {
    #[prost(string, tag = "1")]
    lineage: String,
    #[prost(uint64, tag = "2")]
    epoch: u64,
    #[prost(message, repeated, tag = "3")]
    members: Vec<StoredNode>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredNode {
    #[prost(string, tag = "1")]
    node_id: String,
    /// Follows from the id. Earlier versions compare the two.
    #[prost(string, tag = "3")]
    position: String,
    #[prost(string, tag = "4")]
    address: String,
}

/// The agreed sets and promises when the node was last stopped.
pub(super) fn load_configurations(
    database: &Database,
    node: NodeId,
) -> Result<Configurations, StoreError> {
    database.read(|transaction| match transaction.open_table(META)?.get(CONFIGURATIONS)? {
        None => Ok(Configurations::new(node)),
        Some(bytes) => {
            parse_configurations(bytes.value(), node).ok_or(Fault::UNREADABLE_CONFIGURATIONS)
        }
    })
}

pub(super) fn encode_configurations(configurations: &Configurations) -> Vec<u8> {
    let configurations = configurations.known().map(|(range, known)| StoredConfiguration {
        present: Some(StoredPresent {
            range: Some(StoredRange {
                after: range.after.to_string(),
                last: range.last.to_string(),
            }),
            set: Some(stored_set(&known.present)),
        }),
        promised: known.promised.map(stored_ballot),
        accepted: known.accepted.as_ref().map(|accepted| StoredProposal {
            ballot: Some(stored_ballot(accepted.ballot)),
            next: Some(stored_set(&accepted.next)),
        }),
        displaced: known.displaced.as_ref().map(stored_set),
        supplied: known.supplied,
    });
    let configurations = configurations.collect();
    StoredConfigurations { configurations, format: FORMAT }.encode_to_vec()
}

/// None if the bytes are damaged, or of a later format.
pub(super) fn parse_configurations(bytes: &[u8], node: NodeId) -> Option<Configurations> {
    let stored = StoredConfigurations::decode(bytes).ok()?;
    let mut configurations = Configurations::new(node);
    for mut known in (stored.format <= FORMAT).then_some(stored.configurations)? {
        let is_mended = mend_counts(&mut known);
        let StoredPresent { range, set } = known.present?;
        let range = range?;
        let range = KeyRange {
            after: Position::from_hex(&range.after)?,
            last: Position::from_hex(&range.last)?,
        };
        if is_mended {
            warn!(%range, "absurd epochs or rounds on the disk were replaced");
        }
        let configuration = Configuration {
            present: parse_set(set?)?,
            promised: match known.promised {
                None => None,
                Some(ballot) => Some(parse_ballot(ballot)?),
            },
            accepted: match known.accepted {
                None => None,
                Some(StoredProposal { ballot, next }) => {
                    Some(Proposal { ballot: parse_ballot(ballot?)?, next: parse_set(next?)? })
                }
            },
            displaced: match known.displaced {
                None => None,
                Some(set) => Some(parse_set(set)?),
            },
            supplied: known.supplied,
        };
        configurations.restore(range, &configuration);
    }
    Some(configurations)
}

/// Replaces absurd counts, which earlier versions accepted from anybody: they would disable a range
/// forever, because no next set could follow them. A promise stays one, above all valid ballots.
fn mend_counts(known: &mut StoredConfiguration) -> bool {
    let present = known.present.as_mut().and_then(|present| present.set.as_mut());
    let accepted = known.accepted.as_mut();
    let (ballot, next) = accepted.map_or((None, None), |it| (it.ballot.as_mut(), it.next.as_mut()));
    let epochs = present.into_iter().chain(next).chain(&mut known.displaced);
    let rounds = ballot.into_iter().chain(&mut known.promised);
    let counts = epochs.map(|set| &mut set.epoch).chain(rounds.map(|ballot| &mut ballot.round));
    counts.fold(false, |any, count| mend(count) | any)
}

pub(super) fn encode_nodes(nodes: &[Contact]) -> Vec<u8> {
    let nodes = nodes.iter().map(stored_node).collect();
    StoredNodes { nodes, format: FORMAT }.encode_to_vec()
}

/// The addresses of stored nodes. They are hints: an entry that cannot be read is left out.
pub(super) fn parse_nodes(bytes: &[u8]) -> Vec<Address> {
    let stored = StoredNodes::decode(bytes).unwrap_or_default();
    stored.nodes.into_iter().filter_map(|node| node.address.parse().ok()).collect()
}

fn stored_ballot(Ballot { round, node }: Ballot) -> StoredBallot {
    StoredBallot { round, node_id: node.to_string() }
}

fn parse_ballot(StoredBallot { round, node_id }: StoredBallot) -> Option<Ballot> {
    Some(Ballot { round, node: node_id.parse().ok()? })
}

fn stored_set(set: &ReplicaSet) -> StoredSet {
    StoredSet {
        lineage: set.lineage.0.to_string(),
        epoch: set.epoch,
        members: set.members.iter().map(stored_node).collect(),
    }
}

fn parse_set(StoredSet { lineage, epoch, members }: StoredSet) -> Option<ReplicaSet> {
    let lineage = Lineage(Uuid::try_parse(&lineage).ok()?);
    let members: Vec<_> = members.into_iter().map(parse_node).collect::<Option<_>>()?;
    (!members.is_empty()).then_some(ReplicaSet { lineage, epoch, members })
}

fn stored_node(node: &Contact) -> StoredNode {
    StoredNode {
        node_id: node.id.to_string(),
        position: node.position.to_string(),
        address: String::from(&node.address),
    }
}

fn parse_node(StoredNode { node_id, position, address }: StoredNode) -> Option<Contact> {
    let id: NodeId = node_id.parse().ok()?;
    let contact =
        Contact { position: Position::of_node(id, 0), id, address: address.parse().ok()? };
    (Position::from_hex(&position) == Some(contact.position)).then_some(contact)
}

#[cfg(test)]
mod tests;
