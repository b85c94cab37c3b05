//! Calls that maintain the ring.

use shoal_common::channel::Channel;
use shoal_core::{
    Address,
    ring::{Contact, Entry, Found, MembershipDigest, Position, State},
};
use shoal_proto::dht::v1::{self as pb, dht_service_client::DhtServiceClient, target::Kind};

use super::{CallError, Calls, Client};
use crate::wire::{self, Addressee, Provenance};

/// A client of this node that no other node accepts, even if it has the address now.
fn client(channel: Channel, to: &Contact) -> Client {
    DhtServiceClient::with_interceptor(channel, Addressee(to.id))
}

impl Calls {
    /// A node's answer about a position. It may take longer than usual; a caller that cannot wait
    /// asks other nodes in the meantime.
    pub(crate) async fn find_successor(
        &self,
        of: Position,
        to: &Contact,
    ) -> Result<Found, CallError> {
        let target = Some(pb::Target { kind: Some(Kind::Position(of.to_string())) });
        let request = pb::FindSuccessorRequest { target };
        let call = async |channel| DhtServiceClient::new(channel).find_successor(request).await;
        let found = self.unhurried(to, call).await?;
        parsed(&to.address, wire::parse_found(found, Provenance::at(&to.address)))
    }

    pub(crate) async fn notify(&self, of: &State, to: &Contact) -> Result<State, CallError> {
        let request = pb::NotifyRequest { state: Some(wire::state(of)) };
        let call = async |channel| client(channel, to).notify(request).await;
        let response = self.quick(to, call).await?;
        parsed(&to.address, wire::parse_state(response.state, Provenance::at(&to.address)))
    }

    pub(crate) async fn state(&self, of: &Contact) -> Result<State, CallError> {
        let request = pb::GetStateRequest::default();
        let call = async |channel| DhtServiceClient::new(channel).get_state(request).await;
        let response = self.quick(of, call).await?;
        parsed(&of.address, wire::parse_state(response.state, Provenance::at(&of.address)))
    }

    /// The state of the node at an address.
    pub(crate) async fn state_at(&self, address: &Address) -> Result<State, CallError> {
        let request = pb::GetStateRequest::default();
        let call = async |channel| DhtServiceClient::new(channel).get_state(request).await;
        let response = self.within(address, super::CONNECT_TIMEOUT, call).await?;
        parsed(address, wire::parse_state(response.state, Provenance::at(address)))
    }

    pub(crate) async fn probe(
        &self,
        of: &State,
        to: &Contact,
    ) -> Result<(State, Found), CallError> {
        let request = pb::ProbeRequest { state: Some(wire::state(of)) };
        let call = async |channel| client(channel, to).probe(request).await;
        let response = self.quick(to, call).await?;
        let next = response.next.ok_or(wire::WireError::Missing("what is next"));
        let provenance = Provenance::at(&to.address);
        let next = next.and_then(|next| wire::parse_found(next, provenance));
        let state = wire::parse_state(response.state, provenance);
        parsed(&to.address, state.and_then(|state| Ok((state, next?))))
    }

    pub(crate) async fn gossip(
        &self,
        entries: &[Entry],
        digest: &MembershipDigest,
        to: &Contact,
    ) -> Result<Vec<Entry>, CallError> {
        let rumours = entries.iter().map(wire::rumour).collect();
        let request = pb::GossipRequest { rumours, digest: digest.hashes().to_vec() };
        let call = async |channel| client(channel, to).gossip(request).await;
        let response = self.quick(to, call).await?;
        parsed(&to.address, wire::parse_rumours(response.rumours, Provenance::at(&to.address)))
    }
}

pub(super) fn parsed<T>(
    from: &Address,
    parsed: Result<T, wire::WireError>,
) -> Result<T, CallError> {
    parsed.map_err(|error| CallError::Garbage(from.clone(), error))
}
