//! Attackers that accept connections and never answer.

use shoal_proto::{
    tracker::v1::{AnnounceRequest, tracker_service_client::TrackerServiceClient},
    types::v1::PeerInfo,
};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use super::{ELSEWHERE, channel_from};

/// Announces `count` tarpits as complete peers of a content. They listen as long as the current
/// runtime runs.
pub async fn announce_tarpits(tracker: &str, id: &str, count: usize) -> anyhow::Result<()> {
    let mut client = TrackerServiceClient::new(channel_from(ELSEWHERE, tracker).await?);
    for _ in 0..count {
        let listener = TcpListener::bind((ELSEWHERE, 0)).await?;
        let address = listener.local_addr()?.to_string();
        tokio::spawn(hold(listener));
        let peer = PeerInfo {
            peer_id: Uuid::new_v4().to_string(),
            address,
            complete: true,
            location: None,
        };
        let request = AnnounceRequest {
            content_id: id.to_owned(),
            peer: Some(peer),
            ..AnnounceRequest::default()
        };
        client.announce(request).await?;
    }
    Ok(())
}

async fn hold(listener: TcpListener) {
    let mut held: Vec<TcpStream> = Vec::new();
    while let Ok((connection, _)) = listener.accept().await {
        held.push(connection);
    }
}
