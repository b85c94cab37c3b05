//! Attackers that make peers connect to a third party.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use shoal_proto::{
    tracker::v1::{AnnounceRequest, tracker_service_client::TrackerServiceClient},
    types::v1::PeerInfo,
};
use tokio::{net::TcpListener, time::sleep};
use uuid::Uuid;

use super::{ELSEWHERE, channel_from};

/// A third party outside the swarm, which counts connections to it.
pub struct Victim {
    /// HOST:PORT.
    pub address: String,
    dialled: Arc<AtomicUsize>,
}

impl Victim {
    /// Listens, and closes every connection at once.
    pub async fn listen() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((ELSEWHERE, 0)).await?;
        let address = listener.local_addr()?.to_string();
        let dialled = Arc::new(AtomicUsize::new(0));
        let count = dialled.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                drop(connection);
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(Self { address, dialled })
    }

    /// The number of connections so far.
    pub fn dialled(&self) -> usize {
        self.dialled.load(Ordering::Relaxed)
    }

    /// The number of connections from now until `time` has passed.
    pub async fn dialled_within(&self, time: Duration) -> usize {
        let before = self.dialled();
        sleep(time).await;
        self.dialled() - before
    }
}

/// Announces the victim's address under `times` peer ids. Returns how many announces were accepted.
pub async fn announce_victim(
    tracker: &str,
    id: &str,
    victim: &str,
    times: usize,
) -> anyhow::Result<usize> {
    let mut client = TrackerServiceClient::new(channel_from(ELSEWHERE, tracker).await?);
    let mut accepted = 0;
    for _ in 0..times {
        let peer = PeerInfo {
            peer_id: Uuid::new_v4().to_string(),
            address: victim.to_owned(),
            ..PeerInfo::default()
        };
        let request = AnnounceRequest {
            content_id: id.to_owned(),
            peer: Some(peer),
            ..AnnounceRequest::default()
        };
        accepted += usize::from(client.announce(request).await.is_ok());
    }
    Ok(accepted)
}
