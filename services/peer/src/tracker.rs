//! Announcing a content to its trackers, and hearing from them who else is in the swarm.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use shoal_common::{
    Address,
    backoff::Backoff,
    channel::{Channel, Options},
};
use shoal_core::{content::ContentId, roster::Candidate, swarm::ContentKey};
use shoal_proto::{
    tracker::v1::{
        AnnounceEvent, AnnounceRequest, AnnounceResponse,
        tracker_service_client::TrackerServiceClient,
    },
    types::v1::PeerInfo,
};
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Status};
use tracing::Instrument as _;

use crate::event::Event;

/// Longest wait for a tracker's answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest wait for the farewell: who stops is in a hurry.
const FAREWELL_PATIENCE: Duration = Duration::from_secs(1);

/// Announce again when a tracker failed, first so soon, then ever later.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(15);

/// Announce again when a tracker knew nobody to fetch from, first so soon, then ever later: the
/// publisher may just be starting.
const FIRST_LONELY: Duration = Duration::from_millis(500);
const MAX_LONELY: Duration = Duration::from_secs(10);

/// A tracker asks to be left alone for so long, at most.
const MAX_INTERVAL: Duration = Duration::from_secs(600);

/// Peers taken from one answer, at most: what a tracker gives at most.
const MAX_PEERS: usize = 200;

/// Up to so many trackers are all announced to; of more, two.
const ANNOUNCE_TO_ALL: usize = 3;

/// How an announce went.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) content: ContentKey,
    pub(crate) tracker: Address,
    /// The peers named, or why there are none.
    pub(crate) outcome: Result<Vec<Candidate>, String>,
}

/// What makes a peer announce before its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) completed: bool,
    /// Counts up each time the swarm starves.
    pub(crate) starved: u64,
}

/// Announces one content until it is cancelled, then says farewell.
#[derive(Clone)]
pub(crate) struct Announcer {
    pub(crate) key: ContentKey,
    pub(crate) content: ContentId,
    pub(crate) me: PeerInfo,
    /// Bytes still lacking.
    pub(crate) left_bytes: Arc<AtomicU64>,
    pub(crate) news: watch::Receiver<News>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) stop: CancellationToken,
}

impl Announcer {
    /// Starts a task for each tracker that this content is announced to, and names them.
    pub(crate) fn start(&self, trackers: &[Address], tasks: &TaskTracker) -> Vec<Address> {
        let chosen = chosen(self.content, trackers);
        for tracker in &chosen {
            tasks.spawn(self.clone().announce_to(tracker.clone()).in_current_span());
        }
        chosen
    }

    async fn announce_to(mut self, tracker: Address) {
        let mut client = TrackerServiceClient::new(Channel::lazy(&tracker, &Options::default()));
        let mut rng = StdRng::from_rng(&mut rand::rng());
        let mut backoff = Backoff::new(FIRST_BACKOFF, MAX_BACKOFF);
        let mut lonely = Backoff::new(FIRST_LONELY, MAX_LONELY);
        let mut event = AnnounceEvent::Started;
        let stop = self.stop.clone();
        loop {
            let announce = self.announce(&mut client, event, PATIENCE);
            let Some(answer) = stop.run_until_cancelled(announce).await else { break };
            let wait = match &answer {
                Ok(response) => {
                    backoff.reset();
                    event = AnnounceEvent::Unspecified;
                    let interval = interval(response).mul_f64(rng.random_range(0.9..1.1));
                    if response.peers.is_empty() && self.left_bytes.load(Ordering::Relaxed) > 0 {
                        lonely.next(&mut rng).min(interval)
                    } else {
                        lonely.reset();
                        interval
                    }
                }
                Err(_) => backoff.next(&mut rng),
            };
            let outcome = answer.map(candidates).map_err(|status| status.message().to_owned());
            let report = Report { content: self.key, tracker: tracker.clone(), outcome };
            if self.events.send(Event::Announced(report)).await.is_err() {
                break;
            }
            let completed_before = self.news.borrow_and_update().completed;
            tokio::select! {
                () = sleep(wait) => {}
                () = stop.cancelled() => break,
                news = self.news.changed() => {
                    if news.is_err() {
                        break;
                    }
                    if self.news.borrow().completed && !completed_before {
                        event = AnnounceEvent::Completed;
                    }
                }
            }
        }
        // A tracker that does not hear it forgets us after two intervals.
        let _ = self.announce(&mut client, AnnounceEvent::Stopped, FAREWELL_PATIENCE).await;
    }

    async fn announce(
        &self,
        client: &mut TrackerServiceClient<Channel>,
        event: AnnounceEvent,
        patience: Duration,
    ) -> Result<AnnounceResponse, Status> {
        let left_bytes = self.left_bytes.load(Ordering::Relaxed);
        let request = AnnounceRequest {
            content_id: self.content.to_string(),
            peer: Some(PeerInfo { complete: left_bytes == 0, ..self.me.clone() }),
            event: event.into(),
            numwant: 0,
            left_bytes,
        };
        match timeout(patience, client.announce(request)).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => {
                Err(Status::new(Code::DeadlineExceeded, format!("no answer within {patience:?}")))
            }
        }
    }
}

/// When the tracker wants to hear again, within reason.
fn interval(response: &AnnounceResponse) -> Duration {
    let asked = response.interval.and_then(|interval| Duration::try_from(interval).ok());
    asked.unwrap_or(Duration::from_secs(30)).clamp(Duration::from_millis(100), MAX_INTERVAL)
}

/// The peers of an answer that can be dialled; what a broken tracker makes up is left out.
fn candidates(response: AnnounceResponse) -> Vec<Candidate> {
    let parse = |info: PeerInfo| {
        let address: Address = info.address.parse().ok()?;
        let peer = info.peer_id.parse().ok()?;
        let dialable = !address.is_unspecified() && address.port() != 0;
        dialable.then(|| Candidate { peer, address: address.to_string(), complete: info.complete })
    };
    response.peers.into_iter().take(MAX_PEERS).filter_map(parse).collect()
}

/// The trackers that a content is announced to: all of few, of many the two that win a rendezvous
/// hash, so that every peer picks the same.
fn chosen(content: ContentId, trackers: &[Address]) -> Vec<Address> {
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

    #[test]
    fn what_a_broken_tracker_makes_up_is_left_out() {
        let info = |peer_id: &str, address: &str| PeerInfo {
            peer_id: peer_id.to_owned(),
            address: address.to_owned(),
            ..PeerInfo::default()
        };
        let good = "2f1e0c5a-7c1b-4d0e-9d3a-5a4c4cbb6a10";
        let peers = vec![
            info(good, "10.0.0.1:7072"),
            info("me", "10.0.0.1:7072"),
            info(good, "0.0.0.0:7072"),
            info(good, "10.0.0.1:0"),
            info(good, "nonsense"),
        ];
        let response = AnnounceResponse { peers, ..AnnounceResponse::default() };
        assert_eq!(candidates(response).len(), 1);
        let hasty = AnnounceResponse {
            interval: Some(Duration::ZERO.try_into().unwrap()),
            ..AnnounceResponse::default()
        };
        assert!(interval(&hasty) >= Duration::from_millis(100));
    }
}
