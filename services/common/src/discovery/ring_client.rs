//! A client of the ring (`shoal.dht.v1`). Any node works as a bootstrap: the client learns about
//! its neighbours, and routes around failed nodes. A name may have many nodes.

use std::{fmt, time::Duration};

use rand::seq::SliceRandom as _;
use shoal_core::Address;
use shoal_proto::dht::v1::{
    GetStateRequest, NodeInfo, NodeState, Standing, dht_service_client::DhtServiceClient,
};
use tokio::time::{Instant, timeout_at};
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::{
    channel::{Channel, Options},
    dns::DnsCache,
    status,
};

/// A client of one node.
pub type Client = DhtServiceClient<Channel>;

/// A node that has not told its state in this time delays the client no further.
const PATIENCE: Duration = Duration::from_secs(2);

/// Nodes of a name whose failure is reported individually.
const MAX_REASONS: usize = 3;

/// Neighbours remembered in case the node that answers fails: as many successors as a node keeps in
/// a ring of a few hundred.
const MAX_LEARNT: usize = 16;

/// The `ErrorInfo` reason of a refused call that had no effect: the node does not serve the key, or
/// not yet.
pub const NOT_SERVING: &str = "NOT_SERVING";
/// Another such reason: the call was delayed for too long.
pub const TOO_LATE: &str = "TOO_LATE";

/// The metadata key of the id of the node that a call is meant for. Calls between ring nodes have
/// it: another node may have the address by now.
pub const ADDRESSEE: &str = "shoal-addressee";

/// A ring, known by some of its nodes.
pub struct RingClient {
    /// The configured nodes. They are asked when no other is left.
    seeds: Vec<Address>,
    names: DnsCache,
    /// The neighbours of the node that answered last.
    learnt: Vec<Address>,
    current: Option<Node>,
}

/// A node that has just answered.
#[derive(Clone)]
pub struct Node {
    /// Its address.
    pub address: Address,
    /// The name that it was found by, if any.
    pub name: Option<Address>,
    /// A client for further calls.
    pub client: Client,
}

/// A node that cannot be used at present.
#[derive(Clone, Debug)]
pub struct PassedOver {
    /// Its address. A name is listed if none of its nodes can be used.
    pub address: Address,
    /// The reason.
    pub reason: String,
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.address, self.reason)
    }
}

impl RingClient {
    /// The ring of these nodes.
    pub fn new(seeds: Vec<Address>) -> Self {
        Self::by(seeds, DnsCache::default())
    }

    /// The ring of these nodes, whose names are resolved by `names`.
    pub fn by(mut seeds: Vec<Address>, names: DnsCache) -> Self {
        // So that many clients with the same nodes do not all ask the same one.
        seeds.shuffle(&mut rand::rng());
        Self { seeds, names, learnt: Vec::new(), current: None }
    }

    /// A node of the ring that answers: the previous one if it still does, else another. Failed
    /// ones are listed in `passed_over`; none is returned if none answers before the deadline.
    pub async fn node(
        &mut self,
        deadline: Instant,
        passed_over: &mut Vec<PassedOver>,
    ) -> Option<Node> {
        let mut asked = Vec::new();
        for candidate in self.candidates() {
            if Instant::now() >= deadline {
                break;
            }
            match self.node_behind(&candidate, deadline, &mut asked).await {
                Ok(node) => return Some(node),
                Err(reason) => {
                    self.forget(&candidate);
                    passed_over.push(PassedOver { address: candidate, reason });
                }
            }
        }
        None
    }

    /// A node at an address or of a name, except those that were asked already.
    async fn node_behind(
        &mut self,
        candidate: &Address,
        deadline: Instant,
        asked: &mut Vec<Address>,
    ) -> Result<Node, String> {
        let is_name = candidate.ip().is_none() && self.seeds.contains(candidate);
        let addresses = if is_name {
            let found = timeout_at(deadline, self.names.addresses(candidate)).await;
            let found = found.map_err(|_| "the resolver does not answer".to_owned())?;
            let mut found = found.map_err(|error| error.to_string())?;
            found.shuffle(&mut rand::rng());
            found
        } else {
            vec![candidate.clone()]
        };
        let mut reasons = Vec::new();
        for address in addresses {
            let now = Instant::now();
            if asked.contains(&address) {
                continue;
            }
            if now >= deadline {
                break;
            }
            let current = self.current.take_if(|node| node.address == address);
            let answer = timeout_at(deadline.min(now + PATIENCE), ask(&address, current)).await;
            match answer.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
                Ok((client, state)) => {
                    self.learnt = around(&state);
                    self.learnt.shuffle(&mut rand::rng());
                    let name = is_name.then(|| candidate.clone());
                    return Ok(self.current.insert(Node { address, name, client }).clone());
                }
                Err(reason) if is_name => reasons.push(format!("{address}: {reason}")),
                Err(reason) => reasons.push(reason),
            }
            asked.push(address);
        }
        Err(in_short(reasons))
    }

    /// The node that was returned last cannot be used: another one is asked first.
    pub fn pass_over(&mut self) {
        if let Some(node) = self.current.take() {
            self.forget(&node.address);
        }
    }

    /// Nodes in the order in which they are asked.
    fn candidates(&self) -> Vec<Address> {
        let current = self.current.iter().map(|node| &node.address);
        let mut candidates = Vec::new();
        for address in current.chain(&self.learnt).chain(&self.seeds) {
            if !candidates.contains(address) {
                candidates.push(address.clone());
            }
        }
        candidates
    }

    /// A seed is asked again later, after the others.
    fn forget(&mut self, address: &Address) {
        self.learnt.retain(|learnt| learnt != address);
        self.seeds.sort_by_key(|seed| seed == address);
    }
}

/// A refusal after which it is certain that nothing was written, although a retry may write.
pub fn nothing_happened(status: &Status) -> bool {
    let info = status.get_details_error_info();
    info.is_some_and(|info| [NOT_SERVING, TOO_LATE].contains(&info.reason.as_str()))
}

/// Asks a node for its state, over the present connection or a new one.
async fn ask(address: &Address, connected: Option<Node>) -> Result<(Client, NodeState), String> {
    let mut client = if let Some(node) = connected {
        node.client
    } else {
        let channel = Channel::connect(address, &Options::default()).await;
        Client::new(channel.map_err(|error| error.reason().to_owned())?)
    };
    let answer = client.get_state(GetStateRequest { details: false }).await;
    let answer = answer.map_err(|refusal| format!("no ring node: {}", status::words(&refusal)))?;
    let state = answer.into_inner().state.unwrap_or_default();
    match state.standing() {
        Standing::Member | Standing::Leaving => Ok((client, state)),
        Standing::Joining | Standing::Unspecified => Err("not in a ring yet".to_owned()),
    }
}

/// The errors of several nodes, as far as they are worth reading.
fn in_short(mut reasons: Vec<String>) -> String {
    let others = reasons.len().saturating_sub(MAX_REASONS);
    reasons.truncate(MAX_REASONS);
    match others {
        0 if reasons.is_empty() => "nobody else is behind it".to_owned(),
        0 => reasons.join(", "),
        _ => format!("{}, and {others} more", reasons.join(", ")),
    }
}

/// The neighbours of a node that can be dialled.
fn around(state: &NodeState) -> Vec<Address> {
    let neighbours = state.successors.iter().chain(&state.predecessor);
    let dialable = |node: &NodeInfo| {
        let address: Address = node.address.parse().ok()?;
        (!address.is_unspecified() && address.port() != 0).then_some(address)
    };
    neighbours.filter_map(dialable).take(MAX_LEARNT).collect()
}

#[cfg(test)]
mod tests {
    use std::{future::ready, io, net::SocketAddr};

    use super::*;

    fn address(text: &str) -> Address {
        text.parse().expect(text)
    }

    fn node(text: &str) -> NodeInfo {
        NodeInfo { address: text.to_owned(), ..NodeInfo::default() }
    }

    #[test]
    fn what_a_broken_node_makes_up_is_not_dialled() {
        let state = NodeState {
            predecessor: Some(node("10.0.0.1:7071")),
            successors: ["", "nonsense", "0.0.0.0:7071", "10.0.0.2:0", "10.0.0.2:7071"]
                .map(node)
                .to_vec(),
            ..NodeState::default()
        };
        assert_eq!(around(&state), [address("10.0.0.2:7071"), address("10.0.0.1:7071")]);
        let many = (1..=200).map(|port| node(&format!("10.0.0.1:{port}"))).collect();
        let state = NodeState { successors: many, ..NodeState::default() };
        assert_eq!(around(&state).len(), MAX_LEARNT);
    }

    #[test]
    fn a_seed_that_failed_is_asked_after_the_others_and_one_that_was_learnt_no_more() {
        let mut ring = RingClient::new(vec![address("a:1"), address("b:1")]);
        let first = ring.candidates()[0].clone();
        ring.learnt = vec![address("c:1"), first.clone()];
        ring.forget(&first);
        ring.forget(&address("d:1"));
        let second = if first == address("a:1") { address("b:1") } else { address("a:1") };
        assert_eq!(ring.candidates(), [address("c:1"), second.clone(), first.clone()]);
        ring.forget(&address("c:1"));
        assert_eq!(ring.candidates(), [second, first]);
    }

    #[tokio::test]
    async fn a_name_is_passed_over_once_nobody_behind_it_is_of_use() {
        let names = DnsCache::by(|_| {
            ready(Ok((1..=5).map(|host| SocketAddr::from(([127, 0, 0, host], 1))).collect()))
        });
        let name = address("dht-node:1");
        let mut ring = RingClient::by(vec![name.clone(), address("127.0.0.1:1")], names);
        let mut passed_over = Vec::new();
        assert!(ring.node(Instant::now() + PATIENCE, &mut passed_over).await.is_none());
        let about = |address: &Address| {
            let found = passed_over.iter().find(|node| node.address == *address);
            found.expect("it is named").reason.clone()
        };
        // A node that is named by IP address as well is asked once.
        let others = if passed_over[0].address == name { 2 } else { 1 };
        let reason = about(&name);
        assert!(reason.ends_with(&format!(", and {others} more")), "{reason}");
        assert_eq!(reason.matches("refused").count(), MAX_REASONS, "{reason}");
        assert_eq!(passed_over.len(), 2);

        let names = DnsCache::by(|_| ready(Err(io::Error::other("no such host"))));
        let mut ring = RingClient::by(vec![name], names);
        passed_over.clear();
        assert!(ring.node(Instant::now() + PATIENCE, &mut passed_over).await.is_none());
        assert!(passed_over[0].reason.contains("no such host"), "{passed_over:?}");
    }

    #[tokio::test]
    async fn a_node_that_is_passed_over_is_named_with_the_reason() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = Address::from(listener.local_addr().expect("it is bound"));
        let mut ring = RingClient::new(vec![address.clone()]);
        let mut passed_over = Vec::new();
        let deadline = Instant::now() + Duration::from_millis(100);
        assert!(ring.node(deadline, &mut passed_over).await.is_none());
        drop(listener);
        let deadline = Instant::now() + PATIENCE;
        assert!(ring.node(deadline, &mut passed_over).await.is_none());
        let [silent, closed] = &*passed_over else { panic!("{passed_over:?}") };
        assert_eq!(silent.to_string(), format!("{address}: no answer in time"));
        assert!(closed.reason.contains("refused"), "{closed}");
    }
}
