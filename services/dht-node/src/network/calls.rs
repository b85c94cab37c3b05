//! Calls to other nodes of the ring, in the node's own types.

#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod replica;
mod ring;

use std::{
    collections::HashMap,
    error::Error as _,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use shoal_common::{
    advertised::may_learn,
    channel::{Channel, Options},
    lock::Mutex,
};
use shoal_core::{
    Address,
    ring::{Contact, LiveNodes, NodeId, Position, TimeoutSettings, Timeouts},
};
use shoal_proto::dht::v1::dht_service_client::DhtServiceClient;
use tokio::time::timeout;
use tonic::{Code, Response, Status, service::interceptor::InterceptedService};

use crate::{
    network::dial_limiter::{DialLimiter, DialPurpose},
    wire::{
        Addressee, WireError,
        refusal::{self, Reason},
    },
};

/// A client of one node. Each of its calls names that node.
pub(crate) type Client = DhtServiceClient<InterceptedService<Channel, Addressee>>;

/// Channels kept open, at most; beyond that, one that is not in use is closed.
const MAX_CHANNELS: usize = 1024;
/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);
/// Longest wait for an answer that usually comes far sooner, while other nodes are asked as well.
const LATE_PATIENCE: Duration = Duration::from_secs(1);
/// Longest wait for records to be read or stored: disks are slower than round trips.
const DISK_PATIENCE: Duration = Duration::from_secs(3);

/// Why another node has not answered.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// No answer in time.
    #[error("{0} does not answer")]
    Silent(Address),
    /// It is known from hearsay, and too many such addresses were dialled recently.
    #[error(
        "{0} is not dialled now: no node has answered there yet, nor at other addresses of its host"
    )]
    NotDialled(Address),
    /// Nothing listens there, so the call had no effect.
    #[error("{0} cannot be reached")]
    Unreachable(Address),
    /// It refuses.
    #[error("{0} refuses: {message}", message = .1.message())]
    Refused(Address, Box<Status>),
    /// Its answer is invalid.
    #[error("{0} sent an invalid answer: {1}")]
    Garbage(Address, WireError),
}

/// Makes calls, and keeps channels and round-trip times for later calls. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Calls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The IP address of this node; unspecified if it advertises a name.
    here: IpAddr,
    channels: Mutex<HashMap<Address, Channel>>,
    timeouts: Mutex<Timeouts>,
    dial_limiter: DialLimiter,
    /// The nodes that are alive, by the membership list.
    live_nodes: Mutex<LiveNodes>,
}

impl Calls {
    /// The calls of this node.
    pub(crate) fn new(me: &Contact) -> Self {
        Self(Arc::new(Inner {
            here: me.address.ip().unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
            channels: Mutex::default(),
            timeouts: Mutex::new(Timeouts::new(TimeoutSettings::default())),
            dial_limiter: DialLimiter::new(Instant::now()),
            live_nodes: Mutex::default(),
        }))
    }

    /// Updates where nodes are.
    pub(crate) fn go_by(&self, live_nodes: LiveNodes) {
        *self.0.live_nodes.lock() = live_nodes;
    }

    /// The addresses of the nodes of the ring, by the membership list.
    pub(crate) fn nodes(&self) -> Vec<Address> {
        let live_nodes = self.0.live_nodes.lock().clone();
        let nodes = live_nodes.from(Position::from_u128(0));
        nodes.map(|node| node.address.clone()).collect()
    }

    /// The present address of a member of a replica set: nodes that restarted may have other
    /// addresses than when the set was agreed on, or each other's. The source of the set is no
    /// longer known, so an address that leads to a host itself is not used, unless this node has
    /// one of those.
    fn at_present(&self, member: &Contact) -> Result<Contact, CallError> {
        let live_nodes = self.0.live_nodes.lock();
        let known = live_nodes.owner_of(member.position).filter(|known| known.id == member.id);
        if let Some(known) = known {
            return Ok(known.clone());
        }
        if may_learn(&member.address, self.0.here) {
            Ok(member.clone())
        } else {
            Err(CallError::Unreachable(member.address.clone()))
        }
    }

    /// A client of another node that no other node accepts, even if it has the address now. If the
    /// node answers, [`Calls::met`] must be called.
    pub(crate) fn client(&self, of: &Contact) -> Result<Client, Status> {
        let address = self
            .at_present(of)
            .and_then(|Contact { address, .. }| {
                self.may_dial(&address, DialPurpose::Other).map(|()| address)
            })
            .map_err(|error| refusal::status(Reason::NotServing, error.to_string()))?;
        Ok(DhtServiceClient::with_interceptor(self.channel(&address), Addressee(of.id)))
    }

    /// A node answered one of its clients.
    pub(crate) fn met(&self, node: &Contact) {
        if let Ok(node) = self.at_present(node) {
            self.0.dial_limiter.met(&node.address);
        }
    }

    fn may_dial(&self, address: &Address, purpose: DialPurpose) -> Result<(), CallError> {
        let may_dial = self.0.dial_limiter.may_dial(address, purpose, Instant::now());
        if may_dial { Ok(()) } else { Err(CallError::NotDialled(address.clone())) }
    }

    /// A channel to an address.
    fn channel(&self, address: &Address) -> Channel {
        let mut channels = self.0.channels.lock();
        if let Some(channel) = channels.get(address) {
            return channel.clone();
        }
        if channels.len() >= MAX_CHANNELS
            && let Some(other) = channels.keys().next().cloned()
        {
            channels.remove(&other);
        }
        let options = Options { connect_timeout: CONNECT_TIMEOUT, ..Options::default() };
        let channel = Channel::lazy(address, &options);
        channels.insert(address.clone(), channel.clone());
        channel
    }

    /// Makes a call that is answered from memory, to find out whether a node is alive. The timeout
    /// follows from the round-trip times of earlier calls.
    async fn quick<R>(
        &self,
        to: &Contact,
        call: impl AsyncFnOnce(Channel) -> Result<Response<R>, Status>,
    ) -> Result<R, CallError> {
        self.may_dial(&to.address, DialPurpose::Maintenance)?;
        let patience = self.usual_wait(to.id);
        let asked = Instant::now();
        let answer = self.within(&to.address, patience, call).await;
        let mut timeouts = self.0.timeouts.lock();
        match &answer {
            Ok(_) => timeouts.answered(to.id, asked.elapsed()),
            Err(CallError::Silent(_)) => timeouts.expired(to.id, asked, Instant::now()),
            Err(_) => {}
        }
        answer
    }

    /// Makes a call that is answered from memory, and waits longer than a caller should wait before
    /// it asks other nodes: see [`Calls::usual_wait`]. There are many of these, and if each failure
    /// counted, [`Calls::quick`] would wait ever longer for a dead node.
    async fn unhurried<R>(
        &self,
        to: &Contact,
        call: impl AsyncFnOnce(Channel) -> Result<Response<R>, Status>,
    ) -> Result<R, CallError> {
        self.may_dial(&to.address, DialPurpose::Other)?;
        let asked = Instant::now();
        let patience = LATE_PATIENCE.max(self.usual_wait(to.id));
        let answer = self.within(&to.address, patience, call).await?;
        self.0.timeouts.lock().answered(to.id, asked.elapsed());
        Ok(answer)
    }

    /// How long a node's answer may take, by its earlier answers.
    pub(crate) fn usual_wait(&self, of: NodeId) -> Duration {
        self.0.timeouts.lock().timeout(of)
    }

    /// Makes a call to a member of a replica set that needs its disk.
    async fn patient<R>(
        &self,
        to: &Contact,
        call: impl AsyncFnOnce(Channel) -> Result<Response<R>, Status>,
    ) -> Result<R, CallError> {
        let address = self.at_present(to)?.address;
        self.may_dial(&address, DialPurpose::Other)?;
        self.within(&address, DISK_PATIENCE, call).await
    }

    async fn within<R>(
        &self,
        address: &Address,
        patience: Duration,
        call: impl AsyncFnOnce(Channel) -> Result<Response<R>, Status>,
    ) -> Result<R, CallError> {
        match timeout(patience, call(self.channel(address))).await {
            Ok(Ok(response)) => {
                self.0.dial_limiter.met(address);
                Ok(response.into_inner())
            }
            Ok(Err(status)) if never_sent(&status) => Err(CallError::Unreachable(address.clone())),
            Ok(Err(status)) if status.code() == Code::DeadlineExceeded => Err(self.silent(address)),
            Ok(Err(status)) => Err(CallError::Refused(address.clone(), Box::new(status))),
            Err(_) => Err(self.silent(address)),
        }
    }

    /// A connection that loses packets waits ever longer before it retransmits: the next call uses
    /// a new one.
    fn silent(&self, address: &Address) -> CallError {
        self.0.channels.lock().remove(address);
        CallError::Silent(address.clone())
    }
}

/// The connection failed before the request was sent.
pub(crate) fn never_sent(status: &Status) -> bool {
    let mut error = status.source();
    while let Some(cause) = error {
        if cause.is::<tonic::ConnectError>() {
            return true;
        }
        error = cause.source();
    }
    false
}
