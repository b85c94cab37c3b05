//! All attacks at the same time, each repeated.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{Builder, JoinHandle},
    time::Duration,
};

use tokio::{runtime, task::JoinSet, time::sleep};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    ELSEWHERE, announces,
    empties::{self, RING_METHODS},
    half_sent::HalfSent,
    identity,
    idle::{self, Opening},
    links, reflection, storage, tarpits, turns,
    unread::LazyReaders,
};

/// How long connections and calls are held open: longer than any victim waits for a caller.
const HELD: Duration = Duration::from_secs(20);
/// The pause between two rounds of an attack. It leaves processor time to the victims: the test is
/// about what attacks take from them, not about scheduling.
const PAUSE: Duration = Duration::from_secs(2);

/// The attacked processes, as HOST:PORT.
#[derive(Clone, Debug)]
pub struct Targets {
    /// A tracker.
    pub tracker: String,
    /// A ring node.
    pub node: String,
    /// A peer that seeds `id` and `tree`.
    pub seeder: String,
    /// Their admin ports.
    pub admins: Vec<String>,
    /// A content of at least 64 pieces.
    pub id: String,
    /// A content with a long manifest.
    pub tree: String,
}

/// Attacks that run until this is dropped.
pub struct AllAttacks {
    rounds: Rounds,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

type Rounds = Arc<BTreeMap<&'static str, AtomicUsize>>;

const ATTACKS: [&str; 13] = [
    "announces at the ring",
    "calls that stall",
    "empty elements",
    "half-sent calls",
    "idle connections",
    "lazy readers",
    "links in another's name",
    "silent links",
    "stolen announces",
    "stolen announces at the ring",
    "tarpits",
    "values",
    "victims of reflection",
];

impl AllAttacks {
    /// Starts all attacks on a thread of their own.
    pub fn start(targets: Targets) -> Self {
        let rounds: Rounds = Arc::new(ATTACKS.map(|name| (name, AtomicUsize::new(0))).into());
        let stop = CancellationToken::new();
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let (counted, stopped) = (Arc::clone(&rounds), stop.clone());
        let attack = move || {
            runtime.block_on(async {
                let mut attacks = JoinSet::new();
                for name in ATTACKS {
                    let (targets, rounds) = (targets.clone(), Arc::clone(&counted));
                    attacks.spawn(async move {
                        loop {
                            // A round may fail or be refused.
                            let round = tokio::spawn(round(name, targets.clone()));
                            let _ = AbortOnDropHandle::new(round).await;
                            rounds[name].fetch_add(1, Ordering::Relaxed);
                            sleep(PAUSE).await;
                        }
                    });
                }
                stopped.cancelled().await;
            });
            runtime.shutdown_background();
        };
        let thread = Builder::new().name("attacks".to_owned()).spawn(attack).expect("a thread");
        Self { rounds, stop, thread: Some(thread) }
    }

    /// The number of rounds of each attack so far.
    pub fn rounds(&self) -> BTreeMap<&'static str, usize> {
        let rounds = self.rounds.iter();
        rounds.map(|(name, count)| (*name, count.load(Ordering::Relaxed))).collect()
    }
}

impl Drop for AllAttacks {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A failure of an attack is not a failure of the test.
            let _ = thread.join();
        }
    }
}

/// One round of an attack.
async fn round(name: &str, targets: Targets) -> anyhow::Result<()> {
    let Targets { tracker, node, seeder, admins, id, tree } = targets;
    match name {
        "announces at the ring" => drop(announces::flood_ring(&node, 1_000).await?),
        "calls that stall" => {
            let _stalled = turns::stall(&seeder, &id, 64, 200).await?;
            sleep(HELD).await;
        }
        "empty elements" => {
            for (method, wrapped) in RING_METHODS {
                for bytes in [(4 << 20) - 16, 255 << 10] {
                    empties::send(&node, method, &empties::message(wrapped, bytes), 8).await;
                    sleep(PAUSE).await;
                }
            }
        }
        "half-sent calls" => {
            let exchange = "/shoal.peer.v1.PeerService/Exchange";
            let hand_in = "/shoal.dht.v1.ReplicaService/HandIn";
            let announce = "/shoal.tracker.v1.TrackerService/Announce";
            let _peer = HalfSent::start(&seeder, exchange, 511 << 10, 60).await;
            let _ring = HalfSent::start(&node, hand_in, 4 << 20, 60).await;
            let _tracker = HalfSent::start(&tracker, announce, 15 << 10, 60).await;
            sleep(HELD).await;
        }
        "idle connections" => {
            let mut held = Vec::new();
            for opening in [Opening::Silent, Opening::Http2, Opening::Http1] {
                for admin in &admins {
                    held.extend(idle::open(admin, opening, 30));
                }
            }
            sleep(HELD).await;
        }
        "lazy readers" => {
            let _readers = LazyReaders::start(&seeder, &tree, 4, 64).await;
            sleep(HELD).await;
        }
        "links in another's name" => {
            for innocent in identity::peers_of(&tracker, &id).await?.into_iter().take(8) {
                identity::defame(ELSEWHERE, &seeder, &id, &innocent, 2).await?;
            }
        }
        "silent links" => {
            let _silent = links::be_silent(&seeder, &id, ELSEWHERE, 60).await?;
            sleep(HELD).await;
        }
        "stolen announces" => {
            for owner in identity::peers_of(&tracker, &id).await?.into_iter().take(8) {
                identity::steal_at_tracker(&tracker, &id, &owner).await?;
            }
        }
        "stolen announces at the ring" => {
            for owner in identity::peers_of(&tracker, &id).await?.into_iter().take(8) {
                identity::steal_at_ring(&node, &id, &owner).await?;
            }
        }
        "tarpits" => {
            tarpits::announce_tarpits(&tracker, &id, 60).await?;
            sleep(HELD).await;
        }
        "values" => drop(storage::fill(&node, 100).await?),
        "victims of reflection" => {
            let victim = reflection::Victim::listen().await?;
            reflection::announce_victim(&tracker, &id, &victim.address, 900).await?;
            sleep(HELD).await;
        }
        other => unreachable!("{other} is not an attack"),
    }
    Ok(())
}
