//! Announces to the ring: any of its nodes forwards announces and requests.

use std::time::Duration;

use shoal_common::{
    dns::DnsCache,
    ring_client::{Client, Node, PassedOver, RingClient},
};
use shoal_core::{Address, peer_list::Candidate};
use shoal_proto::dht::v1::{AnnouncePeerRequest, GetPeersRequest};
use tokio::time::Instant;

use super::{
    announce::{Announce, Reason, Round, Subject, answer, within_reason},
    event::{AnnounceTarget, Outcome},
};

/// The default interval of a node: the ring keeps a peer for three of these.
const USUAL_INTERVAL: Duration = Duration::from_secs(300);

pub(super) struct Ring(RingClient);

impl Ring {
    /// The ring of these nodes.
    pub(super) fn new(nodes: Vec<Address>, names: DnsCache) -> Self {
        Self(RingClient::by(nodes, names))
    }
}

impl Announce for Ring {
    /// Asks one node that answers. A peer is announced before it asks for others: of two that start
    /// together, one learns about the other.
    async fn announce(&mut self, subject: &Subject, reason: Reason, patience: Duration) -> Round {
        let deadline = Instant::now() + patience;
        let mut passed_over = Vec::new();
        let node = self.0.node(deadline, &mut passed_over).await;
        let mut round =
            Round { outcomes: passed_over.into_iter().map(useless).collect(), interval: None };
        let Some(Node { address, name, mut client }) = node else { return round };
        let mut refusal = None;
        if reason != Reason::Seeking {
            match announce(&mut client, subject, reason, deadline).await {
                Ok(interval) => round.interval = Some(interval),
                Err(error) => refusal = Some(error),
            }
        }
        if reason == Reason::Stopped {
            return round;
        }
        let target = AnnounceTarget::RingNode(address.clone());
        match find_peers(&mut client, subject, &address, deadline).await {
            // Peers are useful at once, also from a node that refused the announce.
            Ok(peers) => {
                // People look for the node that they configured.
                round
                    .outcomes
                    .extend(name.map(|name| (AnnounceTarget::RingNode(name), Ok(peers.clone()))));
                round.outcomes.push((target.clone(), Ok(peers)));
            }
            Err(error) => refusal = refusal.or(Some(error)),
        }
        if let Some(refusal) = refusal {
            self.0.pass_over();
            round.outcomes.push((target, Err(refusal)));
        }
        round
    }
}

fn useless(node: PassedOver) -> (AnnounceTarget, Outcome) {
    (AnnounceTarget::RingNode(node.address), Err(node.reason))
}

/// Announces, and returns when to do it again.
async fn announce(
    client: &mut Client,
    subject: &Subject,
    reason: Reason,
    deadline: Instant,
) -> Result<Duration, String> {
    let request = AnnouncePeerRequest {
        content_id: subject.content.to_string(),
        peer: Some(subject.peer()),
        stopped: reason == Reason::Stopped,
        direct: false,
        source: String::new(),
    };
    let answer = answer(client.announce_peer(request), deadline).await?;
    Ok(within_reason(answer.interval, USUAL_INTERVAL))
}

async fn find_peers(
    client: &mut Client,
    subject: &Subject,
    node: &Address,
    deadline: Instant,
) -> Result<Vec<Candidate>, String> {
    let request =
        GetPeersRequest { content_id: subject.content.to_string(), max_peers: 0, direct: false };
    let answer = answer(client.get_peers(request), deadline).await?;
    Ok(subject.candidates(answer.peers, node))
}
