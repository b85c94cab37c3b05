//! Attackers that claim the identity of another peer.

use futures_util::{StreamExt as _, stream};
use shoal_proto::{
    dht::v1::{AnnouncePeerRequest, dht_service_client::DhtServiceClient},
    peer::v1::{
        ExchangeRequest, Hello, LinkMessage, link_message::Kind,
        peer_service_client::PeerServiceClient,
    },
    tracker::v1::{
        AnnounceEvent, AnnounceRequest, GetSwarmRequest,
        tracker_service_client::TrackerServiceClient,
    },
    types::v1::PeerInfo,
};

use super::channel_from;

/// The peers of a swarm, as a tracker lists them.
pub async fn peers_of(tracker: &str, id: &str) -> anyhow::Result<Vec<PeerInfo>> {
    let mut tracker = TrackerServiceClient::new(channel_from("127.0.0.1", tracker).await?);
    let request = GetSwarmRequest { content_id: id.to_owned(), max_peers: 0 };
    Ok(tracker.get_swarm(request).await?.into_inner().peers)
}

/// The Hello of this peer.
pub(super) fn hello(id: &str, peer: &PeerInfo) -> ExchangeRequest {
    let hello = Hello {
        min_version: 1,
        max_version: 1,
        content_id: id.to_owned(),
        peer: Some(peer.clone()),
        link_token: vec![7; 16].into(),
        serves_nothing: false,
    };
    ExchangeRequest { message: Some(LinkMessage { kind: Some(Kind::Hello(hello)) }) }
}

/// Sends two Hellos per link to a victim, from `source` and in the name of another peer, which
/// violates the protocol. Returns how many of `times` links were accepted.
pub async fn defame(
    source: &str,
    victim: &str,
    id: &str,
    innocent: &PeerInfo,
    times: usize,
) -> anyhow::Result<usize> {
    let mut client = PeerServiceClient::new(channel_from(source, victim).await?);
    let mut accepted = 0;
    for _ in 0..times {
        let hellos = stream::iter([hello(id, innocent), hello(id, innocent)]);
        if let Ok(answer) = client.exchange(hellos.chain(stream::pending())).await {
            accepted += 1;
            let mut answers = answer.into_inner();
            // Until the victim closes the link.
            while let Ok(Some(_)) = answers.message().await {}
        }
    }
    Ok(accepted)
}

/// Announces another peer's id with an own address to a tracker, and then that it stopped; from
/// 127.0.0.2.
pub async fn steal_at_tracker(tracker: &str, id: &str, owner: &PeerInfo) -> anyhow::Result<()> {
    let mut client = TrackerServiceClient::new(channel_from("127.0.0.2", tracker).await?);
    let peer = PeerInfo { address: "127.0.0.2:9".to_owned(), ..owner.clone() };
    for event in [AnnounceEvent::Started, AnnounceEvent::Stopped] {
        let request = AnnounceRequest {
            content_id: id.to_owned(),
            peer: Some(peer.clone()),
            event: event.into(),
            ..AnnounceRequest::default()
        };
        client.announce(request).await?;
    }
    Ok(())
}

/// The same at a ring node: to forward, to store, and as if the owner had sent it. Returns how many
/// announces were refused.
pub async fn steal_at_ring(node: &str, id: &str, owner: &PeerInfo) -> anyhow::Result<usize> {
    let mut client = DhtServiceClient::new(channel_from("127.0.0.2", node).await?);
    let mut refused = 0;
    for (direct, source) in [(false, ""), (true, ""), (true, "127.0.0.1"), (false, "127.0.0.1")] {
        for stopped in [false, true] {
            let peer = PeerInfo { address: "127.0.0.2:9".to_owned(), ..owner.clone() };
            let request = AnnouncePeerRequest {
                content_id: id.to_owned(),
                peer: Some(peer),
                stopped,
                direct,
                source: source.to_owned(),
            };
            refused += usize::from(client.announce_peer(request).await.is_err());
        }
    }
    Ok(refused)
}
