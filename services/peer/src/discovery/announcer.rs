//! The loop that announces one content to one service: announce, report the answer, wait until the
//! next announce is due or there is news, and leave at the end.

use std::{pin::pin, sync::atomic::Ordering, time::Duration};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use shoal_core::{backoff::Backoff, swarm::ContentKey};
use tokio::{
    sync::{
        mpsc::{self, error::SendError},
        watch,
    },
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    announce::{Announce, Reason, Round, Subject, UNKNOWN_BYTES},
    event::{Event, Report},
};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest wait for the last announce: a stopping peer is in a hurry.
const FAREWELL_PATIENCE: Duration = Duration::from_secs(1);

/// The first pause after a failed announce; it grows.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(15);

/// The first pause if no peer to fetch from is known; it grows: the publisher may just be starting.
const FIRST_SEARCH_PAUSE: Duration = Duration::from_millis(500);
const MAX_SEARCH_PAUSE: Duration = Duration::from_secs(10);

/// The pause while no peer has given the manifest: the named ones may be gone. As often as the
/// state machine reports that a swarm starves.
const UNRESOLVED: Duration = Duration::from_secs(5);

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

impl Announcer {
    /// Announces to one service.
    pub(super) async fn announce_to(mut self, mut to: impl Announce) {
        let mut rng = StdRng::from_rng(&mut rand::rng());
        let mut backoff = Backoff::new(FIRST_BACKOFF, MAX_BACKOFF);
        let mut search = Backoff::new(FIRST_SEARCH_PAUSE, MAX_SEARCH_PAUSE);
        let mut reason = Reason::Started;
        let mut due = Instant::now();
        let stop = self.stop.clone();
        loop {
            let mut round = pin!(to.announce(&self.subject, reason, PATIENCE));
            let Some(round) = stop.run_until_cancelled(&mut round).await else {
                // It must not arrive after the farewell, which would bring this peer back.
                let _ = timeout(FAREWELL_PATIENCE, round).await;
                break;
            };
            if let Some(interval) = round.interval {
                reason = Reason::Seeking;
                due = Instant::now() + interval.mul_f64(rng.random_range(0.9..1.1));
            }
            let until_due = due.saturating_duration_since(Instant::now());
            let left_bytes = self.subject.left_bytes.load(Ordering::Relaxed);
            let wait = if round.has_failed() {
                backoff.next(&mut rng)
            } else {
                backoff.reset();
                if round.found_nobody() && left_bytes > 0 {
                    search.next(&mut rng).min(until_due)
                } else {
                    search.reset();
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
                        reason = Reason::Completed;
                    }
                }
            }
            if reason == Reason::Seeking && Instant::now() >= due {
                reason = Reason::Due;
            }
        }
        // A service that is not reached forgets this peer after a while.
        to.announce(&self.subject, Reason::Stopped, FAREWELL_PATIENCE).await;
    }

    /// Reports the outcome to the engine; an error if it has ended.
    async fn report(&self, round: Round) -> Result<(), SendError<Event>> {
        for (target, outcome) in round.outcomes {
            let report = Report { content: self.key, target, outcome };
            self.events.send(Event::Announced(report)).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::AtomicU64};

    use shoal_core::{content::ContentId, peer_list::Candidate};
    use shoal_proto::types::v1::PeerInfo;

    use super::*;
    use crate::discovery::event::AnnounceTarget;

    fn target() -> AnnounceTarget {
        AnnounceTarget::RingNode("node:7071".parse().unwrap())
    }

    /// Answers as a test defines it, and records when it was asked.
    struct Scripted<F> {
        answer: F,
        delay: Duration,
        asked: mpsc::UnboundedSender<(Reason, Instant)>,
    }

    impl<F: FnMut(Reason) -> Round + Send + 'static> Announce for Scripted<F> {
        async fn announce(&mut self, _: &Subject, reason: Reason, _: Duration) -> Round {
            // A finished test does not listen any more.
            let _ = self.asked.send((reason, Instant::now()));
            sleep(self.delay).await;
            (self.answer)(reason)
        }
    }

    /// A running announcer, with all of its channels.
    struct Bench {
        asked: mpsc::UnboundedReceiver<(Reason, Instant)>,
        news: watch::Sender<News>,
        stop: CancellationToken,
        started: Instant,
        events: mpsc::Receiver<Event>,
    }

    impl Bench {
        fn new(left_bytes: u64, answer: impl FnMut(Reason) -> Round + Send + 'static) -> Self {
            Self::with_delay(Duration::ZERO, left_bytes, answer)
        }

        fn with_delay(
            delay: Duration,
            left_bytes: u64,
            answer: impl FnMut(Reason) -> Round + Send + 'static,
        ) -> Self {
            let (noted, asked) = mpsc::unbounded_channel();
            let (events, heard) = mpsc::channel(1000);
            let (news, stop) = (watch::Sender::new(News::default()), CancellationToken::new());
            let announcer = Announcer {
                key: ContentKey(1),
                news: news.subscribe(),
                events,
                stop: stop.clone(),
                subject: Subject {
                    content: ContentId::of_descriptor(b"a"),
                    me: PeerInfo::default(),
                    left_bytes: Arc::new(AtomicU64::new(left_bytes)),
                },
            };
            tokio::spawn(announcer.announce_to(Scripted { answer, delay, asked: noted }));
            Self { asked, news, stop, started: Instant::now(), events: heard }
        }

        /// The next reason, and the seconds from the start to it.
        async fn next(&mut self) -> (Reason, f64) {
            let (reason, at) = self.asked.recv().await.expect("it goes on");
            (reason, at.duration_since(self.started).as_secs_f64())
        }
    }

    fn round(interval: Option<u64>, outcome: Result<usize, &str>) -> Round {
        let candidate = |number| Candidate {
            peer: "2f1e0c5a-7c1b-4d0e-9d3a-5a4c4cbb6a10".parse().unwrap(),
            address: format!("10.0.0.1:{number}").parse().unwrap(),
            complete: false,
        };
        let outcome = outcome.map(|peers| (0..peers).map(candidate).collect());
        Round {
            outcomes: vec![(target(), outcome.map_err(str::to_owned))],
            interval: interval.map(Duration::from_secs),
        }
    }

    /// The ring's answer with this many peers.
    fn naming(peers: usize) -> impl FnMut(Reason) -> Round + Send {
        move |reason| round((reason != Reason::Seeking).then_some(300), Ok(peers))
    }

    #[tokio::test(start_paused = true)]
    async fn while_no_peer_is_known_the_pauses_of_the_search_grow() {
        let mut bench = Bench::new(7, naming(0));
        assert_eq!(bench.next().await, (Reason::Started, 0.0));
        let mut before = 0.0;
        for most in [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0] {
            let (reason, at) = bench.next().await;
            assert_eq!(reason, Reason::Seeking);
            assert!((most / 2.0 - 0.01..=most + 0.01).contains(&(at - before)), "{at} {before}");
            before = at;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn with_peers_the_next_announce_is_after_the_interval() {
        let mut bench = Bench::new(7, naming(1));
        assert_eq!(bench.next().await, (Reason::Started, 0.0));
        let (reason, at) = bench.next().await;
        assert_eq!(reason, Reason::Due);
        assert!((270.0..331.0).contains(&at), "{at}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_complete_peer_does_not_search() {
        let mut bench = Bench::new(0, naming(0));
        assert_eq!(bench.next().await, (Reason::Started, 0.0));
        assert_eq!(bench.next().await.0, Reason::Due);
    }

    #[tokio::test(start_paused = true)]
    async fn while_no_peer_gives_the_manifest_more_are_requested() {
        let mut bench = Bench::new(UNKNOWN_BYTES, naming(1));
        bench.next().await;
        assert_eq!(bench.next().await, (Reason::Seeking, UNRESOLVED.as_secs_f64()));
    }

    #[tokio::test(start_paused = true)]
    async fn news_is_announced_before_the_interval_is_over() {
        let mut bench = Bench::new(7, naming(1));
        bench.next().await;
        bench.events.recv().await.expect("the outcome is reported");
        bench.news.send_modify(|news| news.starved += 1);
        assert_eq!(bench.next().await, (Reason::Seeking, 0.0));
        bench.events.recv().await.expect("the outcome is reported");
        bench.news.send_modify(|news| news.completed = true);
        assert_eq!(bench.next().await, (Reason::Completed, 0.0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_announce_is_repeated_for_the_same_reason() {
        let mut failures = 3;
        let mut bench = Bench::new(7, move |_| {
            failures -= 1;
            if failures >= 0 { round(None, Err("down")) } else { round(Some(300), Ok(1)) }
        });
        let mut at = 0.0;
        for _ in 0..4 {
            let (reason, now) = bench.next().await;
            assert_eq!(reason, Reason::Started);
            at = now;
        }
        assert!(at > 1.5, "{at}");
        assert_eq!(bench.next().await.0, Reason::Due);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_announcer_announces_that_it_leaves() {
        let mut bench = Bench::new(7, naming(1));
        bench.next().await;
        bench.stop.cancel();
        assert_eq!(bench.next().await.0, Reason::Stopped);
        assert!(bench.asked.recv().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_farewell_does_not_overtake_an_announce() {
        let delay = Duration::from_millis(300);
        let mut bench = Bench::with_delay(delay, 7, naming(1));
        assert_eq!(bench.next().await, (Reason::Started, 0.0));
        bench.stop.cancel();
        assert_eq!(bench.next().await, (Reason::Stopped, delay.as_secs_f64()));
    }
}
