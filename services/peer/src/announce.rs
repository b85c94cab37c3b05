//! Announces a content, and learns the other peers of its swarm, at trackers and at the ring.
//!
//! There is one task per tracker and one for the ring, all with the same loop: announce, report the
//! answer, wait until the next announce is due or there is news, and leave at the end. [`Announce`]
//! hides which service is asked, and how. [`trackers`] keeps track of the trackers that exist.

mod ring;
mod tracker;
mod trackers;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use shoal_common::{
    Address, advertised::may_learn, backoff::Backoff, names::Names, status, supervisor::Jobs,
    units::duration,
};
use shoal_core::{content::ContentId, roster::Candidate, swarm::ContentKey};
use shoal_proto::types::v1::PeerInfo;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status};
use tracing::Instrument as _;

use self::{ring::Ring, tracker::Tracker};
use crate::event::Event;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest wait for the last announce: a stopping peer is in a hurry.
const FAREWELL_PATIENCE: Duration = Duration::from_secs(1);

/// The first pause after a failed announce; it grows.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(15);

/// The first pause if no peer to fetch from is known; it grows: the publisher may just be starting.
const FIRST_LONELY: Duration = Duration::from_millis(500);
const MAX_LONELY: Duration = Duration::from_secs(10);

/// The pause while no peer has given the manifest: the named ones may be gone. As often as the
/// state machine reports that a swarm starves.
const UNRESOLVED: Duration = Duration::from_secs(5);

/// The longest interval that a service may ask for.
const MAX_INTERVAL: Duration = Duration::from_secs(600);

/// Peers used of one answer: the most that trackers and ring nodes return.
const MAX_PEERS: usize = 200;

/// The missing bytes of a content whose manifest is unknown.
pub(crate) const UNKNOWN_BYTES: u64 = u64::MAX;

/// The service that was asked for peers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    Tracker(Address),
    RingNode(Address),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Tracker(address) | Self::RingNode(address)) = self;
        address.fmt(f)
    }
}

/// The returned peers, or the error.
type Outcome = Result<Vec<Candidate>, String>;

/// The outcome of an announce.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) content: ContentKey,
    pub(crate) source: Source,
    pub(crate) outcome: Outcome,
}

/// What makes a peer announce early.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    pub(crate) completed: bool,
    /// Incremented each time the swarm starves.
    pub(crate) starved: u64,
}

/// Announces one content until it is cancelled, and then that it leaves.
#[derive(Clone)]
pub(crate) struct Announcer {
    pub(crate) key: ContentKey,
    pub(crate) news: watch::Receiver<News>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) stop: CancellationToken,
    pub(crate) subject: Subject,
}

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
enum Occasion {
    Started,
    Completed,
    /// The interval has passed.
    Due,
    /// More peers are wanted; the last announce is still valid.
    Seeking,
    Stopped,
}

/// The outcome of a round.
#[derive(Debug, Default)]
struct Round {
    /// The outcome at each service; the last one decides whether the round succeeded.
    heard: Vec<(Source, Outcome)>,
    /// When to announce again; none if nothing was announced.
    interval: Option<Duration>,
}

/// A service to announce to.
trait Announce: Send + 'static {
    /// Makes the announce for the occasion, and returns the other peers. No service is waited for
    /// longer than `patience`.
    fn announce(
        &mut self,
        subject: &Subject,
        occasion: Occasion,
        patience: Duration,
    ) -> impl Future<Output = Round> + Send;
}

impl Announcer {
    /// Starts tasks for the trackers of this content and one for the ring.
    pub(crate) fn start(
        &self,
        trackers: Vec<Address>,
        ring_nodes: Vec<Address>,
        names: &Names,
        jobs: &Jobs,
    ) {
        if !trackers.is_empty() {
            let following =
                self.clone().follow(trackers, names.clone(), Tracker::new, jobs.clone());
            jobs.spawn("trackers", following.in_current_span());
        }
        if !ring_nodes.is_empty() {
            let to = Ring::new(ring_nodes, names.clone());
            jobs.spawn("announcer", self.clone().announce_to(to).in_current_span());
        }
    }

    async fn announce_to(mut self, mut to: impl Announce) {
        let mut rng = StdRng::from_rng(&mut rand::rng());
        let mut backoff = Backoff::new(FIRST_BACKOFF, MAX_BACKOFF);
        let mut lonely = Backoff::new(FIRST_LONELY, MAX_LONELY);
        let mut occasion = Occasion::Started;
        let mut due = Instant::now();
        let stop = self.stop.clone();
        loop {
            let round = to.announce(&self.subject, occasion, PATIENCE);
            let Some(round) = stop.run_until_cancelled(round).await else { break };
            if let Some(interval) = round.interval {
                occasion = Occasion::Seeking;
                due = Instant::now() + interval.mul_f64(rng.random_range(0.9..1.1));
            }
            let until_due = due.saturating_duration_since(Instant::now());
            let left_bytes = self.subject.left_bytes.load(Ordering::Relaxed);
            let wait = if round.has_failed() {
                backoff.next(&mut rng)
            } else {
                backoff.reset();
                if round.names_nobody() && left_bytes > 0 {
                    lonely.next(&mut rng).min(until_due)
                } else {
                    lonely.reset();
                    if left_bytes == UNKNOWN_BYTES { until_due.min(UNRESOLVED) } else { until_due }
                }
            };
            if self.report(round).await.is_err() {
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
                        occasion = Occasion::Completed;
                    }
                }
            }
            if occasion == Occasion::Seeking && Instant::now() >= due {
                occasion = Occasion::Due;
            }
        }
        // A service that is not reached forgets this peer after a while.
        to.announce(&self.subject, Occasion::Stopped, FAREWELL_PATIENCE).await;
    }

    /// Reports the outcome to the engine; an error if it has ended.
    async fn report(&self, round: Round) -> Result<(), mpsc::error::SendError<Event>> {
        for (source, outcome) in round.heard {
            let report = Report { content: self.key, source, outcome };
            self.events.send(Event::Announced(report)).await?;
        }
        Ok(())
    }
}

impl Subject {
    /// This peer as it is announced now.
    fn peer(&self) -> PeerInfo {
        let left_bytes = self.left_bytes.load(Ordering::Relaxed);
        PeerInfo { complete: left_bytes == 0, ..self.me.clone() }
    }

    /// The other peers of an answer that can be dialled. Invalid ones are left out, and addresses
    /// that lead to this host unless the service is on it.
    fn candidates(&self, peers: Vec<PeerInfo>, from: &Address) -> Vec<Candidate> {
        let teacher = from.ip().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let parse = |info: PeerInfo| {
            let address: Address = info.address.parse().ok()?;
            let peer = info.peer_id.parse().ok()?;
            let usable = may_learn(&address, teacher)
                && address.port() != 0
                && info.peer_id != self.me.peer_id;
            usable.then(|| Candidate {
                peer,
                address: address.to_string(),
                complete: info.complete,
            })
        };
        peers.into_iter().take(MAX_PEERS).filter_map(parse).collect()
    }
}

impl Round {
    fn has_failed(&self) -> bool {
        self.heard.last().is_none_or(|(_, outcome)| outcome.is_err())
    }

    fn names_nobody(&self) -> bool {
        self.heard.iter().all(|(_, outcome)| outcome.as_ref().map_or(true, Vec::is_empty))
    }
}

/// The answer to a call, or the error in words.
async fn answer<T>(
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
fn within_reason(asked: Option<prost_types::Duration>, usual: Duration) -> Duration {
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

    fn source() -> Source {
        Source::RingNode("node:7071".parse().unwrap())
    }

    fn subject(left_bytes: u64) -> Subject {
        Subject {
            content: ContentId::of_manifest(b"a"),
            me: info(ME, "10.0.0.9:7072"),
            left_bytes: Arc::new(AtomicU64::new(left_bytes)),
        }
    }

    /// Answers occasions as a test defines it, and records when it was asked.
    struct Scripted<F> {
        answer: F,
        asked: mpsc::UnboundedSender<(Occasion, Instant)>,
    }

    impl<F: FnMut(Occasion) -> Round + Send + 'static> Announce for Scripted<F> {
        async fn announce(&mut self, _: &Subject, occasion: Occasion, _: Duration) -> Round {
            // A finished test does not listen any more.
            let _ = self.asked.send((occasion, Instant::now()));
            (self.answer)(occasion)
        }
    }

    /// A running announcer, with all of its channels.
    struct Bench {
        asked: mpsc::UnboundedReceiver<(Occasion, Instant)>,
        news: watch::Sender<News>,
        stop: CancellationToken,
        started: Instant,
        events: mpsc::Receiver<Event>,
    }

    impl Bench {
        fn new(left_bytes: u64, answer: impl FnMut(Occasion) -> Round + Send + 'static) -> Self {
            let (noted, asked) = mpsc::unbounded_channel();
            let (events, heard) = mpsc::channel(1000);
            let (news, stop) = (watch::Sender::new(News::default()), CancellationToken::new());
            let announcer = Announcer {
                key: ContentKey(1),
                news: news.subscribe(),
                events,
                stop: stop.clone(),
                subject: subject(left_bytes),
            };
            tokio::spawn(announcer.announce_to(Scripted { answer, asked: noted }));
            Self { asked, news, stop, started: Instant::now(), events: heard }
        }

        /// The next occasion, and the seconds from the start to it.
        async fn next(&mut self) -> (Occasion, f64) {
            let (occasion, at) = self.asked.recv().await.expect("it goes on");
            (occasion, at.duration_since(self.started).as_secs_f64())
        }
    }

    fn round(interval: Option<u64>, outcome: Result<usize, &str>) -> Round {
        let candidate = |number| Candidate {
            peer: GOOD.parse().unwrap(),
            address: format!("10.0.0.1:{number}"),
            complete: false,
        };
        let outcome = outcome.map(|peers| (0..peers).map(candidate).collect());
        Round {
            heard: vec![(source(), outcome.map_err(str::to_owned))],
            interval: interval.map(Duration::from_secs),
        }
    }

    /// The ring's answer with this many peers.
    fn naming(peers: usize) -> impl FnMut(Occasion) -> Round + Send {
        move |occasion| round((occasion != Occasion::Seeking).then_some(300), Ok(peers))
    }

    #[tokio::test(start_paused = true)]
    async fn while_nobody_is_known_peers_are_sought_ever_less_often() {
        let mut bench = Bench::new(7, naming(0));
        assert_eq!(bench.next().await, (Occasion::Started, 0.0));
        let mut before = 0.0;
        for most in [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0] {
            let (occasion, at) = bench.next().await;
            assert_eq!(occasion, Occasion::Seeking);
            assert!((most / 2.0 - 0.01..=most + 0.01).contains(&(at - before)), "{at} {before}");
            before = at;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn with_peers_it_is_announced_again_when_the_interval_is_over() {
        let mut bench = Bench::new(7, naming(1));
        assert_eq!(bench.next().await, (Occasion::Started, 0.0));
        let (occasion, at) = bench.next().await;
        assert_eq!(occasion, Occasion::Due);
        assert!((270.0..331.0).contains(&at), "{at}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_complete_peer_is_not_lonely() {
        let mut bench = Bench::new(0, naming(0));
        assert_eq!(bench.next().await, (Occasion::Started, 0.0));
        assert_eq!(bench.next().await.0, Occasion::Due);
    }

    #[tokio::test(start_paused = true)]
    async fn while_no_peer_named_gives_the_manifest_others_are_asked_for() {
        let mut bench = Bench::new(UNKNOWN_BYTES, naming(1));
        bench.next().await;
        assert_eq!(bench.next().await, (Occasion::Seeking, UNRESOLVED.as_secs_f64()));
    }

    #[tokio::test(start_paused = true)]
    async fn news_do_not_wait_for_the_interval() {
        let mut bench = Bench::new(7, naming(1));
        bench.next().await;
        bench.events.recv().await.expect("what was heard is reported");
        bench.news.send_modify(|news| news.starved += 1);
        assert_eq!(bench.next().await, (Occasion::Seeking, 0.0));
        bench.events.recv().await.expect("what was heard is reported");
        bench.news.send_modify(|news| news.completed = true);
        assert_eq!(bench.next().await, (Occasion::Completed, 0.0));
    }

    #[tokio::test(start_paused = true)]
    async fn an_announce_that_failed_is_made_again_as_what_it_was() {
        let mut failures = 3;
        let mut bench = Bench::new(7, move |_| {
            failures -= 1;
            if failures >= 0 { round(None, Err("down")) } else { round(Some(300), Ok(1)) }
        });
        let mut at = 0.0;
        for _ in 0..4 {
            let (occasion, now) = bench.next().await;
            assert_eq!(occasion, Occasion::Started);
            at = now;
        }
        assert!(at > 1.5, "{at}");
        assert_eq!(bench.next().await.0, Occasion::Due);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_word_is_a_farewell() {
        let mut bench = Bench::new(7, naming(1));
        bench.next().await;
        bench.stop.cancel();
        assert_eq!(bench.next().await.0, Occasion::Stopped);
        assert!(bench.asked.recv().await.is_none());
    }

    #[test]
    fn what_a_broken_service_makes_up_is_left_out() {
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
