//! One tracker: an announce tells and asks at once.

use std::{sync::atomic::Ordering, time::Duration};

use shoal_common::{
    Address,
    channel::{Channel, Options},
};
use shoal_core::content::ContentId;
use shoal_proto::tracker::v1::{
    AnnounceEvent, AnnounceRequest, tracker_service_client::TrackerServiceClient,
};

use tokio::time::Instant;

use super::{Announce, Occasion, Round, Source, Subject, answer, within_reason};

/// Up to so many trackers are all announced to; of more, two.
const ANNOUNCE_TO_ALL: usize = 3;

/// What a tracker that names no interval means by that.
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
        let outcome = answer.map(|answer| subject.candidates(answer.peers));
        Round { heard: vec![(Source::Tracker(self.address.clone()), outcome)], interval }
    }
}

/// The trackers that a content is announced to: all of few, of many the two that win a rendezvous
/// hash, so that every peer picks the same.
pub(super) fn chosen(content: ContentId, trackers: &[Address]) -> Vec<Address> {
    let mut chosen = trackers.to_vec();
    chosen.sort();
    chosen.dedup();
    if chosen.len() > ANNOUNCE_TO_ALL {
        chosen.sort_by_cached_key(|tracker| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(content.as_bytes());
            hasher.update(tracker.to_string().as_bytes());
            *hasher.finalize().as_bytes()
        });
        chosen.truncate(2);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn trackers(count: u8) -> Vec<Address> {
        (0..count).map(|n| format!("tracker-{n}:7070").parse().unwrap()).collect()
    }

    #[test]
    fn few_trackers_hear_of_everything_and_of_many_two_share_a_content() {
        let content = ContentId::of_manifest(b"a");
        assert_eq!(chosen(content, &trackers(3)).len(), 3);
        let mut load: HashMap<Address, usize> = HashMap::new();
        for number in 0_u32..500 {
            let picked = chosen(ContentId::of_manifest(&number.to_le_bytes()), &trackers(5));
            assert_eq!(picked.len(), 2);
            for tracker in picked {
                *load.entry(tracker).or_default() += 1;
            }
        }
        assert!(load.len() == 5 && load.values().all(|n| (150..250).contains(n)), "{load:?}");
    }

    #[test]
    fn the_order_of_the_settings_does_not_matter() {
        let content = ContentId::of_manifest(b"a");
        let mut reversed = trackers(7);
        reversed.reverse();
        assert_eq!(chosen(content, &trackers(7)), chosen(content, &reversed));
    }
}
