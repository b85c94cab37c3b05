//! Announces to one tracker: an announce also asks for peers.

use std::{sync::atomic::Ordering, time::Duration};

use shoal_common::channel::{Channel, Options};
use shoal_core::Address;
use shoal_proto::tracker::v1::{
    AnnounceEvent, AnnounceRequest, tracker_service_client::TrackerServiceClient,
};
use tokio::time::Instant;

use super::{
    announce::{Announce, Reason, Round, Subject, answer, within_reason},
    event::AnnounceTarget,
};

/// The default interval of a tracker.
const USUAL_INTERVAL: Duration = Duration::from_secs(30);

pub(super) struct Tracker {
    address: Address,
    client: TrackerServiceClient<Channel>,
}

impl Tracker {
    pub(super) fn new(address: Address) -> Self {
        let client = TrackerServiceClient::new(Channel::lazy(&address, &Options::default()));
        Self { address, client }
    }
}

impl Announce for Tracker {
    async fn announce(&mut self, subject: &Subject, reason: Reason, patience: Duration) -> Round {
        let event = match reason {
            Reason::Started => AnnounceEvent::Started,
            Reason::Completed => AnnounceEvent::Completed,
            Reason::Due | Reason::Seeking => AnnounceEvent::Unspecified,
            Reason::Stopped => AnnounceEvent::Stopped,
        };
        let request = AnnounceRequest {
            content_id: subject.content.to_string(),
            peer: Some(subject.peer()),
            event: event.into(),
            numwant: 0,
            left_bytes: subject.left_bytes.load(Ordering::Relaxed),
        };
        let answer = answer(self.client.announce(request), Instant::now() + patience).await;
        let interval =
            answer.as_ref().ok().map(|answer| within_reason(answer.interval, USUAL_INTERVAL));
        let outcome = answer.map(|answer| subject.candidates(answer.peers, &self.address));
        Round { outcomes: vec![(AnnounceTarget::Tracker(self.address.clone()), outcome)], interval }
    }
}
