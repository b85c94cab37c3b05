//! Announcing a content, and hearing who else is in its swarm, at trackers and at the ring.
//!
//! A task for each tracker and one for the ring, all of them the same loop: announce, report what
//! was heard, wait until it is time or until there is news, and say farewell at the end. Whom they
//! ask, and how, is behind [`Announce`]. Which trackers there are, [`trackers`] keeps looking.

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

/// Longest wait for the farewell: who stops is in a hurry.
const FAREWELL_PATIENCE: Duration = Duration::from_secs(1);

/// Ask again when nobody answered, first so soon, then ever later.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(15);

/// Ask again when nobody to fetch from was known, first so soon, then ever later: the publisher may
/// just be starting.
const FIRST_LONELY: Duration = Duration::from_millis(500);
const MAX_LONELY: Duration = Duration::from_secs(10);

/// Ask again so soon while no peer gave the manifest: those named may be gone. As often as the brain
/// says that a swarm starves.
const UNRESOLVED: Duration = Duration::from_secs(5);

/// Who is announced to asks to be left alone for so long, at most.
const MAX_INTERVAL: Duration = Duration::from_secs(600);

/// Peers taken from one answer, at most: what trackers and ring nodes give at most.
const MAX_PEERS: usize = 200;

/// The bytes lacking of a content whose manifest is not here.
pub(crate) const UNKNOWN_BYTES: u64 = u64::MAX;

/// Who was asked for peers.
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

/// The peers named, or why there are none.
type Outcome = Result<Vec<Candidate>, String>;

/// How an announce went.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) content: ContentKey,
    pub(crate) source: Source,
    pub(crate) outcome: Outcome,
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
    pub(crate) news: watch::Receiver<News>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) stop: CancellationToken,
    pub(crate) subject: Subject,
}

/// What is announced.
#[derive(Clone)]
pub(crate) struct Subject {
    pub(crate) content: ContentId,
    pub(crate) me: PeerInfo,
    /// Bytes still lacking, or [`UNKNOWN_BYTES`].
    pub(crate) left_bytes: Arc<AtomicU64>,
}

/// Why something is said now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Occasion {
    Started,
    Completed,
    /// The interval is over.
    Due,
    /// Peers are wanted; what was announced still holds.
    Seeking,
    Stopped,
}

/// What came of saying it.
#[derive(Debug, Default)]
struct Round {
    /// What each that was asked had to say; the last one decides whether the round was a success.
    heard: Vec<(Source, Outcome)>,
    /// When to announce again; none if it was not announced.
    interval: Option<Duration>,
}

/// Whom a content is announced to.
trait Announce: Send + 'static {
    /// Announces what the occasion asks for, and hears who else takes part. Nobody is waited for
    /// longer than `patience`.
    fn announce(
        &mut self,
        subject: &Subject,
        occasion: Occasion,
        patience: Duration,
    ) -> impl Future<Output = Round> + Send;
}

impl Announcer {
    /// Starts tasks for the trackers that this content is announced to and one for the ring.
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
        // Who does not hear it forgets us after a while.
        to.announce(&self.subject, Occasion::Stopped, FAREWELL_PATIENCE).await;
    }

    /// Tells the engine what was heard; an error if it is gone.
    async fn report(&self, round: Round) -> Result<(), mpsc::error::SendError<Event>> {
        for (source, outcome) in round.heard {
            let report = Report { content: self.key, source, outcome };
            self.events.send(Event::Announced(report)).await?;
        }
        Ok(())
    }
}

impl Subject {
    /// This peer as others are to know it now.
    fn peer(&self) -> PeerInfo {
        let left_bytes = self.left_bytes.load(Ordering::Relaxed);
        PeerInfo { complete: left_bytes == 0, ..self.me.clone() }
    }

    /// The others of an answer that can be dialled; what a broken service makes up is left out, and what
    /// leads to this very host unless the service is here.
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

/// The answer to a call, or why there is none, in words.
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

/// When it is wanted to be said again, within reason.
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

    /// Answers to occasions as a test has it, and notes when it was asked.
    struct Scripted<F> {
        answer: F,
        asked: mpsc::UnboundedSender<(Occasion, Instant)>,
    }

    impl<F: FnMut(Occasion) -> Round + Send + 'static> Announce for Scripted<F> {
        async fn announce(&mut self, _: &Subject, occasion: Occasion, _: Duration) -> Round {
            // A test that has seen enough does not listen any more.
            let _ = self.asked.send((occasion, Instant::now()));
            (self.answer)(occasion)
        }
    }

    /// An announcer at work, seen from all sides.
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

    /// What the ring answers that names so many peers.
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
