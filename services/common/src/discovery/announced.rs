//! Announced peers, checked field by field.

use std::net::IpAddr;

use shoal_core::{
    address::{Address, AddressError},
    registry::{Location, Peer},
};
use shoal_proto::types::v1 as pb;

use crate::{advertised::AdvertisedAddresses, status::Violations};

/// The longest name of a region, zone or node, as that of a DNS label.
const MAX_LOCATION_BYTES: usize = 63;

/// The peer, if it is valid and its address is accepted by the rule. An unspecified host is
/// replaced by the observed one.
pub fn peer(
    peer: pb::PeerInfo,
    source: IpAddr,
    rule: AdvertisedAddresses,
    violations: &mut Violations,
) -> Option<Peer> {
    let pb::Location { region, zone, node } = peer.location.unwrap_or_default();
    let id = violations.take("peer.peer_id", peer.peer_id.parse());
    let address = violations.take("peer.address", dialable(&peer.address, source, rule));
    let region = violations.short("peer.location.region", region, MAX_LOCATION_BYTES);
    let zone = violations.short("peer.location.zone", zone, MAX_LOCATION_BYTES);
    let node = violations.short("peer.location.node", node, MAX_LOCATION_BYTES);
    Some(Peer {
        id: id?,
        address: address?,
        location: Location { region: region?, zone: zone?, node: node? },
        complete: peer.complete,
    })
}

fn dialable(address: &str, source: IpAddr, rule: AdvertisedAddresses) -> Result<Address, String> {
    let address: Address = address.parse().map_err(|error: AddressError| error.to_string())?;
    if address.port() == 0 {
        return Err("nobody can dial port 0; name the port you listen on".to_owned());
    }
    rule.accept(address, source).map_err(|refused| refused.to_string())
}

/// The peer as it is told to others.
pub fn info(Peer { id, address, location, complete }: Peer) -> pb::PeerInfo {
    let Location { region, zone, node } = location;
    pb::PeerInfo {
        peer_id: id.to_string(),
        address: address.into(),
        location: Some(pb::Location { region, zone, node }),
        complete,
    }
}
