//! Nodes, their neighbours, and gossip about them.

use std::net::{IpAddr, Ipv4Addr};

use shoal_common::advertised::{AdvertisedAddresses, may_learn};
use shoal_core::{
    Address,
    ring::{Contact, Entry, Found, Life, MembershipDigest, NodeId, Position, Standing, State},
};
use shoal_proto::dht::v1 as pb;

use super::{
    WireError,
    error::{at_most, field},
};
use crate::counters::is_credible;

/// Successors, or closer nodes, in one message.
const MAX_NODES: usize = 128;
/// Rumours in one message.
const MAX_RUMOURS: usize = 256;

/// The source of a node's address, which decides how it is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Provenance {
    /// The node itself, in a call from this host: the setting decides whether the address is
    /// accepted, and an unspecified host stands for the observed one.
    Itself(IpAddr, AdvertisedAddresses),
    /// A node on this host: its addresses are useful to others.
    Hearsay(IpAddr),
    /// A replica set that has the node as a member, chosen perhaps long ago.
    ReplicaSet,
}

impl Provenance {
    /// An answer from the node that was dialled at this address.
    pub(crate) fn at(address: &Address) -> Self {
        // Whether a name stands for this host is not known here.
        Self::Hearsay(address.ip().unwrap_or(Ipv4Addr::UNSPECIFIED.into()))
    }

    /// How the same node's hearsay about others is judged.
    const fn of_others(self) -> Self {
        match self {
            Self::Itself(seen, _) => Self::Hearsay(seen),
            provenance => provenance,
        }
    }
}

pub(crate) fn contact(contact: &Contact) -> pb::NodeInfo {
    pb::NodeInfo {
        node_id: contact.id.to_string(),
        index: 0,
        position: contact.position.to_string(),
        address: String::from(&contact.address),
        location: None,
    }
}

pub(crate) fn parse_contact(
    info: Option<pb::NodeInfo>,
    provenance: Provenance,
) -> Result<Contact, WireError> {
    let info = info.ok_or(WireError::Missing("the node"))?;
    let id: NodeId = info.node_id.parse().map_err(field)?;
    // The gossip that is forwarded and stored has no field for another address.
    if info.index != 0 {
        let words = format!("node {id} has one position, with index 0, not {}", info.index);
        return Err(WireError::Field(words));
    }
    let right = Position::of_node(id, 0);
    if right.to_string() != info.position {
        return Err(WireError::Position { id: info.node_id, claimed: info.position, right });
    }
    dialable(right, id, &info.address, provenance)
}

/// A node given by its id and address alone.
pub(crate) fn parse_named(id: &str, address: &str) -> Result<Contact, WireError> {
    let id: NodeId = id.parse().map_err(field)?;
    dialable(Position::of_node(id, 0), id, address, Provenance::ReplicaSet)
}

fn dialable(
    position: Position,
    id: NodeId,
    address: &str,
    provenance: Provenance,
) -> Result<Contact, WireError> {
    let address: Address = address.parse().map_err(field)?;
    let address = match provenance {
        Provenance::Itself(observed, rule) => rule.accept(address, observed).map_err(field)?,
        Provenance::Hearsay(teacher) if !may_learn(&address, teacher) => {
            return Err(WireError::HostLocal(address));
        }
        Provenance::ReplicaSet if address.is_unspecified() => {
            return Err(WireError::HostLocal(address));
        }
        Provenance::Hearsay(_) | Provenance::ReplicaSet => address,
    };
    if address.port() == 0 {
        return Err(WireError::Field(format!("nobody can dial {address}")));
    }
    Ok(Contact { position, id, address })
}

/// A node known from hearsay; none if its address cannot be dialled from here.
fn parse_hearsay(
    info: Option<pb::NodeInfo>,
    provenance: Provenance,
) -> Result<Option<Contact>, WireError> {
    match parse_contact(info, provenance.of_others()) {
        Ok(contact) => Ok(Some(contact)),
        Err(WireError::HostLocal(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse_contacts(
    what: &'static str,
    nodes: Vec<pb::NodeInfo>,
    provenance: Provenance,
) -> Result<Vec<Contact>, WireError> {
    let nodes = at_most(what, nodes, MAX_NODES)?.into_iter();
    nodes.filter_map(|node| parse_hearsay(Some(node), provenance).transpose()).collect()
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

pub(crate) fn parse_state(
    state: Option<pb::NodeState>,
    provenance: Provenance,
) -> Result<State, WireError> {
    let state = state.ok_or(WireError::Missing("the state"))?;
    let standing = match state.standing() {
        pb::Standing::Member => Standing::Member,
        pb::Standing::Leaving => Standing::Leaving,
        pb::Standing::Joining | pb::Standing::Unspecified => Standing::Joining,
    };
    let predecessor =
        state.predecessor.map(|node| parse_hearsay(Some(node), provenance)).transpose()?;
    Ok(State {
        node: parse_contact(state.node, provenance)?,
        standing,
        predecessor: predecessor.flatten(),
        successors: parse_contacts("successors", state.successors, provenance)?,
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

pub(crate) fn parse_found(
    found: pb::FindSuccessorResponse,
    provenance: Provenance,
) -> Result<Found, WireError> {
    Ok(Found {
        node: parse_contact(found.node, provenance)?,
        owns: found.owns,
        successors: parse_contacts("successors", found.successors, provenance)?,
        closer: parse_contacts("closer nodes", found.closer, provenance)?,
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

/// Gossip about nodes. An entry with an absurd incarnation is left out, because the node that it is
/// about could not refute it; refusing the whole message would silence a node whose clock is far
/// ahead. An address that cannot be dialled from here is left out as well.
pub(crate) fn parse_rumours(
    rumours: Vec<pb::Rumour>,
    provenance: Provenance,
) -> Result<Vec<Entry>, WireError> {
    let rumours = at_most("rumours", rumours, MAX_RUMOURS)?.into_iter();
    let rumours = rumours.filter(|rumour| is_credible(rumour.incarnation));
    let parse = |rumour: pb::Rumour| {
        let life = match rumour.life() {
            pb::Life::Alive => Life::Alive,
            pb::Life::Left => Life::Left,
            pb::Life::Dead => Life::Dead,
            pb::Life::Unspecified => return Err(WireError::Missing("the life")),
        };
        let contact = parse_hearsay(rumour.node, provenance)?;
        Ok(contact.map(|contact| Entry { contact, incarnation: rumour.incarnation, life }))
    };
    rumours.filter_map(|rumour| parse(rumour).transpose()).collect()
}

/// The digest of a node's membership list; none if it sent none.
pub(crate) fn parse_membership_digest(
    hashes: Vec<u64>,
) -> Result<Option<MembershipDigest>, WireError> {
    if hashes.is_empty() {
        return Ok(None);
    }
    let got = hashes.len();
    let hashes = hashes.try_into().map(MembershipDigest::new);
    let wrong = |_| {
        WireError::Field(format!("a digest has {} hashes, not {got}", MembershipDigest::BUCKETS))
    };
    hashes.map(Some).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_node_has_one_position_and_is_accepted_there_alone() {
        let id = NodeId::new(Uuid::from_u128(1));
        let at = |index| pb::NodeInfo {
            node_id: id.to_string(),
            index,
            position: Position::of_node(id, index).to_string(),
            address: "10.0.0.1:7073".to_owned(),
            location: None,
        };
        let node = parse_contact(Some(at(0)), Provenance::ReplicaSet).expect("it is there");
        assert_eq!(parse_contact(Some(contact(&node)), Provenance::ReplicaSet), Ok(node));
        let refused =
            parse_contact(Some(at(1)), Provenance::ReplicaSet).expect_err("it is elsewhere");
        assert!(refused.to_string().contains("has one position, with index 0, not 1"), "{refused}");
    }

    fn info(number: u128, address: &str) -> pb::NodeInfo {
        let id = NodeId::new(Uuid::from_u128(number));
        let position = Position::of_node(id, 0).to_string();
        let (node_id, address) = (id.to_string(), address.to_owned());
        pb::NodeInfo { node_id, position, address, ..pb::NodeInfo::default() }
    }

    fn state_of(
        address: &str,
        others: &[&str],
        provenance: Provenance,
    ) -> Result<State, WireError> {
        let others = others.iter().enumerate();
        let others: Vec<_> =
            others.map(|(number, address)| info(number as u128, address)).collect();
        let state = pb::NodeState {
            node: Some(info(99, address)),
            standing: pb::Standing::Member.into(),
            predecessor: others.first().cloned(),
            successors: others,
        };
        parse_state(Some(state), provenance)
    }

    fn addresses(nodes: &[Contact]) -> Vec<String> {
        nodes.iter().map(|node| node.address.to_string()).collect()
    }

    const LOCAL: [&str; 5] =
        ["127.0.0.1:22", "[::1]:22", "169.254.169.254:80", "0.0.0.0:22", "localhost:22"];

    #[test]
    fn a_node_advertises_its_observed_address_unless_the_setting_allows_others() {
        let seen: IpAddr = [10, 0, 0, 1].into();
        let accepted = |address, rule| {
            let state = state_of(address, &[], Provenance::Itself(seen, rule));
            state.map(|state| state.node.address.to_string())
        };
        let (observed, any) = (AdvertisedAddresses::Observed, AdvertisedAddresses::Any);
        for rule in [observed, any] {
            for address in ["10.0.0.1:7071", "0.0.0.0:7071"] {
                assert_eq!(accepted(address, rule).as_deref(), Ok("10.0.0.1:7071"));
            }
            for address in ["127.0.0.1:22", "169.254.169.254:80", "localhost:22", "10.0.0.1:0"] {
                assert!(accepted(address, rule).is_err(), "{address}");
            }
        }
        for address in ["10.0.0.2:7071", "node.example:7071"] {
            let refused = accepted(address, observed).expect_err("it is elsewhere").to_string();
            assert!(refused.contains("advertised_addresses"), "{refused}");
            assert_eq!(accepted(address, any).as_deref(), Ok(address));
        }
    }

    #[test]
    fn addresses_of_others_that_cannot_be_dialled_from_here_are_left_out() {
        let others = [&LOCAL[..], &["10.0.0.2:7071"]].concat();
        let rule = AdvertisedAddresses::Observed;
        for provenance in [
            Provenance::Itself([10, 0, 0, 1].into(), rule),
            Provenance::at(&"10.0.0.1:7071".parse().expect("an address")),
            Provenance::at(&"name:1".parse().expect("an address")),
        ] {
            let state = state_of("10.0.0.1:7071", &others, provenance).expect("the rest is taken");
            assert_eq!(addresses(&state.successors), ["10.0.0.2:7071"]);
            assert_eq!(state.predecessor, None);
        }
        let rumours = |provenance| {
            let rumour = |address: &&str| pb::Rumour {
                node: Some(info(7, address)),
                incarnation: 1,
                life: pb::Life::Alive.into(),
            };
            let entries = parse_rumours(others.iter().map(rumour).collect(), provenance);
            entries.expect("they are well-formed").len()
        };
        assert_eq!(rumours(Provenance::Hearsay([10, 0, 0, 1].into())), 1);
        assert_eq!(
            rumours(Provenance::Hearsay([127, 0, 0, 1].into())),
            5,
            "all but the unspecified one"
        );
    }
}
