//! Attackers that occupy a peer's link slots and send nothing.

use futures_util::{StreamExt as _, stream};
use shoal_proto::{
    peer::v1::{ExchangeResponse, peer_service_client::PeerServiceClient},
    types::v1::PeerInfo,
};
use tonic::Streaming;
use uuid::Uuid;

use super::{channel_from, identity::hello};

/// Accepted links. Dropping them closes them.
pub struct Silent(Vec<Streaming<ExchangeResponse>>);

impl Silent {
    /// The number of links.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none was accepted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Opens `links` links over one connection from `source`, each with its own peer id, and sends only
/// Hello on them.
pub async fn be_silent(
    victim: &str,
    id: &str,
    source: &str,
    links: usize,
) -> anyhow::Result<Silent> {
    let mut client = PeerServiceClient::new(channel_from(source, victim).await?);
    let mut silent = Vec::new();
    for _ in 0..links {
        let peer = PeerInfo {
            peer_id: Uuid::new_v4().to_string(),
            address: "0.0.0.0:9".to_owned(),
            ..PeerInfo::default()
        };
        let messages = stream::iter([hello(id, &peer)]).chain(stream::pending());
        if let Ok(answer) = client.exchange(messages).await {
            silent.push(answer.into_inner());
        }
    }
    Ok(Silent(silent))
}
