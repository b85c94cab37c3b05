//! An announce to a service, whichever it is: what is announced, why, and the answer.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use shoal_common::{advertised::may_learn, status, units::duration};
use shoal_core::{Address, content::ContentId, peer_list::Candidate};
use shoal_proto::types::v1::PeerInfo;
use tokio::time::{Instant, timeout_at};
use tonic::{Response, Status};

use super::event::{AnnounceTarget, Outcome};

/// The longest interval that a service may ask for.
const MAX_INTERVAL: Duration = Duration::from_secs(600);

/// Peers used of one answer: the most that trackers and ring nodes return.
const MAX_PEERS: usize = 200;

/// The missing bytes of a content whose manifest is unknown.
pub(crate) const UNKNOWN_BYTES: u64 = u64::MAX;

/// The announced content.
#[derive(Clone)]
pub(crate) struct Subject {
    pub(crate) content: ContentId,
    pub(crate) me: PeerInfo,
    /// Missing bytes, or [`UNKNOWN_BYTES`].
    pub(crate) left_bytes: Arc<AtomicU64>,
}

/// The reason for an announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    Started,
    Completed,
    /// The interval has passed.
    Due,
    /// More peers are wanted; the last announce is still valid.
    Seeking,
    Stopped,
}

/// The outcome of one announce, at the services that were tried.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// The outcome at each service; the last one decides whether it succeeded.
    pub(super) outcomes: Vec<(AnnounceTarget, Outcome)>,
    /// When to announce again; none if nothing was announced.
    pub(super) interval: Option<Duration>,
}

/// A service to announce to.
pub(super) trait Announce: Send + 'static {
    /// Announces, and returns the other peers. No service is waited for longer than `patience`.
    fn announce(
        &mut self,
        subject: &Subject,
        reason: Reason,
        patience: Duration,
    ) -> impl Future<Output = Round> + Send;
}

impl Subject {
    /// This peer as it is announced now.
    pub(super) fn peer(&self) -> PeerInfo {
        let left_bytes = self.left_bytes.load(Ordering::Relaxed);
        PeerInfo { complete: left_bytes == 0, ..self.me.clone() }
    }

    /// The other peers of an answer that can be dialled. Invalid ones are left out, and addresses
    /// that lead to this host unless the service is on it.
    pub(super) fn candidates(&self, peers: Vec<PeerInfo>, from: &Address) -> Vec<Candidate> {
        let service = from.ip().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let parse = |info: PeerInfo| {
            let address: Address = info.address.parse().ok()?;
            let peer = info.peer_id.parse().ok()?;
            let usable = may_learn(&address, service)
                && address.port() != 0
                && info.peer_id != self.me.peer_id;
            usable.then_some(Candidate { peer, address, complete: info.complete })
        };
        peers.into_iter().take(MAX_PEERS).filter_map(parse).collect()
    }
}

impl Round {
    pub(super) fn has_failed(&self) -> bool {
        self.outcomes.last().is_none_or(|(_, outcome)| outcome.is_err())
    }

    pub(super) fn found_nobody(&self) -> bool {
        self.outcomes.iter().all(|(_, outcome)| outcome.as_ref().map_or(true, Vec::is_empty))
    }
}

/// The answer to a call, or the error in words.
pub(super) async fn answer<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
    deadline: Instant,
) -> Result<T, String> {
    match timeout_at(deadline, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(refusal)) => Err(status::words(&refusal)),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

/// The requested time of the next announce, within limits.
pub(super) fn within_reason(asked: Option<prost_types::Duration>, usual: Duration) -> Duration {
    let asked = asked.and_then(|interval| duration::from_message(interval).ok());
    asked.unwrap_or(usual).clamp(Duration::from_millis(100), MAX_INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "2f1e0c5a-7c1b-4d0e-9d3a-5a4c4cbb6a10";
    const ME: &str = "2f1e0c5a-7c1b-4d0e-9d3a-5a4c4cbb6a11";

    fn info(peer_id: &str, address: &str) -> PeerInfo {
        PeerInfo { peer_id: peer_id.to_owned(), address: address.to_owned(), ..PeerInfo::default() }
    }

    fn subject(left_bytes: u64) -> Subject {
        Subject {
            content: ContentId::of_descriptor(b"a"),
            me: info(ME, "10.0.0.9:7072"),
            left_bytes: Arc::new(AtomicU64::new(left_bytes)),
        }
    }

    #[test]
    fn invalid_parts_of_an_answer_are_ignored() {
        let peers = vec![
            info(GOOD, "10.0.0.1:7072"),
            info("you", "10.0.0.1:7072"),
            info(ME, "10.0.0.9:7072"),
            info(GOOD, "0.0.0.0:7072"),
            info(GOOD, "10.0.0.1:0"),
            info(GOOD, "127.0.0.1:22"),
            info(GOOD, "169.254.169.254:80"),
            info(GOOD, "nonsense"),
        ];
        let tracker = "10.0.0.7:7070".parse().unwrap();
        assert_eq!(subject(7).candidates(peers, &tracker).len(), 1);
        let hasty = Duration::ZERO.try_into().ok();
        assert!(within_reason(hasty, Duration::MAX) >= Duration::from_millis(100));
        assert_eq!(within_reason(None, Duration::from_secs(30)), Duration::from_secs(30));
    }
}
