//! Strangers that take up neighbours' places and say nothing.

use futures_util::{StreamExt as _, stream};
use shoal_proto::{
    peer::v1::{ExchangeResponse, peer_service_client::PeerServiceClient},
    types::v1::PeerInfo,
};
use tonic::Streaming;
use uuid::Uuid;

use super::{channel_from, identity::hello};

/// Links that were let in; dropping them ends them.
pub struct Silent(Vec<Streaming<ExchangeResponse>>);

impl Silent {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// None was let in.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Makes so many links over one connection from `source`, each by an id of its own, and says no more
/// than Hello on them.
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
        let said = stream::iter([hello(id, &peer)]).chain(stream::pending());
        if let Ok(answer) = client.exchange(said).await {
            silent.push(answer.into_inner());
        }
    }
    Ok(Silent(silent))
}
