//! Strangers that have memory filled with peers that are none.

use futures_util::{StreamExt as _, stream};
use shoal_proto::{
    dht::v1::{AnnouncePeerRequest, dht_service_client::DhtServiceClient},
    types::v1::PeerInfo,
};
use uuid::Uuid;

use super::channel_from;

/// Announces this many peers that are none to a node of a ring, over one connection. How many were
/// accepted.
pub async fn flood_ring(node: &str, peers: usize) -> anyhow::Result<usize> {
    /// Calls at a time.
    const AT_ONCE: usize = 32;
    let client = DhtServiceClient::new(channel_from("127.0.0.2", node).await?);
    let announce = |number: usize| {
        let mut client = client.clone();
        async move {
            let peer = PeerInfo {
                peer_id: Uuid::new_v4().to_string(),
                // As long as the address may be, and of another host if that were believed.
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
    let calls = stream::iter(0..peers).map(announce).buffer_unordered(AT_ONCE);
    Ok(calls.fold(0, async |sum, accepted| sum + accepted).await)
}
