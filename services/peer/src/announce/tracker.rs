//! One tracker: an announce both informs and asks.

use std::{sync::atomic::Ordering, time::Duration};

use shoal_common::{
    Address,
    channel::{Channel, Options},
};
use shoal_proto::tracker::v1::{
    AnnounceEvent, AnnounceRequest, tracker_service_client::TrackerServiceClient,
};

use tokio::time::Instant;

use super::{Announce, Occasion, Round, Source, Subject, answer, within_reason};

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
    async fn announce(
        &mut self,
        subject: &Subject,
        occasion: Occasion,
        patience: Duration,
    ) -> Round {
        let event = match occasion {
            Occasion::Started => AnnounceEvent::Started,
            Occasion::Completed => AnnounceEvent::Completed,
            Occasion::Due | Occasion::Seeking => AnnounceEvent::Unspecified,
            Occasion::Stopped => AnnounceEvent::Stopped,
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
        Round { heard: vec![(Source::Tracker(self.address.clone()), outcome)], interval }
    }
}
