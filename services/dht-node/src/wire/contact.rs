//! Nodes, their neighbours, and news of them.

use std::net::IpAddr;

use shoal_common::Address;
use shoal_core::ring::{
    Contact, Entry, Found, Life, NodeId, Position, RollDigest, Standing, State,
};
use shoal_proto::dht::v1 as pb;

use super::{WireError, at_most, field, is_credible};

/// Successors, or closer nodes, in one message.
const MAX_NODES: usize = 128;
/// Rumours in one message.
const MAX_RUMOURS: usize = 256;

/// How an unspecified host in a node's own address is filled in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seen {
    /// With the address that the message came from.
    From(IpAddr),
    /// Not at all: nodes that are spoken of must have an address.
    Elsewhere,
}

pub(crate) fn contact(contact: &Contact) -> pb::NodeInfo {
    pb::NodeInfo {
        node_id: contact.id.to_string(),
        index: 0,
        position: contact.position.to_string(),
        address: contact.address.to_string(),
        location: None,
    }
}

pub(crate) fn parse_contact(info: Option<pb::NodeInfo>, seen: Seen) -> Result<Contact, WireError> {
    let info = info.ok_or(WireError::Missing("the node"))?;
    let id: NodeId = info.node_id.parse().map_err(field)?;
    // What is told of it further, and kept, has no room for another place.
    if info.index != 0 {
        let words = format!("node {id} stands at its place 0 alone, not at {}", info.index);
        return Err(WireError::Field(words));
    }
    let right = Position::of_node(id, 0);
    if right.to_string() != info.position {
        return Err(WireError::Position { id: info.node_id, claimed: info.position, right });
    }
    dialable(right, id, &info.address, seen)
}

/// A node named by its id and address alone.
pub(crate) fn parse_named(id: &str, address: &str) -> Result<Contact, WireError> {
    let id: NodeId = id.parse().map_err(field)?;
    dialable(Position::of_node(id, 0), id, address, Seen::Elsewhere)
}

fn dialable(
    position: Position,
    id: NodeId,
    address: &str,
    seen: Seen,
) -> Result<Contact, WireError> {
    let address: Address = address.parse().map_err(field)?;
    let address = match seen {
        Seen::From(observed) => address.or_observed(observed),
        Seen::Elsewhere => address,
    };
    if address.is_unspecified() || address.port() == 0 {
        return Err(WireError::Field(format!("nobody can dial {address}")));
    }
    Ok(Contact { position, id, address: address.to_string().into() })
}

fn parse_contacts(what: &'static str, nodes: Vec<pb::NodeInfo>) -> Result<Vec<Contact>, WireError> {
    let nodes = at_most(what, nodes, MAX_NODES)?.into_iter();
    nodes.map(|node| parse_contact(Some(node), Seen::Elsewhere)).collect()
}

pub(crate) fn state(state: &State) -> pb::NodeState {
    let standing = match state.standing {
        Standing::Joining => pb::Standing::Joining,
        Standing::Member => pb::Standing::Member,
        Standing::Leaving => pb::Standing::Leaving,
    };
    pb::NodeState {
        node: Some(contact(&state.node)),
        standing: standing.into(),
        predecessor: state.predecessor.as_ref().map(contact),
        successors: state.successors.iter().map(contact).collect(),
    }
}

pub(crate) fn parse_state(state: Option<pb::NodeState>, seen: Seen) -> Result<State, WireError> {
    let state = state.ok_or(WireError::Missing("the state"))?;
    let standing = match state.standing() {
        pb::Standing::Member => Standing::Member,
        pb::Standing::Leaving => Standing::Leaving,
        pb::Standing::Joining | pb::Standing::Unspecified => Standing::Joining,
    };
    let predecessor = state.predecessor;
    Ok(State {
        node: parse_contact(state.node, seen)?,
        standing,
        predecessor: predecessor
            .map(|node| parse_contact(Some(node), Seen::Elsewhere))
            .transpose()?,
        successors: parse_contacts("successors", state.successors)?,
    })
}

pub(crate) fn found(found: &Found) -> pb::FindSuccessorResponse {
    pb::FindSuccessorResponse {
        node: Some(contact(&found.node)),
        owns: found.owns,
        successors: found.successors.iter().map(contact).collect(),
        closer: found.closer.iter().map(contact).collect(),
    }
}

pub(crate) fn parse_found(found: pb::FindSuccessorResponse) -> Result<Found, WireError> {
    Ok(Found {
        node: parse_contact(found.node, Seen::Elsewhere)?,
        owns: found.owns,
        successors: parse_contacts("successors", found.successors)?,
        closer: parse_contacts("closer nodes", found.closer)?,
    })
}

pub(crate) fn rumour(entry: &Entry) -> pb::Rumour {
    let life = match entry.life {
        Life::Alive => pb::Life::Alive,
        Life::Left => pb::Life::Left,
        Life::Dead => pb::Life::Dead,
    };
    pb::Rumour {
        node: Some(contact(&entry.contact)),
        incarnation: entry.incarnation,
        life: life.into(),
    }
}

/// News of nodes. What has an absurd incarnation is left out: the node spoken of could not refute it.
/// A node whose clock is far ahead, and its message with it, would else not be heard at all.
pub(crate) fn parse_rumours(rumours: Vec<pb::Rumour>) -> Result<Vec<Entry>, WireError> {
    let rumours = at_most("rumours", rumours, MAX_RUMOURS)?.into_iter();
    let rumours = rumours.filter(|rumour| is_credible(rumour.incarnation));
    let parse = |rumour: pb::Rumour| {
        let life = match rumour.life() {
            pb::Life::Alive => Life::Alive,
            pb::Life::Left => Life::Left,
            pb::Life::Dead => Life::Dead,
            pb::Life::Unspecified => return Err(WireError::Missing("the life")),
        };
        let contact = parse_contact(rumour.node, Seen::Elsewhere)?;
        Ok(Entry { contact, incarnation: rumour.incarnation, life })
    };
    rumours.map(parse).collect()
}

/// The hashes of all a node says of others; none if it sent none.
pub(crate) fn parse_roll_digest(hashes: Vec<u64>) -> Result<Option<RollDigest>, WireError> {
    if hashes.is_empty() {
        return Ok(None);
    }
    let got = hashes.len();
    let hashes = hashes.try_into().map(RollDigest::new);
    let wrong =
        |_| WireError::Field(format!("a digest has {} hashes, not {got}", RollDigest::BUCKETS));
    hashes.map(Some).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_node_stands_at_one_place_which_it_can_be_told_of_at() {
        let id = NodeId::new(Uuid::from_u128(1));
        let at = |index| pb::NodeInfo {
            node_id: id.to_string(),
            index,
            position: Position::of_node(id, index).to_string(),
            address: "10.0.0.1:7073".to_owned(),
            location: None,
        };
        let node = parse_contact(Some(at(0)), Seen::Elsewhere).expect("it stands there");
        assert_eq!(parse_contact(Some(contact(&node)), Seen::Elsewhere), Ok(node));
        let refused = parse_contact(Some(at(1)), Seen::Elsewhere).expect_err("it is elsewhere");
        assert!(refused.to_string().contains("stands at its place 0 alone, not at 1"), "{refused}");
    }
}
