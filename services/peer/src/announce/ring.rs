//! The ring: any of its nodes forwards announces and requests.

use std::time::Duration;

use shoal_common::{
    Address,
    names::Names,
    ring::{self, Client, Node, PassedOver},
};
use shoal_core::roster::Candidate;
use shoal_proto::dht::v1::{AnnouncePeerRequest, GetPeersRequest};
use tokio::time::Instant;

use super::{Announce, Occasion, Round, Source, Subject, answer, within_reason};

/// The default interval of a node: the ring keeps a peer for three of these.
const USUAL_INTERVAL: Duration = Duration::from_secs(300);

pub(super) struct Ring(ring::Ring);

impl Ring {
    /// The ring of these nodes.
    pub(super) fn new(nodes: Vec<Address>, names: Names) -> Self {
        Self(ring::Ring::by(nodes, names))
    }
}

impl Announce for Ring {
    /// Asks one node that answers. A peer is announced before it asks for others: of two that start
    /// together, one learns about the other.
    async fn announce(
        &mut self,
        subject: &Subject,
        occasion: Occasion,
        patience: Duration,
    ) -> Round {
        let deadline = Instant::now() + patience;
        let mut passed_over = Vec::new();
        let node = self.0.node(deadline, &mut passed_over).await;
        let mut round =
            Round { heard: passed_over.into_iter().map(useless).collect(), interval: None };
        let Some(Node { address, name, mut client }) = node else { return round };
        let mut refusal = None;
        if occasion != Occasion::Seeking {
            match announce(&mut client, subject, occasion, deadline).await {
                Ok(interval) => round.interval = Some(interval),
                Err(error) => refusal = Some(error),
            }
        }
        if occasion == Occasion::Stopped {
            return round;
        }
        let source = Source::RingNode(address.clone());
        match find_peers(&mut client, subject, &address, deadline).await {
            // Peers are useful at once, also from a node that refused the announce.
            Ok(peers) => {
                // People look for the node that they configured.
                round.heard.extend(name.map(|name| (Source::RingNode(name), Ok(peers.clone()))));
                round.heard.push((source.clone(), Ok(peers)));
            }
            Err(error) => refusal = refusal.or(Some(error)),
        }
        if let Some(refusal) = refusal {
            self.0.pass_over();
            round.heard.push((source, Err(refusal)));
        }
        round
    }
}

fn useless(node: PassedOver) -> (Source, super::Outcome) {
    (Source::RingNode(node.address), Err(node.reason))
}

/// Announces, and returns when to do it again.
async fn announce(
    client: &mut Client,
    subject: &Subject,
    occasion: Occasion,
    deadline: Instant,
) -> Result<Duration, String> {
    let request = AnnouncePeerRequest {
        content_id: subject.content.to_string(),
        peer: Some(subject.peer()),
        stopped: occasion == Occasion::Stopped,
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
