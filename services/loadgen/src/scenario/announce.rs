//! Announces of fictitious peers, in swarms without other peers.

use prost::Message as _;
use shoal_common::trackers::trackers_of;
use shoal_core::{Address, content::ContentId};
use shoal_proto::{
    tracker::v1::{AnnounceRequest, tracker_service_client::TrackerServiceClient},
    types::v1::PeerInfo,
};
use tonic::Status;
use uuid::Uuid;

use super::scatter;
use crate::targets::Connected;

/// Swarms, and peers of each. A tracker keeps at most 1,000 peers of one address in each of its 16
/// shards, to which swarms belong at random: of 5,000 peers, no shard gets so many.
const CONTENTS: u64 = 50;
const PEERS: u64 = 100;

pub(super) struct Announce {
    trackers: Vec<Connected>,
    /// Contents, each with the indexes of its trackers.
    contents: Vec<(ContentId, Vec<usize>)>,
    peers: Vec<Uuid>,
}

impl Announce {
    pub(super) fn new(trackers: Vec<Connected>) -> Self {
        let addresses: Vec<Address> =
            trackers.iter().map(|tracker| tracker.address.clone()).collect();
        let run = Uuid::new_v4();
        let content = |number| {
            let id = ContentId::of_descriptor(format!("shoal-loadgen {run} {number}").as_bytes());
            let chosen = trackers_of(id, &addresses);
            let numbers = addresses.iter().enumerate();
            let known = numbers.filter(|(_, address)| chosen.contains(address));
            (id, known.map(|(number, _)| number).collect())
        };
        Self {
            contents: (0..CONTENTS).map(content).collect(),
            peers: (0..PEERS).map(|_| Uuid::new_v4()).collect(),
            trackers,
        }
    }

    pub(super) async fn call(&self, number: u64) -> Result<u64, Status> {
        let random = scatter(number);
        let (content, known) = &self.contents[(random % CONTENTS) as usize];
        let peer = random / CONTENTS % PEERS;
        let tracker = &self.trackers[known[(number % known.len() as u64) as usize]];
        let request = AnnounceRequest {
            content_id: content.to_string(),
            peer: Some(PeerInfo {
                peer_id: self.peers[peer as usize].to_string(),
                // The host at which we are observed, and a port at which no peer listens.
                address: format!(":{}", 1 + peer),
                ..PeerInfo::default()
            }),
            // Not complete: other peers fetch nothing from a swarm without a seeder.
            left_bytes: 1,
            ..AnnounceRequest::default()
        };
        let mut client = TrackerServiceClient::new(tracker.channel(scatter(random)));
        Ok(client.announce(request).await?.into_inner().encoded_len() as u64)
    }
}
